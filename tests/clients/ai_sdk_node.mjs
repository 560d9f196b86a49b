// The unmodified packages of the AI SDK for Node against a running cloud: ai with the providers openai,
// openai-compatible and anthropic.
//
// Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.mjs` reads.
import assert from 'node:assert/strict';

import { Upstream, base, charged, key, load, model, run } from './checks.mjs';

const { APICallError, Output, embed, embedMany, generateText, isStepCount, streamText, tool } = load('ai');
const { createAnthropic } = load('@ai-sdk/anthropic');
const { createOpenAI } = load('@ai-sdk/openai');
const { createOpenAICompatible } = load('@ai-sdk/openai-compatible');
const { z } = load('zod');

const upstream = new Upstream();
globalThis.AI_SDK_LOG_WARNINGS = false;

const providers = (apiKey = key) => ({
  openai: createOpenAI({ baseURL: base, apiKey }),
  compatible: createOpenAICompatible({ name: 'sublet', baseURL: base, apiKey, includeUsage: true, supportsStructuredOutputs: true }),
  anthropic: createAnthropic({ baseURL: base, apiKey }),
});

const { openai, compatible, anthropic } = providers();
const apis = [(name) => openai.chat(name), (name) => openai.responses(name), (name) => compatible(name), (name) => anthropic(name)];

// Without retries a failure is seen as it is.
const settings = (ours, more) => ({ model: ours, prompt: 'Name three colours.', maxOutputTokens: 100, temperature: 0, maxRetries: 0, ...more });
const ask = (ours, more) => generateText(settings(ours, more));
const counts = ({ inputTokens, outputTokens }) => [inputTokens, outputTokens];

/** A streamed answer, read to its end. */
async function streamed(ours, more) {
  let failure;
  const result = streamText(settings(ours, { onError: ({ error }) => { failure = error; }, ...more }));
  let text = '';
  for await (const piece of result.textStream) text += piece;
  if (failure) throw failure;
  return { text, usage: await result.totalUsage, toolCalls: await result.toolCalls, output: result };
}

const city = z.object({ name: z.enum(['Rome', 'Oslo']), capital: z.boolean() });
const asked = [];
const tools = {
  get_weather: tool({
    description: 'The weather.',
    inputSchema: z.object({ city: z.string().max(20) }),
    execute: ({ city }) => {
      asked.push(city);
      return `7 degrees in ${city}`;
    },
  }),
  get_time: tool({ description: 'The time.', inputSchema: z.object({}), execute: () => 'noon' }),
};

async function refused(status, code, call) {
  const error = await call().then(() => assert.fail('no error'), (reason) => reason);
  assert.ok(APICallError.isInstance(error), `got ${error}`);
  assert.equal(error.statusCode, status);
  assert.equal(JSON.parse(error.responseBody).error.code, code);
  assert.equal(error.isRetryable, false);
}

