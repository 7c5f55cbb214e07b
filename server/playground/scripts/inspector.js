// The developer's side of an answer: numbers, the request as code, token probabilities, raw events.

import { byId, copyText, element } from "./dom.js";
import { count, perSecond, seconds } from "./numbers.js";
import { probabilityMap } from "./probabilities.js";
import { LANGUAGES, shortened } from "./snippets.js";

const EVENTS_SHOWN = 400;

export class Inspector {
  #node = byId("inspector");
  #answer = null;
  #language = "curl";
  #live = { numbers: element("dl", { class: "figures" }), events: element("ol", { class: "events", tabindex: "0", "aria-label": "Events" }) };

  /** @param {Answer|null} answer */
  show(answer) {
    this.#answer = answer;
    this.#live.events.replaceChildren();
    if (!answer?.usage && !answer?.request) {
      return this.#node.replaceChildren(element("p", { class: "hint", text: "Ask something, then look inside here." }));
    }
    const parts = [section("Numbers", this.#live.numbers)];
    if (answer.request) parts.push(section("As code", ...this.#code()));
    parts.push(section("Token probabilities", ...this.#probabilities()));
    if (answer.request) parts.push(section("Events", this.#live.events));
    this.#node.replaceChildren(...parts);
    this.update();
  }

  /** While the answer grows. */
  update() {
    if (!this.#answer) return;
    this.#live.numbers.replaceChildren(...figures(this.#answer));
    const shown = this.#live.events.childElementCount;
    for (const event of this.#answer.events.slice(shown, EVENTS_SHOWN)) {
      const time = element("span", { class: "time", text: seconds(event.atMs) });
      this.#live.events.append(element("li", {}, time, element("code", { text: event.data })));
    }
  }

  #code() {
    const code = () => LANGUAGES[this.#language](this.#answer.request);
    const shown = element("pre", { class: "snippet", tabindex: "0", text: shortened(code()) });
    const choose = (language) => {
      this.#language = language;
      shown.textContent = shortened(code());
      for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.textContent === language));
    };
    const tabs = Object.keys(LANGUAGES).map((language) =>
      element("button", {
        type: "button",
        text: language,
        "aria-pressed": String(language === this.#language),
        on: { click: () => choose(language) },
      }),
    );
    const copy = element("button", { type: "button", id: "copy-snippet", text: "Copy" });
    copy.addEventListener("click", async () => {
      await copyText(code());
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    return [element("div", { class: "row tabs" }, ...tabs, copy), shown];
  }

  #probabilities() {
    if (this.#answer.tokens.length) return probabilityMap(this.#answer.tokens);
    const hint = "Switch on “Token probabilities” in the settings, then answer again.";
    return [element("p", { class: "hint", text: hint })];
  }
}

function figures({ usage, rate, firstTokenMs, totalMs, finish }) {
  const details = usage?.prompt_tokens_details ?? {};
  const rows = [
    ["First token", firstTokenMs !== null && seconds(firstTokenMs)],
    ["Speed", rate && perSecond(rate)],
    ["Whole answer", totalMs !== null && seconds(totalMs)],
    ["Prompt", usage && `${count(usage.prompt_tokens)} tokens`],
    ["of which pictures", usage && `${count(details.image_tokens ?? 0)} tokens`],
    ["of which cached", usage && `${count(details.cached_tokens ?? 0)} tokens`],
    ["Answer", usage && `${count(usage.completion_tokens)} tokens`],
    ["Ended by", finish],
  ];
  return rows.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value || "–" })]);
}

function section(title, ...children) {
  return element("section", {}, element("h3", { text: title }), ...children);
}
