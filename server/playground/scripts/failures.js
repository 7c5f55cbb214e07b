// What can go wrong, said as a person would say it, and what can be done about it.

/** A request that failed: the HTTP status (0: no answer), OpenAI's code, and the server's words. */
export class Failure extends Error {
  constructor(status, { code = null, message = "", param = null } = {}, retryAfterS = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }
}

export const lost = () => new Failure(0, { code: "connection_lost" });

const WAIT_S = 5;

const SENTENCES = {
  connection_lost: ["The connection was lost", "Your question is kept. Try again when the network is back."],
  image_file_too_large: ["A picture is too large", "Send a smaller file."],
  image_too_large: ["A picture is too large", "Send it with fewer pixels."],
  image_parse_error: ["A picture cannot be read", "Its file is damaged or cut off. Remove it, or send it again."],
  invalid_image_format: ["A file is no picture", "Send JPEG, PNG, WEBP or GIF."],
  unsupported_image_media_type: ["A picture has a format this server does not read", "Send JPEG, PNG, WEBP or GIF."],
  invalid_image: ["A picture cannot be used", ""],
  empty_image_file: ["A picture is empty", "Its file has no content. Remove it, or choose another."],
  context_length_exceeded: ["This no longer fits", "Start a new chat, send fewer pictures, or ask for a shorter answer."],
  model_loading: ["The model is still loading", "This can take a few minutes after a start."],
  engine_restarted: ["The model was restarted", "What was being written is lost; your question is kept."],
  engine_died: ["The model was restarted", "It stopped while it worked on this question, which may be the cause."],
  request_quarantined: ["This question is not taken for a while", "The model has stopped repeatedly while it worked on it. Change the text or the pictures."],
  server_shutting_down: ["The server is shutting down", "Your question is kept. Try again in a moment."],
  invalid_schema: ["The schema cannot be used", ""],
  model_not_found: ["The server has another model now", "Reload the page."],
};

/**
 * @param {Failure} failure
 * @param {string} picture name of the picture that the failure is about, or empty
 * @returns {{title: string, text: string, detail: string, waitS: number, retry: boolean}} `retry`:
 *   the same request may succeed later; `waitS`: how much later.
 */
export function explain(failure, picture = "") {
  const passing = failure.status === 0 || failure.status === 429 || failure.status >= 500;
  const waitS = failure.retryAfterS ?? (failure.status === 429 ? WAIT_S : 0);
  const [title, text] = sentences(failure);
  return {
    title: picture ? title.replace(/^A (picture|file)/, `“${picture}”`) : title,
    text,
    detail: failure.message,
    waitS: passing ? waitS : 0,
    retry: passing,
  };
}

function sentences({ status, code }) {
  if (code in SENTENCES) return SENTENCES[code];
  if (status === 401 || status === 403) return ["This server wants a key", "Enter it in the settings, under “API key”."];
  if (status === 413) return ["That is too much at once", "Send fewer or smaller pictures."];
  if (status === 429) return ["The server is busy", "Others are being answered. Your question is kept."];
  if (status === 503) return ["The server is not ready", "Your question is kept."];
  if (status >= 500) return ["Something broke on the server", "This is not your fault. Trying again may help."];
  return ["The server does not accept this", ""];
}
