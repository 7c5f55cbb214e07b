// Where a question is written: text, pictures by file, paste, drop and camera, send and stop.

import { byId, listen } from "./dom.js";
import { Unusable, readPicture } from "./pictures.js";
import { setUpCamera } from "./camera.js";
import { Tray } from "./tray.js";
import { framesOf } from "./video.js";

export class Composer extends EventTarget {
  tray = new Tray(byId("tray"));
  #form = byId("composer");
  #field = byId("question");
  #limits;
  #frames;

  /**
   * Fires "ask" with `{text, pictures}` in its detail, "stop", "edit-last", and "change".
   *
   * @param {() => number} bytesMax the largest picture file
   * @param {() => number} frames how many frames of a video are taken
   */
  constructor(bytesMax, frames) {
    super();
    this.#limits = bytesMax;
    this.#frames = frames;
    listen(this.#form, { submit: (event) => (event.preventDefault(), this.#submit()) });
    listen(this.#field, {
      keydown: (event) => this.#key(event),
      input: () => this.#fire("change"),
    });
    this.tray.addEventListener("change", () => this.#fire("change"));
    for (const id of ["files", "camera-file"]) {
      byId(id).addEventListener("change", ({ target }) => {
        this.addFiles([...target.files]);
        target.value = "";
      });
    }
    byId("add-files").addEventListener("click", () => byId("files").click());
    setUpCamera((picture) => this.tray.add(picture), (sentence) => this.complain(sentence));
    this.#takeFromOutside();
  }

  get text() {
    return this.#field.value;
  }

  set busy(busy) {
    this.#form.classList.toggle("busy", busy);
    byId("send").setAttribute("aria-label", busy ? "Stop" : "Send");
  }

  focus() {
    this.#field.focus();
  }

  /** Puts a text into the field, for the user to send or to change. */
  suggest(text) {
    this.#field.value = text;
    this.#fire("change");
    this.focus();
  }

  async addFiles(files) {
    this.complain("");
    for (const file of files) {
      try {
        if (file.type.startsWith("video/")) this.tray.add(...(await framesOf(file, this.#frames())));
        else this.tray.add(await readPicture(file, this.#limits()));
      } catch (error) {
        if (!(error instanceof Unusable)) throw error;
        this.complain(error.message);
      }
    }
  }

  complain(sentence) {
    byId("complaint").textContent = sentence;
  }

  #submit() {
    if (this.#form.classList.contains("busy")) return this.#fire("stop");
    const text = this.text.trim();
    if (!text && !this.tray.pictures.length) return this.focus();
    if (!this.dispatchEvent(new Event("check", { cancelable: true }))) return;
    this.#field.value = "";
    this.complain("");
    this.#fire("ask", { text, pictures: this.tray.take() });
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!this.#form.classList.contains("busy")) this.#submit();
    } else if (event.key === "ArrowUp" && !this.text) {
      event.preventDefault();
      this.#fire("edit-last");
    }
  }

  #takeFromOutside() {
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    listen(document, {
      paste: (event) => {
        if (!event.clipboardData.files.length) return;
        event.preventDefault();
        this.addFiles([...event.clipboardData.files]);
      },
      dragover: (event) => {
        if (!carriesFiles(event)) return;
        event.preventDefault();
        document.body.classList.add("dropping");
      },
      dragleave: (event) => event.relatedTarget ?? document.body.classList.remove("dropping"),
      drop: (event) => {
        document.body.classList.remove("dropping");
        if (!carriesFiles(event)) return;
        event.preventDefault();
        this.addFiles([...event.dataTransfer.files]);
      },
    });
  }

  #fire(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}
