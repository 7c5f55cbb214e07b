// What went wrong with an answer, and the ways on from there.

import { element } from "./dom.js";

export class FailureView {
  node = element("div", { class: "failure", role: "alert", hidden: true });
  #actions;
  #failure = null;
  #timer = null;

  /** @param {object} actions `again` and `goOn` */
  constructor(actions) {
    this.#actions = actions;
  }

  /** @param {boolean} partial some of the answer is there to go on with */
  show(failure, partial) {
    if (failure === this.#failure) return;
    clearInterval(this.#timer);
    this.#failure = failure;
    this.node.hidden = !failure;
    this.node.replaceChildren();
    if (!failure) return;
    this.node.append(element("strong", { text: failure.title }));
    if (failure.text) this.node.append(element("p", { text: failure.text }));
    if (failure.detail) this.node.append(element("p", { class: "detail", text: failure.detail }));
    if (failure.retry) this.#offer(failure.waitS, partial);
  }

  #offer(waitS, partial) {
    const again = element("button", { type: "button", class: "primary", on: { click: this.#actions.again } });
    const buttons = [again];
    if (partial) buttons.unshift(element("button", { type: "button", text: "Go on from here", on: { click: this.#actions.goOn } }));
    this.node.append(element("div", { class: "row" }, ...buttons));
    let leftS = Math.ceil(waitS);
    const tick = () => {
      again.disabled = leftS > 0;
      again.textContent = leftS > 0 ? `Try again in ${leftS} s` : "Try again";
      if (leftS-- <= 0) clearInterval(this.#timer);
    };
    this.#timer = setInterval(tick, 1000);
    tick();
  }
}
