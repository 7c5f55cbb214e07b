// One question and its answer on the page.

import { copyText, element } from "./dom.js";
import { FailureView } from "./failure_view.js";
import { icon } from "./icons.js";
import { MarkdownView, codeBlock } from "./markdown.js";
import { summary } from "./numbers.js";

const CUT = { length: "Stopped at the length limit.", stopped: "You stopped this answer." };

export class TurnView {
  node = element("article", { class: "turn" });
  #turn;
  #actions;
  #body = element("div", { class: "prose" });
  #markdown = new MarkdownView(this.#body);
  #json = null; // the whole answer, where it is one value
  #note = element("p", { class: "note" });
  #numbers = element("p", { class: "numbers" });
  #failure;
  #bar = element("div", { class: "actions" });

  /** @param {object} actions `again`, `goOn`, `edit` and `inspect`, for this turn */
  constructor(turn, actions) {
    this.#turn = turn;
    this.#actions = actions;
    this.#failure = new FailureView(actions);
    this.node.append(this.#question(), this.#answer());
    this.update(false);
  }

  get turn() {
    return this.#turn;
  }

  /** @param {boolean} live the answer is growing */
  update(live) {
    const { answer } = this.#turn;
    this.node.classList.toggle("live", live);
    this.node.classList.toggle("waiting", live && !answer?.text);
    if (!answer) return;
    this.#showText(answer, live);
    this.#note.textContent = live || answer.failure ? "" : (CUT[answer.finish] ?? "");
    this.#numbers.textContent = summary(answer);
    this.#failure.show(live ? null : answer.failure, Boolean(answer.text));
    this.#bar.hidden = live;
    this.#bar.querySelector(".go-on").hidden = !answer.text || answer.finish === "stop";
  }

  startEditing() {
    const { question } = this.#turn;
    const field = element("textarea", { "aria-label": "Edit the question", rows: "3" });
    field.value = question.text;
    const send = element("button", { type: "submit", class: "primary", text: "Send again" });
    const back = element("button", { type: "button", text: "Cancel" });
    const form = element("form", { class: "editor" }, field, element("div", { class: "row" }, back, send));
    const shown = this.node.querySelector(".bubble, .editor");
    const leave = () => form.replaceWith(shown);
    const submit = () => this.#actions.edit(field.value.trim());
    back.addEventListener("click", leave);
    form.addEventListener("submit", (event) => (event.preventDefault(), submit()));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && !event.shiftKey && event.target === field) (event.preventDefault(), submit());
    });
    shown.replaceWith(form);
    field.focus();
  }

  #showText(answer, live) {
    const value = answer.json && !live ? parsed(answer.text) : undefined;
    this.#json?.remove();
    this.#json = value === undefined ? null : codeBlock(JSON.stringify(value, null, 2), "json");
    this.#markdown.update(this.#json ? "" : answer.json ? fenced(answer.text) : answer.text);
    if (this.#json) this.#body.append(this.#json);
  }

  #question() {
    const { text, pictures } = this.#turn.question;
    const images = pictures.map((picture) =>
      element("img", { src: picture.url, alt: picture.name, title: picture.name, loading: "lazy" }),
    );
    const bubble = element("div", { class: "bubble" });
    if (images.length) bubble.append(element("div", { class: "pictures" }, ...images));
    if (text) bubble.append(element("p", { class: "asked", text }));
    const edit = button("edit", "Edit the question", () => this.startEditing());
    const bar = element("div", { class: "actions" }, edit);
    return element("section", { class: "question", "aria-label": "You" }, bar, bubble);
  }

  #answer() {
    this.#bar.append(
      button("copy", "Copy the answer", () => copyText(this.#turn.answer.text)),
      button("refresh", "Answer again", () => this.#actions.again()),
      button("forward", "Go on with this answer", () => this.#actions.goOn(), "go-on"),
      button("code", "Details", () => this.#actions.inspect()),
    );
    const foot = element("footer", {}, this.#numbers, this.#bar);
    const parts = [this.#body, this.#note, this.#failure.node, foot];
    return element("section", { class: "answer", "aria-label": "Answer" }, ...parts);
  }
}

function button(name, label, click, extra = "") {
  const node = element("button", { type: "button", class: `quiet ${extra}`, "aria-label": label, title: label });
  node.append(icon(name));
  node.addEventListener("click", click);
  return node;
}

const fenced = (text) => (text ? `\`\`\`json\n${text}\n` : "");

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // cut by the length limit, or stopped
  }
}
