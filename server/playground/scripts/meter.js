// How much of the context is taken: what the last answer counted, and an estimate of what is being
// written. A picture costs what pictures cost before.

import { byId } from "./dom.js";
import { count } from "./numbers.js";

const CHARS_PER_TOKEN = 3.5;
const PICTURE_TOKENS = 256;
const AROUND_PICTURE_TOKENS = 2;
const WARN_FROM = 0.8;

/** Tokens that the conversation takes, the draft included; only the past is exact. */
export function contextUse(turns, draft) {
  const last = turns.findLast((turn) => turn.answer?.usage);
  const usage = last?.answer.usage;
  const pictures = turns.slice(0, turns.indexOf(last) + 1).flatMap((turn) => turn.question.pictures);
  const imageTokens = usage?.prompt_tokens_details?.image_tokens ?? 0;
  const each = pictures.length && imageTokens ? imageTokens / pictures.length : PICTURE_TOKENS;
  const past = usage ? usage.prompt_tokens + usage.completion_tokens : 0;
  const coming = draft.pictures.length * (each + AROUND_PICTURE_TOKENS) + draft.text.length / CHARS_PER_TOKEN;
  return Math.round(past + coming);
}

export function showMeter(used, limit) {
  const meter = byId("meter");
  meter.hidden = !limit || !used;
  if (meter.hidden) return;
  const share = used / limit;
  meter.style.setProperty("--share", String(Math.min(1, share)));
  meter.classList.toggle("warning", share >= WARN_FROM);
  meter.classList.toggle("over", share > 1);
  byId("meter-text").textContent = `${count(used)} / ${count(limit)}`;
  meter.title = `About ${count(used)} of ${count(limit)} tokens of the context`;
  byId("meter-warning").textContent = share > 1 ? "This will not fit. Start a new chat or remove pictures." : share >= WARN_FROM ? "The context is nearly full." : "";
}
