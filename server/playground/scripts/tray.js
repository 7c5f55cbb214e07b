// The pictures of the next question: thumbnails that can be put in order and removed, by pointer or
// by keyboard (arrows move, Delete removes).

import { element } from "./dom.js";
import { icon } from "./icons.js";

export class Tray extends EventTarget {
  pictures = [];
  #node;
  #dragged = null;

  constructor(node) {
    super();
    this.#node = node;
  }

  add(...pictures) {
    this.#set([...this.pictures, ...pictures]);
  }

  /** Gives the pictures away and keeps none. */
  take() {
    const pictures = this.pictures;
    this.#set([]);
    return pictures;
  }

  #set(pictures) {
    this.pictures = pictures;
    this.#node.replaceChildren(...pictures.map((picture, at) => this.#thumbnail(picture, at)));
    this.#node.hidden = !pictures.length;
    this.dispatchEvent(new Event("change"));
  }

  #move(from, to) {
    if (to < 0 || to >= this.pictures.length) return;
    const pictures = [...this.pictures];
    pictures.splice(to, 0, ...pictures.splice(from, 1));
    this.#set(pictures);
    this.#node.children[to].focus();
  }

  #remove(at) {
    this.#set(this.pictures.toSpliced(at, 1));
    this.#node.children[Math.min(at, this.pictures.length - 1)]?.focus();
  }

  #thumbnail(picture, at) {
    const of = `${at + 1} of ${this.pictures.length}`;
    const size = `${picture.width} × ${picture.height}`;
    const remove = element("button", {
      type: "button",
      class: "remove",
      "aria-label": `Remove ${picture.name}`,
      on: { click: () => this.#remove(at) },
    });
    remove.append(icon("close"));
    return element(
      "li",
      {
        tabindex: "0",
        draggable: "true",
        title: `${picture.name} · ${size}`,
        "aria-label": `Picture ${of}: ${picture.name}. Arrow keys move it, Delete removes it.`,
        on: {
          keydown: (event) => this.#key(event, at),
          dragstart: () => (this.#dragged = at),
          dragend: () => (this.#dragged = null),
          dragover: (event) => this.#dragged !== null && event.preventDefault(),
          drop: (event) => this.#drop(event, at),
        },
      },
      element("img", { src: picture.url, alt: "", draggable: "false" }),
      element("span", { class: "number", text: picture.frame ? `F${this.#frameNumber(at)}` : String(at + 1) }),
      remove,
    );
  }

  #frameNumber(at) {
    return this.pictures.slice(0, at + 1).filter((picture) => picture.frame).length;
  }

  #key(event, at) {
    if (event.target !== event.currentTarget) return;
    const actions = {
      ArrowLeft: () => this.#move(at, at - 1),
      ArrowRight: () => this.#move(at, at + 1),
      Delete: () => this.#remove(at),
      Backspace: () => this.#remove(at),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  #drop(event, at) {
    if (this.#dragged === null) return;
    event.preventDefault();
    event.stopPropagation();
    this.#move(this.#dragged, at);
  }
}
