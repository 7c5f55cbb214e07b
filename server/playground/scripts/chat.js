// The open conversation and what can be done with it. A question and its answer are one turn, so
// trying again never asks twice. Announces "structure" (turns came or went), "progress" (the answer
// grew) and "settled" (an answer ended), each with the conversation that it is about.

import { Answer } from "./answer.js";
import { Failure, explain } from "./failures.js";
import { pictureAt, requestBody } from "./request.js";

const TITLE_CHARS = 60;

export function newConversation() {
  const id = [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("");
  return { id, title: "", updatedAt: Date.now(), turns: [] };
}

export class Chat extends EventTarget {
  conversation = newConversation();
  #client;
  #options;
  #model;
  #abort = null;

  /**
   * @param {Client} client
   * @param {() => object} options gives the values of the settings
   * @param {() => Promise<string>} model gives the name that requests carry
   */
  constructor(client, options, model) {
    super();
    this.#client = client;
    this.#options = options;
    this.#model = model;
  }

  get turns() {
    return this.conversation.turns;
  }

  get busy() {
    return this.#abort !== null;
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.#announce("structure");
  }

  ask(text, pictures) {
    const question = { text, pictures };
    if (!this.turns.length) this.conversation.title = title(question);
    this.turns.push({ question, answer: new Answer() });
    return this.#answer(this.turns.length - 1);
  }

  /** Answers a question anew; what came after it goes. */
  again(index) {
    this.turns.length = index + 1;
    this.turns[index].answer = new Answer();
    return this.#answer(index);
  }

  edit(index, text) {
    const question = { ...this.turns[index].question, text };
    this.turns[index] = { question, answer: null };
    if (index === 0) this.conversation.title = title(question);
    return this.again(index);
  }

  /** Goes on with an answer that was cut. */
  goOn(index) {
    this.turns.length = index + 1;
    return this.#answer(index, true);
  }

  stop() {
    this.#abort?.abort();
  }

  async #answer(index, goesOn = false) {
    this.stop();
    const abort = (this.#abort = new AbortController());
    const { conversation } = this;
    const turns = this.turns.slice(0, index + 1);
    const { answer } = turns[index];
    let body = null;
    this.#announce("structure");
    try {
      body = requestBody(turns, this.#options(), await this.#model(), goesOn);
      answer.begin(body, goesOn);
      this.#announce("progress");
      for await (const data of this.#client.chat(body, abort.signal)) {
        answer.take(data);
        this.#announce("progress");
      }
    } catch (error) {
      if (abort.signal.aborted) answer.finish = "stopped";
      else answer.failure = this.#explain(error, body, turns);
    }
    answer.end();
    if (this.#abort === abort) this.#abort = null;
    conversation.updatedAt = Date.now();
    this.#announce("settled", conversation);
  }

  #explain(error, body, turns) {
    const failure = error instanceof Failure ? error : new Failure(500, { message: String(error) });
    return explain(failure, pictureAt(body, failure.param, turns));
  }

  #announce(event, conversation = this.conversation) {
    this.dispatchEvent(new CustomEvent(event, { detail: conversation }));
  }
}

function title({ text, pictures }) {
  const line = text.trim().split("\n")[0] || pictures[0]?.name || "New chat";
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS - 1)}…` : line;
}
