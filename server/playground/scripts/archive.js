// Conversations as a file, and back. What comes from outside is built anew from the fields that are
// known, each of its type; pictures must be `data:` URLs.

const FORMAT = "internvl-serve conversations";
const VERSION = 1;
const PICTURE_URL = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*$/;
const ID = /^[A-Za-z0-9-]{1,64}$/;

export function writeArchive(conversations) {
  const kept = conversations.map(readConversation);
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations: kept }, null, 1);
}

/** Throws an `Error` with a sentence where the text is no archive. */
export function readArchive(text) {
  let archive;
  try {
    archive = JSON.parse(text);
  } catch {
    throw new Error("This file is no archive of conversations.");
  }
  if (archive?.format !== FORMAT || !Array.isArray(archive.conversations)) {
    throw new Error("This file is no archive of conversations.");
  }
  if (archive.version !== VERSION) throw new Error("This archive is of another version.");
  return archive.conversations.map(readConversation);
}

/** A conversation of known fields; throws an `Error` where one is not what it must be. */
export function readConversation(value) {
  const id = text(value?.id);
  if (!ID.test(id)) throw new Error("A conversation in this file has no usable id.");
  const turns = list(value.turns).map((turn) => ({
    question: { text: text(turn?.question?.text), pictures: list(turn?.question?.pictures).map(picture) },
    answer: turn?.answer ? answer(turn.answer) : null,
  }));
  return { id, title: text(value.title), updatedAt: number(value.updatedAt) ?? 0, turns };
}

function picture(value) {
  if (!PICTURE_URL.test(text(value?.url))) throw new Error("A picture in this file is not usable.");
  const { width, height, sizeBytes } = value;
  return {
    name: text(value.name),
    url: value.url,
    width: number(width) ?? 0,
    height: number(height) ?? 0,
    sizeBytes: number(sizeBytes) ?? 0,
    ...(value.frame === true ? { frame: true } : {}),
  };
}

function answer(value) {
  const failure = value.failure && {
    title: text(value.failure.title),
    text: text(value.failure.text),
    detail: text(value.failure.detail),
    waitS: 0,
    retry: value.failure.retry === true,
  };
  return {
    text: text(value.text),
    finish: text(value.finish) || "stopped",
    failure: failure || null,
    usage: value.usage ? usage(value.usage) : null,
    firstTokenMs: number(value.firstTokenMs),
    totalMs: number(value.totalMs),
    rate: number(value.rate),
    json: value.json === true,
  };
}

function usage(value) {
  const details = value.prompt_tokens_details ?? {};
  return {
    prompt_tokens: number(value.prompt_tokens) ?? 0,
    completion_tokens: number(value.completion_tokens) ?? 0,
    prompt_tokens_details: {
      image_tokens: number(details.image_tokens) ?? 0,
      cached_tokens: number(details.cached_tokens) ?? 0,
    },
  };
}

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);