await run({
  async 'a conversation of kept responses goes on by reference'() {
    const kept = { providerOptions: { openai: { store: true } } };
    const sent = [];
    const watched = (url, options) => (sent.push(options.body), fetch(url, options));
    const ours = createOpenAI({ baseURL: base, apiKey: key, fetch: watched }).responses(model);
    const question = [{ role: 'user', content: 'Name three colours.' }];
    const first = await ask(ours, { prompt: undefined, messages: question, maxOutputTokens: 12, ...kept });
    const messages = [...question, ...first.response.messages, { role: 'user', content: 'Go on.' }];
    const second = await ask(ours, { prompt: undefined, messages, maxOutputTokens: 12, ...kept });
    assert.match(sent.at(-1), /item_reference/, 'it names what is kept');
    const whole = { providerOptions: { openai: { store: false } } };
    const plain = [...question, { role: 'assistant', content: first.text }, { role: 'user', content: 'Go on.' }];
    const byHand = await ask(ours, { prompt: undefined, messages: plain, maxOutputTokens: 12, ...whole });
    assert.deepEqual([second.text, second.usage.inputTokens], [byHand.text, byHand.usage.inputTokens]);
    const previous = { providerOptions: { openai: { previousResponseId: second.response.id } } };
    const third = await streamed(ours, { prompt: 'More.', maxOutputTokens: 12, ...previous });
    assert.ok(third.text.length > 0 && third.usage.inputTokens > second.usage.inputTokens);
  },

  async 'an answer has text and the usage that is charged'() {
    for (const api of apis) {
      const answer = await ask(api(model));
      assert.ok(answer.text.length > 0);
      const record = await charged(answer.response.id, ...counts(answer.usage));
      assert.deepEqual([record.model, answer.usage.totalTokens], [model, record.usage.output_tokens + answer.usage.inputTokens]);
    }
    const text = await ask(openai.completion(model), { maxOutputTokens: 4 });
    await charged(text.response.id, ...counts(text.usage));
  },

  async 'a stream says the same as a whole answer'() {
    for (const api of apis) {
      const whole = await ask(api(model));
      const { text, usage } = await streamed(api(model));
      assert.equal(text, whole.text);
      assert.deepEqual(counts(usage), counts(whole.usage));
    }
  },

  async 'a demanded tool is called whole and streamed'() {
    const names = ({ toolCalls }) => toolCalls.map(({ toolName }) => toolName);
    for (const api of apis) {
      for (const toolName of ['get_weather', 'get_time']) {
        const more = { tools, toolChoice: { type: 'tool', toolName } };
        const whole = await ask(api(model), more);
        assert.deepEqual(names(whole), [toolName]);
        const again = await streamed(api(model), more);
        assert.deepEqual(again.toolCalls.map(({ toolName, input }) => [toolName, input]), whole.toolCalls.map(({ toolName, input }) => [toolName, input]));
      }
      const [name] = names(await ask(api(model), { tools, toolChoice: 'required' }));
      assert.ok(name in tools, name);
    }
  },

  async 'an answer has the form of a schema'() {
    for (const api of apis) {
      const { output } = await ask(api(model), { output: Output.object({ schema: city }) });
      city.parse(output);
      const parts = streamText(settings(api(model), { output: Output.object({ schema: city }) }));
      let last;
      for await (const part of parts.partialOutputStream) last = part;
      city.parse(last);
      assert.deepEqual(last, output);
    }
  },

  async 'a model that is free calls tools and goes on'() {
    const called = { calls: ['Rome', 'Oslo'].map((city) => ({ name: 'get_weather', arguments: { city } })) };
    for (const api of apis) {
      for (const way of [ask, streamed]) {
        asked.length = 0;
        await upstream.script(called, { text: 'It is 7 degrees.' });
        const answer = await way(api(upstream.model), { tools, stopWhen: isStepCount(3) });
        assert.match(answer.text, /It is 7 degrees\./);
        assert.deepEqual(asked, ['Rome', 'Oslo']);
        const [first, second] = await upstream.bodies();
        assert.equal(first.tool_choice ?? 'auto', 'auto');
        const [, call, ...results] = second.messages;
        assert.deepEqual(results.map((one) => one.tool_call_id), call.tool_calls.map(({ id }) => id));
        assert.deepEqual(results.map(({ content }) => content), ['7 degrees in Rome', '7 degrees in Oslo']);
      }
    }
    await upstream.isCharged();
  },

  async 'texts become vectors in both forms'() {
    const values = ['Name three colours.', 'two'];
    const vectors = values.map((text, place) => [text.length, place, 0.5, -2]);
    for (const ours of [openai.embedding(upstream.model), compatible.embeddingModel(upstream.model)]) {
      await upstream.script();
      const answer = await embedMany({ model: ours, values, maxRetries: 0 });
      assert.deepEqual(answer.embeddings, vectors);
      assert.equal(answer.usage.tokens, values.join('').length);
      const [{ input, encoding_format: form }] = await upstream.bodies();
      assert.deepEqual([input, form], [values, 'float']);
    }
    const { embedding } = await embed({ model: openai.embedding(upstream.model), value: 'two', maxRetries: 0 });
    assert.deepEqual(embedding, [3, 0, 0.5, -2]);
    await upstream.isCharged();
  },

  async 'wrong requests are refused with a status and a code, and not repeated'() {
    const strangers = providers('sk-sub-unknown');
    for (const stranger of [strangers.openai.chat(model), strangers.openai.responses(model), strangers.compatible(model), strangers.anthropic(model)]) {
      await refused(401, 'invalid_api_key', () => ask(stranger, { maxRetries: 2 }));
    }
    for (const api of apis) {
      await refused(404, 'model_not_found', () => ask(api('no-such-model')));
      await refused(404, 'model_not_found', () => streamed(api('no-such-model')));
      await refused(400, 'context_length_exceeded', () => ask(api(model), { prompt: 'word '.repeat(50_000) }));
    }
    await refused(404, 'model_not_found', () => embed({ model: openai.embedding('no-such-model'), value: 'two', maxRetries: 0 }));
  },

  async 'an aborted stream is charged for what was delivered'() {
    for (const api of apis) {
      await upstream.isLeft(async () => {
        const controller = new AbortController();
        const { textStream } = streamText(settings(api(upstream.model), { abortSignal: controller.signal, onError() {} }));
        for await (const piece of textStream) {
          if (piece) controller.abort();
        }
      });
    }
  },

  async 'a busy server is asked again when it said'() {
    for (const choose of [({ openai }) => openai.chat(upstream.model), ({ anthropic }) => anthropic(upstream.model)]) {
      await upstream.isAskedAgain(async (apiKey) => (await ask(choose(providers(apiKey)), { maxRetries: 2 })).text);
    }
  },
});
