// Markdown to nodes. The parser gives a tree of tokens, and this file turns each kind it knows into
// one element; HTML in the text stays text, pictures become links, links lead to the web only.

import { lexer } from "../vendor/marked.esm.js";
import { copyText, element } from "./dom.js";
import { icon } from "./icons.js";

const SAFE_LINK = /^(https?:|mailto:)/i;

/** Shows a text that grows: blocks that did not change keep their nodes. */
export class MarkdownView {
  #node;
  #blocks = [];

  constructor(node) {
    this.#node = node;
  }

  update(text) {
    const tokens = parse(text).filter((token) => token.type !== "space");
    let same = 0;
    while (same < this.#blocks.length && this.#blocks[same].raw === tokens[same]?.raw) same++;
    for (const { node } of this.#blocks.splice(same)) node.remove();
    for (const token of tokens.slice(same)) {
      const node = block(token);
      this.#blocks.push({ raw: token.raw, node });
      this.#node.append(node);
    }
  }
}

function parse(text) {
  try {
    return lexer(text);
  } catch {
    return [{ type: "text", raw: text, text }]; // what the parser gives up on is still readable
  }
}

function block(token) {
  switch (token.type) {
    case "code":
      return codeBlock(token.text, token.lang ?? "");
    case "heading":
      return element(`h${Math.min(6, token.depth + 2)}`, {}, ...inlines(token));
    case "hr":
      return element("hr");
    case "blockquote":
      return element("blockquote", {}, ...token.tokens.map(block));
    case "list":
      return list(token);
    case "table":
      return table(token);
    case "paragraph":
    case "text":
      return element("p", {}, ...inlines(token));
    default:
      return element("p", { text: token.raw });
  }
}

/** A block of code with a button that copies it. */
export function codeBlock(text, language) {
  const copy = element("button", { type: "button", class: "quiet", "aria-label": "Copy code" });
  copy.append(icon("copy"));
  copy.addEventListener("click", async () => {
    await copyText(text);
    copy.replaceChildren(icon("check"));
    setTimeout(() => copy.replaceChildren(icon("copy")), 1500);
  });
  const bar = element("figcaption", {}, element("span", { text: language }), copy);
  const code = element("pre", { tabindex: "0" }, element("code", { text }));
  return element("figure", { class: "code" }, bar, code);
}

function list(token) {
  const node = element(token.ordered ? "ol" : "ul");
  if (token.ordered && token.start !== 1) node.start = token.start;
  for (const item of token.items) node.append(element("li", {}, ...item.tokens.flatMap(itemPart)));
  return node;
}

function itemPart(token) {
  if (token.type === "checkbox") return [token.checked ? "☑ " : "☐ "];
  if (token.type === "text") return inlines(token);
  return token.type === "space" ? [] : [block(token)];
}

function table(token) {
  const cell = (tag) => (part, column) =>
    element(tag, { class: `align-${token.align[column] ?? "start"}` }, ...inlines(part));
  const head = element("tr", {}, ...token.header.map(cell("th")));
  const rows = token.rows.map((row) => element("tr", {}, ...row.map(cell("td"))));
  const whole = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, whole);
}

function inlines(token) {
  return token.tokens ? token.tokens.map(inline) : [token.text ?? token.raw];
}

function inline(token) {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return element(token.type, {}, ...inlines(token));
    case "codespan":
      return element("code", { text: token.text });
    case "br":
      return element("br");
    case "link":
    case "image":
      return link(token);
    case "escape":
      return token.text;
    case "text":
      return token.tokens ? element("span", {}, ...inlines(token)) : token.text;
    default:
      return token.raw;
  }
}

function link(token) {
  if (!SAFE_LINK.test(token.href)) return token.raw;
  const leave = { href: token.href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return element("a", leave, ...(token.type === "link" ? inlines(token) : [token.text || token.href]));
}
