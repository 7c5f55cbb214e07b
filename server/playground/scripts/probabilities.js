// The tokens of an answer, coloured by how sure the model was; one at a time tells its alternatives.

import { element } from "./dom.js";
import { percent } from "./numbers.js";

const LEVELS = [0.95, 0.8, 0.6, 0.4, 0.2];

export function probabilityMap(tokens) {
  const detail = element("dl", { class: "alternatives", "aria-live": "polite" });
  const spans = tokens.map((token, at) =>
    element("span", {
      class: `token level-${level(Math.exp(token.logprob))}`,
      text: token.token,
      tabindex: at ? "-1" : "0",
      role: "option",
      "aria-selected": "false",
      "aria-label": `${visible(token.token)}, ${percent(token.logprob)}`,
    }),
  );
  const map = element("div", { class: "heat-map", role: "listbox", "aria-label": "Tokens" }, ...spans);
  const select = (at) => {
    if (!spans[at]) return;
    for (const [index, span] of spans.entries()) {
      span.tabIndex = index === at ? 0 : -1;
      span.setAttribute("aria-selected", String(index === at));
    }
    detail.replaceChildren(...alternatives(tokens[at]));
  };
  map.addEventListener("pointerover", ({ target }) => select(spans.indexOf(target)));
  map.addEventListener("focusin", ({ target }) => select(spans.indexOf(target)));
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    spans[spans.indexOf(event.target) + step]?.focus();
  });
  select(0);
  return [map, detail];
}

/** 0 is certain, 5 a guess. */
const level = (probability) => LEVELS.filter((bound) => probability < bound).length;

function alternatives(token) {
  const others = token.top_logprobs.filter((other) => other.token !== token.token);
  return [token, ...others].flatMap((one, at) => [
    element("dt", { class: at ? "" : "drawn", text: visible(one.token) }),
    element("dd", { text: percent(one.logprob) }),
  ]);
}

const visible = (text) => text.replaceAll("\n", "⏎").replaceAll(" ", "␣") || "(empty)";
