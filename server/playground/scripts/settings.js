// The settings form: its values, their checks, and where they are kept. The API key stays in the
// tab's own storage, everything else in the browser's.

import { byId } from "./dom.js";

const KEPT_UNDER = "internvl-serve.settings";
const KEY_UNDER = "internvl-serve.key";

export class Settings extends EventTarget {
  #form = byId("settings");
  #key = byId("api-key");

  constructor() {
    super();
    this.#restore();
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => {
      this.#keep();
      this.check();
      this.dispatchEvent(new Event("change"));
    });
    byId("reset-settings").addEventListener("click", () => {
      this.#form.reset();
      this.#form.dispatchEvent(new Event("input"));
    });
    this.check();
  }

  get key() {
    return this.#key.value.trim();
  }

  /** What a request is made of. */
  get values() {
    const field = (name) => this.#form.elements[name];
    const number = (name) => (field(name).value === "" ? null : Number(field(name).value));
    return {
      system: field("system").value.trim(),
      temperature: number("temperature"),
      topP: number("top_p"),
      maxTokens: number("max_tokens"),
      seed: number("seed"),
      stop: field("stop").value.split("\n").filter(Boolean),
      schemaMode: field("schema_mode").checked,
      schema: field("schema").value.trim(),
      probabilities: field("probabilities").checked,
      frames: Math.max(1, number("frames") ?? 8),
      more: field("more").value.trim(),
    };
  }

  /** Marks fields that cannot be sent; false when there is one. */
  check() {
    byId("schema-field").hidden = !this.values.schemaMode;
    const wrong = { schema: "", more: "" };
    for (const name of Object.keys(wrong)) wrong[name] = objection(this.values[name]);
    if (!this.values.schemaMode) wrong.schema = "";
    for (const [name, sentence] of Object.entries(wrong)) {
      byId(`${name}-objection`).textContent = sentence;
      this.#form.elements[name].setCustomValidity(sentence);
      this.#form.elements[name].setAttribute("aria-invalid", String(Boolean(sentence)));
    }
    return this.#form.checkValidity();
  }

  /** Puts the cursor where `check` found something. */
  showObjection() {
    this.#form.querySelector(":invalid")?.focus();
  }

  #fields() {
    return [...this.#form.elements].filter((field) => field.name);
  }

  #keep() {
    sessionStorage.setItem(KEY_UNDER, this.#key.value);
    const entry = (field) => [field.name, field.type === "checkbox" ? field.checked : field.value];
    localStorage.setItem(KEPT_UNDER, JSON.stringify(Object.fromEntries(this.#fields().map(entry))));
  }

  #restore() {
    this.#key.value = sessionStorage.getItem(KEY_UNDER) ?? "";
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(KEPT_UNDER)) ?? {};
    } catch {
      localStorage.removeItem(KEPT_UNDER);
    }
    for (const field of this.#fields()) {
      if (typeof kept[field.name] === "boolean") field.checked = kept[field.name];
      else if (typeof kept[field.name] === "string") field.value = kept[field.name];
    }
  }
}

function objection(text) {
  if (!text) return "";
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? "" : "This must be a JSON object.";
  } catch (error) {
    return `This is no JSON: ${error.message}.`;
  }
}
