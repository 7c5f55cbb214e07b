// The list of former conversations, and their export and import.

import { readArchive, writeArchive } from "./archive.js";
import { byId, element, saveFile } from "./dom.js";
import { icon } from "./icons.js";

export class Sidebar extends EventTarget {
  #history;
  #open = null;

  /** Fires "open" with an id in its detail, "remove" with one that is about to go, and "new". */
  constructor(history) {
    super();
    this.#history = history;
    byId("new-chat").addEventListener("click", () => this.#fire("new"));
    byId("export").addEventListener("click", () => this.#export());
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", ({ target }) => {
      this.#import(target.files[0]);
      target.value = "";
    });
  }

  /** @param {string} [open] id of the open conversation */
  async refresh(open = this.#open) {
    this.#open = open;
    const entries = await this.#history.list();
    byId("conversations").replaceChildren(...entries.map((entry) => this.#entry(entry)));
    byId("export").disabled = !entries.length;
  }

  #entry({ id, title }) {
    const current = id === this.#open && "page";
    const open = element("button", { type: "button", class: "entry", text: title || "New chat", "aria-current": current });
    open.addEventListener("click", () => this.#fire("open", id));
    const remove = element("button", { type: "button", class: "quiet", "aria-label": `Delete “${title}”` });
    remove.append(icon("trash"));
    remove.addEventListener("click", async () => {
      this.#fire("remove", id);
      await this.#history.remove(id);
      await this.refresh();
    });
    return element("li", {}, open, remove);
  }

  async #export() {
    const ids = (await this.#history.list()).map((entry) => entry.id);
    const whole = await Promise.all(ids.map((id) => this.#history.load(id)));
    saveFile("conversations.json", writeArchive(whole));
  }

  async #import(file) {
    const say = (sentence) => (byId("archive-note").textContent = sentence);
    try {
      const conversations = readArchive(await file.text());
      for (const conversation of conversations) await this.#history.save(conversation);
      say(`Imported: ${conversations.length}.`);
    } catch (error) {
      say(error.message);
    }
    await this.refresh();
  }

  #fire(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}
