// The request of an answer as code that runs as it is. The key is never part of it.

import { CHAT_PATH, address } from "./client.js";

const VARIABLE = "API_KEY";
const ELIDED_FROM_CHARS = 200;
const OPENAI_FIELDS = new Set(
  "model messages temperature top_p max_completion_tokens seed stop response_format logprobs top_logprobs stream stream_options".split(" "),
);

export const LANGUAGES = { curl, Python: python, JavaScript: javascript };

/** The same code with the data of pictures left out, to be looked at. */
export function shortened(code) {
  return code.replace(/(data:image\/\w+;base64,\w{24})[\w+/=]+/g, (whole, begin) =>
    whole.length > ELIDED_FROM_CHARS ? `${begin}…` : whole,
  );
}

function curl(request) {
  const lines = [
    `curl -N '${address(CHAT_PATH)}'`,
    "  -H 'content-type: application/json'",
    `  -H "authorization: Bearer \${${VARIABLE}:-none}"`,
    "  -d @- <<'REQUEST'",
  ];
  return `${lines.join(" \\\n")}\n${JSON.stringify(request, null, 2)}\nREQUEST\n`;
}

function python(request) {
  const known = Object.entries(request).filter(([name]) => OPENAI_FIELDS.has(name));
  const more = Object.entries(request).filter(([name]) => !OPENAI_FIELDS.has(name));
  const fields = known.map(([name, value]) => `    ${name}=${literal(value, 4)},\n`);
  if (more.length) fields.push(`    extra_body=${literal(Object.fromEntries(more), 4)},\n`);
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${address("v1")}", api_key=os.environ.get("${VARIABLE}", "none"))
stream = client.chat.completions.create(
${fields.join("")})
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}

/** A JSON value as Python writes it; texts are the same in both. */
function literal(value, indent) {
  const inner = " ".repeat(indent + 4);
  const wrap = (open, items, close) =>
    items.length ? `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${" ".repeat(indent)}${close}` : open + close;
  if (Array.isArray(value)) return wrap("[", value.map((item) => literal(item, indent + 4)), "]");
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const entry = ([name, item]) => `${JSON.stringify(name)}: ${literal(item, indent + 4)}`;
  return wrap("{", Object.entries(value).map(entry), "}");
}

function javascript(request) {
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${address("v1")}", apiKey: process.env.${VARIABLE} ?? "none" });
const stream = await client.chat.completions.create(${JSON.stringify(request, null, 2)});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
console.log();
`;
}
