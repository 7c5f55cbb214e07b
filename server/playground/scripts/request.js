// A conversation and its settings to the body of a chat request.

/**
 * @param {Array} turns questions, all but the last with their answers; the last one's answer is
 *   what the request goes on with when `goesOn` is true
 * @param {object} options values of the settings form
 */
export function requestBody(turns, options, model, goesOn = false) {
  const messages = options.system ? [{ role: "system", content: options.system }] : [];
  for (const [index, { question, answer }] of turns.entries()) {
    messages.push({ role: "user", content: content(question) });
    const asked = index === turns.length - 1;
    if (answer && (!asked || goesOn)) messages.push({ role: "assistant", content: answer.text });
  }
  const body = { model, messages, ...sampling(options) };
  if (options.schemaMode) body.response_format = responseFormat(options.schema);
  if (options.probabilities) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  if (goesOn) Object.assign(body, { continue_final_message: true, add_generation_prompt: false });
  if (options.more) Object.assign(body, JSON.parse(options.more));
  return { ...body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } };
}

/** Pictures first, as the model was trained; frames of a video between their names. */
function content({ text, pictures }) {
  if (!pictures.length) return text;
  const parts = [];
  let frame = 0;
  for (const picture of pictures.filter((one) => !one.frame)) parts.push(imagePart(picture));
  for (const picture of pictures.filter((one) => one.frame)) {
    parts.push({ type: "text", text: `Frame${++frame}: ` }, imagePart(picture));
  }
  if (text) parts.push({ type: "text", text });
  return parts;
}

const imagePart = ({ url }) => ({ type: "image_url", image_url: { url } });

function sampling({ temperature, topP, maxTokens, seed, stop }) {
  const fields = { temperature, top_p: topP, max_completion_tokens: maxTokens, seed };
  const given = Object.entries(fields).filter(([, value]) => value !== null);
  if (stop.length) given.push(["stop", stop]);
  return Object.fromEntries(given);
}

function responseFormat(schema) {
  if (!schema) return { type: "json_object" };
  return { type: "json_schema", json_schema: { name: "answer", strict: true, schema: JSON.parse(schema) } };
}

/** The name of the picture that a path such as `messages[1].content[0].image_url.url` leads to. */
export function pictureAt(body, param, turns) {
  const [, message, part] = /^messages\[(\d+)\]\.content\[(\d+)\]/.exec(param ?? "") ?? [];
  const url = body?.messages[message]?.content[part]?.image_url?.url;
  const pictures = turns.flatMap((turn) => turn.question.pictures);
  return (url && pictures.find((picture) => picture.url === url)?.name) || "";
}
