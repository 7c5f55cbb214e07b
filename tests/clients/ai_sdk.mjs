// Drives a daemon through the Vercel AI SDK: the provider for compatible servers, and OpenAI's own.
//   node ai_sdk.mjs BASE_URL MODEL PICTURE
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { generateText, jsonSchema, Output, streamText, tool } from 'ai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { createOpenAI } from '@ai-sdk/openai';

const [baseURL, model, picture] = process.argv.slice(2);
const image = fs.readFileSync(picture);
const schema = jsonSchema({
  type: 'object',
  properties: { colour: { enum: ['black', 'yellow'] } },
  required: ['colour'],
  additionalProperties: false,
});
const messages = [
  {
    role: 'user',
    content: [
      { type: 'file', data: image, mediaType: 'image/png' },
      { type: 'text', text: 'What colour is the star?' },
    ],
  },
];
const tools = { note: tool({ description: 'Remembers a colour.', inputSchema: schema }) };
const colours = ['black', 'yellow'];

const compatible = createOpenAICompatible({
  name: 'here', baseURL, apiKey: 'none', includeUsage: true, supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL, apiKey: 'none' });

for (const [name, used] of [
  ['compatible', compatible(model)],
  ['chat', openai.chat(model)],
  ['responses', openai.responses(model)],
]) {
  const ask = { model: used, messages, temperature: 0, maxRetries: 0 };
  const plain = await generateText({ ...ask, maxOutputTokens: 16 });
  assert.equal(plain.text, 'black', name);
  assert.equal(plain.finishReason, 'stop', name);

  const stream = streamText({ ...ask, maxOutputTokens: 16 });
  let streamed = '';
  for await (const delta of stream.textStream) streamed += delta;
  assert.equal(streamed, plain.text, name);
  assert.equal((await stream.usage).totalTokens, plain.usage.totalTokens, name);

  const formed = await generateText({
    ...ask, maxOutputTokens: 200, output: Output.object({ schema }),
  });
  assert.ok(colours.includes(formed.output.colour), name);

  const called = await generateText({
    ...ask, maxOutputTokens: 200, tools, toolChoice: { type: 'tool', toolName: 'note' },
  });
  assert.equal(called.toolCalls[0].toolName, 'note', name);
  assert.ok(colours.includes(called.toolCalls[0].input.colour), name);

  const calls = await streamText({
    ...ask, maxOutputTokens: 800, tools, toolChoice: 'required',
  }).toolCalls;
  assert.ok(calls.length > 0, name);
  for (const call of calls) assert.ok(colours.includes(call.input.colour), name);
}
console.log('AI SDK: ok');
