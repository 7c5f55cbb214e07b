// Every call to the server. Addresses are relative to the page, so any sub-path works.

import { Failure, lost } from "./failures.js";
import { readEvents } from "./sse.js";

export const CHAT_PATH = "v1/chat/completions";

const PATIENCE_MS = 5000; // what is not the model's work is answered at once, or not at all

export const address = (path) => new URL(path, document.baseURI).href;

export class Client {
  #key;

  /** @param {() => string} key gives the API key, or an empty text. */
  constructor(key) {
    this.#key = key;
  }

  /** The text of a GET; throws `Failure`. */
  async get(path) {
    return (await this.#send(path, { signal: AbortSignal.timeout(PATIENCE_MS) })).text();
  }

  /** Yields the data of each event of an answer, without the end mark; throws `Failure`. */
  async *chat(body, signal) {
    const response = await this.#send(CHAT_PATH, { method: "POST", body: JSON.stringify(body), signal });
    let done = false;
    try {
      for await (const data of readEvents(response.body)) {
        if (data === "[DONE]") done = true;
        else yield data;
      }
    } catch (error) {
      throw signal.aborted || error instanceof Failure ? error : lost();
    }
    if (!done) throw lost();
  }

  async #send(path, options) {
    const headers = { "content-type": "application/json" };
    if (this.#key()) headers.authorization = `Bearer ${this.#key()}`;
    let response;
    try {
      response = await fetch(address(path), { ...options, headers, cache: "no-store", redirect: "error" });
    } catch (error) {
      throw error.name === "AbortError" ? error : lost();
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const wait = Number.parseFloat(response.headers.get("retry-after"));
  return new Failure(response.status, body.error ?? {}, Number.isFinite(wait) ? wait : null);
}
