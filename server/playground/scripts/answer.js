// One answer while it grows: text, usage, times, tokens with their probabilities, raw events.

import { Failure } from "./failures.js";

const EVENTS_KEPT = 5000;
const MEASURED_FROM_MS = 30;

export class Answer {
  text = "";
  finish = null; // the server's reason, "stopped" by the user, or null
  failure = null;
  usage = null;
  request = null;
  events = [];
  tokens = [];
  firstTokenMs = null;
  totalMs = null;
  rate = null; // tokens per second
  json = false;
  #first = null; // when the first text came, and how many tokens that was
  #lastAt = null;
  #sentAt = performance.now();

  /** An answer from the history: without its events. */
  static kept(value) {
    return Object.assign(new Answer(), value);
  }

  /** Begins over, or goes on after what is there when `goesOn`. */
  begin(request, goesOn) {
    if (!goesOn) this.text = "";
    this.json = request.response_format !== undefined;
    Object.assign(this, { request, tokens: [], events: [], usage: null });
    Object.assign(this, { finish: null, failure: null, firstTokenMs: null, totalMs: null, rate: null });
    this.#first = null;
    this.#sentAt = performance.now();
  }

  /** Takes the data of one event; throws what the server reports in the stream. */
  take(data) {
    if (this.events.length < EVENTS_KEPT) {
      this.events.push({ atMs: performance.now() - this.#sentAt, data });
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Failure(chunk.error.type === "rate_limit_error" ? 429 : 503, chunk.error);
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices.find(({ index }) => index === 0);
    if (!choice) return;
    if (choice.delta.content) {
      this.text += choice.delta.content;
      this.#lastAt = performance.now();
      this.#first ??= { at: this.#lastAt, tokens: this.usage?.completion_tokens ?? 1 };
      this.firstTokenMs ??= this.#lastAt - this.#sentAt;
      this.rate = this.#rate();
    }
    this.tokens.push(...(choice.logprobs?.content ?? []));
    this.finish = choice.finish_reason ?? this.finish;
  }

  end() {
    this.totalMs = performance.now() - this.#sentAt;
  }

  /** Tokens per second after the first text; null while the time is too short to say. */
  #rate() {
    const tokens = (this.usage?.completion_tokens ?? 0) - this.#first.tokens;
    const passedMs = this.#lastAt - this.#first.at;
    return tokens > 0 && passedMs >= MEASURED_FROM_MS ? (tokens * 1000) / passedMs : null;
  }
}
