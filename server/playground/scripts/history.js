// Conversations in this browser's database: short entries for the list, whole ones beside them, so
// that listing reads no pictures. Bounded in number and size; the longest unused go first.

import { Answer } from "./answer.js";
import { readConversation } from "./archive.js";

const DATABASE = "internvl-serve";
const ENTRIES_MAX = 200;
const CHARS_MAX = 200e6;

export class History {
  #database = open();

  /** Entries `{id, title, updatedAt, chars}`, the newest first. */
  async list() {
    const entries = await this.#run("entries", "readonly", (store) => store.getAll());
    return entries.sort((one, other) => other.updatedAt - one.updatedAt);
  }

  async load(id) {
    const kept = await this.#run("conversations", "readonly", (store) => store.get(id));
    return kept && revived(readConversation(kept));
  }

  async save(conversation) {
    const kept = readConversation(conversation);
    const { id, title, updatedAt } = kept;
    const entry = { id, title, updatedAt, chars: JSON.stringify(kept).length };
    await this.#run("conversations", "readwrite", (store) => store.put(kept));
    await this.#run("entries", "readwrite", (store) => store.put(entry));
    await this.#bound();
  }

  async remove(id) {
    for (const name of ["entries", "conversations"]) {
      await this.#run(name, "readwrite", (store) => store.delete(id));
    }
  }

  async #bound() {
    let chars = 0;
    for (const [at, entry] of (await this.list()).entries()) {
      chars += entry.chars;
      if (at > 0 && (at >= ENTRIES_MAX || chars > CHARS_MAX)) await this.remove(entry.id);
    }
  }

  async #run(name, mode, work) {
    const store = (await this.#database).transaction(name, mode).objectStore(name);
    return result(work(store));
  }
}

function revived(conversation) {
  for (const turn of conversation.turns) turn.answer &&= Answer.kept(turn.answer);
  return conversation;
}

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => {
    for (const name of ["entries", "conversations"]) request.result.createObjectStore(name, { keyPath: "id" });
  };
  return result(request);
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
