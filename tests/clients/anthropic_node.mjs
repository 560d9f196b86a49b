// The unmodified Anthropic package for Node against a running cloud.
//
// Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.mjs` reads.
import assert from 'node:assert/strict';

import { Upstream, base, key as apiKey, load, model, run } from './checks.mjs';

const { Anthropic } = load('@anthropic-ai/sdk');

const upstream = new Upstream();
const baseURL = base.replace(/\/v1$/, '');
const messages = [{ role: 'user', content: 'Name three colours.' }];
// Without retries a failure is seen as it is.
const client = new Anthropic({ apiKey, baseURL, maxRetries: 0, timeout: 60_000 });
const ask = (settings) => client.messages.create({ model, messages, max_tokens: 24, ...settings });

async function refused(kind, type, code, call) {
  const error = await call().then(() => assert.fail(`no error, want ${kind.name}`), (reason) => reason);
  assert.ok(error instanceof kind, `got ${error.constructor.name} (${error.message}), want ${kind.name}`);
  assert.match(error.requestID ?? '', /^req_/);
  assert.deepEqual([error.error.type, error.error.error.type, error.error.error.code], ['error', type, code]);
}

await run({
  async 'a message has text, usage and a request id'() {
    const answer = await ask({ temperature: 0 });
    assert.deepEqual([answer.type, answer.role, answer.model], ['message', 'assistant', model]);
    assert.ok(answer.content[0].text);
    assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0 && answer.usage.output_tokens <= 24);
    assert.match(answer._request_id, /^req_/);
  },

  async 'a stream says the same as a whole answer'() {
    const whole = await ask({ temperature: 0 });
    const stream = client.messages.stream({ model, messages, max_tokens: 24, temperature: 0 });
    let text = '';
    stream.on('text', (more) => { text += more; });
    const final = await stream.finalMessage();
    assert.equal(text, whole.content[0].text);
    assert.equal(final.content[0].text, text);
    assert.equal(final.stop_reason, whole.stop_reason);
    const counts = (usage) => [usage.input_tokens, usage.output_tokens];
    assert.deepEqual(counts(final.usage), counts(whole.usage));
  },

  async 'tokens are counted as they are charged'() {
    const counted = await client.messages.countTokens({ model, messages });
    assert.equal((await ask({})).usage.input_tokens, counted.input_tokens);
  },

  async 'wrong requests are refused by class and type'() {
    const stranger = new Anthropic({ apiKey: 'sk-sub-unknown', baseURL, maxRetries: 0 });
    const create = () => stranger.messages.create({ model, messages, max_tokens: 4 });
    await refused(Anthropic.AuthenticationError, 'authentication_error', 'invalid_api_key', create);
    await refused(Anthropic.NotFoundError, 'not_found_error', 'model_not_found', () => ask({ model: 'none' }));
    await refused(Anthropic.NotFoundError, 'not_found_error', 'model_not_found', () => ask({ model: 'none', stream: true }));
    await refused(Anthropic.BadRequestError, 'invalid_request_error', 'invalid_request', () => ask({ messages: [] }));
    const tools = [{ name: 'f g', input_schema: { type: 'object', properties: {} } }];
    await refused(Anthropic.BadRequestError, 'invalid_request_error', 'invalid_request', () => ask({ tools }));
  },

  async 'a forced tool is used whole and streamed'() {
    const schema = { type: 'object', properties: { city: { type: 'string', maxLength: 20 } }, required: ['city'] };
    const tools = [{ name: 'get_weather', input_schema: schema }, { name: 'get_time', input_schema: { type: 'object' } }];
    const settings = { tools, tool_choice: { type: 'tool', name: 'get_weather' }, max_tokens: 60, temperature: 0 };
    const whole = await ask(settings);
    assert.deepEqual([whole.content.length, whole.content[0].type, whole.stop_reason], [1, 'tool_use', 'tool_use']);
    assert.equal(typeof whole.content[0].input.city, 'string');
    const stream = client.messages.stream({ model, messages, ...settings });
    let parts = '';
    stream.on('inputJson', (part) => { parts += part; });
    const final = await stream.finalMessage();
    assert.deepEqual(final.content[0].input, whole.content[0].input);
    assert.deepEqual(JSON.parse(parts), whole.content[0].input);
  },

  async 'a stream can be left'() {
    const stream = client.messages.stream({ model, messages, max_tokens: 400, temperature: 1 });
    await new Promise((resolve) => stream.once('text', resolve));
    stream.abort();
    await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  },

  async 'models are listed in the shape of the package'() {
    const names = [];
    for await (const one of client.models.list()) names.push(one.id);
    assert.ok(names.includes(model), `${model} is not among ${names}`);
    assert.equal((await client.models.retrieve(model)).type, 'model');
  },

  async 'a model that is free uses several tools and goes on'() {
    const settings = { model: upstream.model, max_tokens: 80, tools: [{ name: 'get_weather', input_schema: { type: 'object', properties: { city: { type: 'string' } } } }] };
    const calls = ['Rome', 'Oslo'].map((city) => ({ name: 'get_weather', arguments: { city } }));
    for (const ask of [(body) => client.messages.create(body), (body) => client.messages.stream(body).finalMessage()]) {
      await upstream.script({ calls }, { text: 'It is 7 degrees.' });
      const first = await ask({ ...settings, messages });
      assert.deepEqual(first.content.map(({ type, input }) => [type, input.city]), [['tool_use', 'Rome'], ['tool_use', 'Oslo']]);
      const results = first.content.map(({ id }) => ({ type: 'tool_result', tool_use_id: id, content: '7 degrees' }));
      const second = await ask({ ...settings, messages: [...messages, { role: 'assistant', content: first.content }, { role: 'user', content: results }] });
      assert.equal(second.content[0].text.trim(), 'It is 7 degrees.');
      const [, call, ...answered] = (await upstream.bodies())[1].messages;
      assert.deepEqual(answered.map((one) => one.tool_call_id), call.tool_calls.map(({ id }) => id));
    }
    await upstream.isCharged();
  },

  async 'a busy server is asked again when it said'() {
    const patient = (apiKey) => client.withOptions({ maxRetries: 2, apiKey });
    await upstream.isAskedAgain(async (apiKey) => (await patient(apiKey).messages.create({ model: upstream.model, messages, max_tokens: 24 })).content[0].text);
  },
});
