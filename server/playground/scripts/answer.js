// One answer while it grows: text, usage, times, tokens with their probabilities, raw events.

import { Failure } from "./failures.js";

const EVENTS_KEPT = 5000;

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
  json = false;
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
    Object.assign(this, { finish: null, failure: null, firstTokenMs: null, totalMs: null });
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
    const choice = chunk.choices[0];
    if (!choice) return;
    if (choice.delta.content) {
      this.firstTokenMs ??= performance.now() - this.#sentAt;
      this.text += choice.delta.content;
    }
    this.tokens.push(...(choice.logprobs?.content ?? []));
    this.finish = choice.finish_reason ?? this.finish;
  }

  end() {
    this.totalMs = performance.now() - this.#sentAt;
  }

  /** Tokens per second after the first one, or null before there are two. */
  get rate() {
    const tokens = this.usage?.completion_tokens ?? 0;
    const passedMs = (this.totalMs ?? performance.now() - this.#sentAt) - this.firstTokenMs;
    return this.firstTokenMs !== null && tokens > 1 && passedMs > 0 ? ((tokens - 1) * 1000) / passedMs : null;
  }
}
