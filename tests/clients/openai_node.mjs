// Drives a daemon through the official Node client, whichever major is installed beside this file.
//   node openai_node.mjs BASE_URL MODEL PICTURE
import assert from 'node:assert/strict';
import fs from 'node:fs';
import OpenAI, { NotFoundError } from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const [baseURL, model, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
const url = `data:image/png;base64,${fs.readFileSync(picture).toString('base64')}`;
const messages = [
  {
    role: 'user',
    content: [
      { type: 'image_url', image_url: { url } },
      { type: 'text', text: 'What colour is the star?' },
    ],
  },
];
const parameters = {
  type: 'object',
  properties: { colour: { enum: ['black', 'yellow'] } },
  required: ['colour'],
  additionalProperties: false,
};
const tool = { type: 'function', function: { name: 'note', parameters } };

const plain = await client.chat.completions.create({
  model, messages, max_tokens: 8, temperature: 0,
});
const text = plain.choices[0].message.content;
assert.equal(text, 'black');

let streamed = '';
let usage = null;
const chunks = await client.chat.completions.create({
  model, messages, max_tokens: 8, temperature: 0, stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of chunks) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.equal(usage.total_tokens, plain.usage.total_tokens);

const completions = client.chat.completions;
const helper = completions.stream ? completions : client.beta.chat.completions;
const runner = helper.stream({
  model, messages, max_tokens: 200, tools: [tool], tool_choice: 'required',
  parallel_tool_calls: false, seed: 1,
});
const message = await runner.finalMessage();
assert.equal(message.role, 'assistant');
assert.equal(message.tool_calls.length, 1);
assert.equal(message.tool_calls[0].function.name, 'note');
assert.ok(['black', 'yellow'].includes(JSON.parse(message.tool_calls[0].function.arguments).colour));

const note = z.object({ colour: z.enum(['black', 'yellow']) });
const parsed = await client.chat.completions.parse({
  model, messages, max_tokens: 200, seed: 1, n: 2,
  response_format: zodResponseFormat(note, 'note'),
});
assert.equal(parsed.choices.length, 2);
for (const choice of parsed.choices) {
  assert.ok(['black', 'yellow'].includes(choice.message.parsed.colour));
}
const parsedResponse = await client.responses.parse({
  model, max_output_tokens: 200, temperature: 0, text: { format: zodTextFormat(note, 'note') },
  input: [{
    role: 'user',
    content: [{ type: 'input_image', image_url: url, detail: 'auto' }],
  }],
});
assert.ok(['black', 'yellow'].includes(parsedResponse.output_parsed.colour));

const used = client.responses.stream({
  model, input: 'Hello', max_output_tokens: 200, temperature: 0, tool_choice: 'required',
  parallel_tool_calls: false, tools: [{ type: 'function', name: 'note', parameters, strict: true }],
});
const [call] = (await used.finalResponse()).output;
assert.ok(['black', 'yellow'].includes(JSON.parse(call.arguments).colour));

const response = await client.responses.create({
  model, input: 'Hello', max_output_tokens: 8, temperature: 0,
});
let deltas = '';
const events = await client.responses.create({
  model, input: 'Hello', max_output_tokens: 8, temperature: 0, stream: true,
});
for await (const event of events) {
  if (event.type === 'response.output_text.delta') deltas += event.delta;
}
assert.equal(deltas, response.output_text);

await assert.rejects(
  client.chat.completions.create({ model: 'nobody', messages }),
  (error) => error instanceof NotFoundError && error.code === 'model_not_found',
);
console.log('openai for node: ok');
