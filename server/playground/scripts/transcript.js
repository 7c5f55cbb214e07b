// All turns of the open conversation; follows the growing answer unless the reader has scrolled up.

import { byId, oncePerFrame } from "./dom.js";
import { TurnView } from "./turn_view.js";

const NEAR_END_PX = 80;
const ANNOUNCED_CHARS = 1500;

export class Transcript extends EventTarget {
  #chat;
  #node = byId("turns");
  #scroller = byId("transcript");
  #views = [];
  #following = true;

  /** Fires "inspect" with the index of a turn in its detail. */
  constructor(chat) {
    super();
    this.#chat = chat;
    this.#scroller.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
      this.#following = scrollHeight - clientHeight - scrollTop < NEAR_END_PX;
    });
    chat.addEventListener("structure", () => this.#rebuild());
    chat.addEventListener("progress", oncePerFrame(() => this.#grow()));
    chat.addEventListener("settled", () => {
      this.#grow();
      this.#announce();
    });
  }

  editLast() {
    this.#views.at(-1)?.startEditing();
  }

  #rebuild() {
    const kept = this.#views.filter((view, at) => view.turn === this.#chat.turns[at]);
    const fresh = this.#chat.turns.slice(kept.length).map((turn, at) => this.#view(turn, kept.length + at));
    this.#views = [...kept, ...fresh];
    this.#node.replaceChildren(...this.#views.map((view) => view.node));
    document.body.classList.toggle("empty", !this.#views.length);
    this.#following = true;
    this.#grow();
  }

  #view(turn, at) {
    return new TurnView(turn, {
      again: () => this.#chat.again(at),
      goOn: () => this.#chat.goOn(at),
      edit: (text) => this.#chat.edit(at, text),
      inspect: () => this.dispatchEvent(new CustomEvent("inspect", { detail: at })),
    });
  }

  #grow() {
    this.#views.at(-1)?.update(this.#chat.busy);
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Tells screen readers the whole answer once, instead of every piece of it. */
  #announce() {
    const answer = this.#chat.turns.at(-1)?.answer;
    byId("announcement").textContent = answer?.failure ? "" : (answer?.text ?? "").slice(0, ANNOUNCED_CHARS);
  }
}
