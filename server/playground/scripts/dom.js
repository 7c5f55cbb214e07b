// Elements without markup: every text becomes a text node, so nothing that a model, a file name or
// an imported history says can turn into elements or scripts.

/**
 * @param {string} tag
 * @param {object} properties `class`, `text`, `on` ({event: listener}), `data`; the rest are
 *   attributes: true sets an empty one; false, null and undefined leave it out.
 * @param {...(Node|string|null)} children
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name === "on") listen(node, value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function listen(node, listeners) {
  for (const [event, listener] of Object.entries(listeners)) node.addEventListener(event, listener);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Calls `work` at most once per frame, however often the returned function is called. */
export function oncePerFrame(work) {
  let planned = false;
  return () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      work();
    });
  };
}

/** Puts text on the clipboard, also where the page has no secure origin. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = element("textarea", { class: "hidden-visually", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** Offers text as a file. */
export function saveFile(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { download: name, href: url }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
