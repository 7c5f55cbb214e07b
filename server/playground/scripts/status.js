// The status corner: what is served and how busy it is, from /version and /metrics. What a server
// does not show to us (metrics may stand on another port) is left out.

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
    const [version, metrics] = await Promise.all([
      this.#ask("version", JSON.parse),
      this.#ask("metrics", readMetrics),
    ]);
    this.#showState(version);
    this.#showLoad(metrics);
    if (version.value && (version.value.models[0] !== this.model || this.contextTokens === null)) {
      await this.#learn(version.value);
    }
  }

  async #learn({ models, engine }) {
    const capabilities = await this.#ask("v1/capabilities", JSON.parse);
    this.model = models[0];
    this.contextTokens = engine?.max_model_len ?? null;
    this.pictureBytesMax = capabilities.value?.limits.max_image_bytes ?? this.pictureBytesMax;
    byId("model").textContent = this.model;
    this.dispatchEvent(new Event("change"));
  }

  async #ask(path, read) {
    try {
      return { value: read(await this.#client.get(path)), status: 200 };
    } catch (error) {
      return { value: null, status: error instanceof Failure ? error.status : 0 };
    }
  }

  #showState(version) {
    const [state, words] = stateOf(version);
    byId("state").className = `dot ${state}`;
    byId("state-text").textContent = words;
    byId("version").textContent = version.value ? `internvl-serve ${version.value.version}` : "";
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
  if (value) return value.engine ? ["ready", "Ready"] : ["waiting", "Loading the model"];
  return status === 0 ? ["lost", "Not reachable"] : ["waiting", status === 401 ? "Wants a key" : "Not ready"];
}

/** The gauges without labels, by name, without the prefix. */
export function readMetrics(text) {
  const found = text.matchAll(/^internvl_(\w+) ([-+.\w]+)$/gm);
  return Object.fromEntries([...found].map(([, name, value]) => [name, Number(value)]));
}

const share = (ratio) => (ratio === undefined ? undefined : `${Math.round(ratio * 100)} %`);
