// The status corner: what is served, from /v1/models, and how busy it is, from /metrics. What a
// server does not show to us (/metrics and /version may stand on another port) is left out.

import { byId, element } from "./dom.js";
import { Failure } from "./failures.js";

const EVERY_MS = 3000;

export class Status extends EventTarget {
  model = "";
  contextTokens = null;
  pictureBytesMax = 20 * 2 ** 20;
  #client;

  /** Fires "change" when model or limits have become known or others. */
  constructor(client) {
    super();
    this.#client = client;
  }

  async watch() {
    await this.refresh(); // also in a tab that was opened in the background
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      if (!document.hidden) await this.refresh();
    }
  }

  /** The name of the served model; empty where the server cannot be asked. */
  async modelName() {
    if (!this.model) await this.refresh();
    return this.model;
  }

  async refresh() {
    const [models, metrics] = await Promise.all([
      this.#ask("v1/models", JSON.parse),
      this.#ask("metrics", readMetrics),
    ]);
    this.#showState(models);
    this.#showLoad(metrics);
    const served = models.value?.data[0];
    if (served && (served.id !== this.model || this.contextTokens === null)) await this.#learn(served);
  }

  async #learn({ id, max_model_len: contextTokens }) {
    const [capabilities, version] = await Promise.all([
      this.#ask("v1/capabilities", JSON.parse),
      this.#ask("version", JSON.parse),
    ]);
    this.model = id;
    this.contextTokens = contextTokens;
    this.pictureBytesMax = capabilities.value?.limits.max_image_bytes ?? this.pictureBytesMax;
    byId("model").textContent = this.model;
    byId("version").textContent = version.value ? `internvl-serve ${version.value.version}` : "";
    this.dispatchEvent(new Event("change"));
  }

  async #ask(path, read) {
    try {
      return { value: read(await this.#client.get(path)), status: 200 };
    } catch (error) {
      return { value: null, status: error instanceof Failure ? error.status : 0 };
    }
  }

  #showState(models) {
    const [state, words] = stateOf(models);
    byId("state").className = `dot ${state}`;
    byId("state-text").textContent = words;
  }

  #showLoad({ value }) {
    const rows = value
      ? [["Running", value.requests_running], ["Waiting", value.requests_waiting], ["KV cache", share(value.kv_cache_usage_ratio)]]
      : [];
    const known = rows.filter(([, figure]) => figure !== undefined);
    byId("load").replaceChildren(
      ...known.map(([name, figure]) =>
        element("div", {}, element("dt", { text: name }), element("dd", { text: String(figure) })),
      ),
    );
  }
}

function stateOf({ value, status }) {
  if (value) return value.data[0].max_model_len ? ["ready", "Ready"] : ["waiting", "Loading the model"];
  return status === 0 ? ["lost", "Not reachable"] : ["waiting", status === 401 ? "Wants a key" : "Not ready"];
}

/** The gauges without labels, by name, without the prefix. */
export function readMetrics(text) {
  const found = text.matchAll(/^internvl_(\w+) ([-+.\w]+)$/gm);
  return Object.fromEntries([...found].map(([, name, value]) => [name, Number(value)]));
}

const share = (ratio) => (ratio === undefined ? undefined : `${Math.round(ratio * 100)} %`);
