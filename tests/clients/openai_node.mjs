// The unmodified openai package for Node against a running cloud.
//
// Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.mjs` reads.
import assert from 'node:assert/strict';

import { Upstream, base, key, load, model, run } from './checks.mjs';

const { OpenAI, toFile } = load('openai');

const upstream = new Upstream();
const messages = [{ role: 'user', content: 'Name three colours.' }];
// Without retries a failure is seen as it is.
const client = new OpenAI({ apiKey: key, baseURL: base, maxRetries: 0, timeout: 60_000 });
const ask = (settings, options) => client.chat.completions.create({ model, messages, max_tokens: 24, ...settings }, options);

async function refused(kind, code, call) {
  const error = await call().then(() => assert.fail(`no error, want ${kind.name}`), (reason) => reason);
  assert.ok(error instanceof kind, `got ${error.constructor.name} (${error.message}), want ${kind.name}`);
  assert.equal(error.code, code);
  assert.match(error.requestID ?? '', /^req_/);
  for (const field of ['message', 'type', 'param', 'code']) assert.ok(field in error.error, `the error body has no ${field}`);
}

async function settledRequest(request) {
  for (const deadline = Date.now() + 20_000; ;) {
    try {
      return await client.get(`/requests/${request}`);
    } catch (error) {
      if (!(error instanceof OpenAI.NotFoundError) || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

await run({
  async 'models are listed and found by name'() {
    const names = [];
    for await (const one of client.models.list()) names.push(one.id);
    assert.ok(names.includes(model), `${model} is not among ${names}`);
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async 'a stream says the same as a whole answer'() {
    const whole = await ask({ temperature: 0 });
    let text = '';
    const reasons = [];
    const usages = [];
    for await (const chunk of await ask({ temperature: 0, stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? '';
      if (chunk.choices[0]?.finish_reason) reasons.push(chunk.choices[0].finish_reason);
      if (chunk.usage) usages.push(chunk.usage);
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(reasons, [whole.choices[0].finish_reason]);
    assert.equal(usages.length, 1);
    const counts = (usage) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];
    assert.deepEqual(counts(usages[0]), counts(whole.usage));
  },

  async 'the stream helper assembles the answer'() {
    const helper = client.chat.completions.stream({ model, messages, max_tokens: 12, stream_options: { include_usage: true } });
    const final = await helper.finalChatCompletion();
    assert.equal(typeof final.choices[0].message.content, 'string');
    assert.ok((await helper.totalUsage()).completion_tokens > 0);
  },

  async 'a seed repeats an answer'() {
    const texts = new Set();
    for (let i = 0; i < 3; i++) texts.add((await ask({ temperature: 1, seed: 11 })).choices[0].message.content);
    assert.equal(texts.size, 1);
  },

  async 'several streamed answers all finish'() {
    const finished = new Set();
    for await (const chunk of await ask({ n: 3, max_tokens: 6, stream: true })) {
      for (const choice of chunk.choices) if (choice.finish_reason) finished.add(choice.index);
    }
    assert.deepEqual([...finished].sort(), [0, 1, 2]);
  },

  async 'a text is continued'() {
    const answer = await client.completions.create({ model, prompt: 'The capital of France is', max_tokens: 8 });
    assert.ok(answer.choices[0].text.length > 0);
    assert.ok(answer.usage.completion_tokens <= 8);
  },

  async 'an answer has the form of a schema'() {
    // As zod writes it: a record, a union by a name, and numbers that JavaScript can hold.
    const circle = { type: 'object', properties: { is: { type: 'string', const: 'circle' }, r: { type: 'integer', exclusiveMinimum: 0, maximum: 99 } }, required: ['is', 'r'], additionalProperties: false };
    const box = { type: 'object', properties: { is: { type: 'string', const: 'box' }, tags: { type: 'object', propertyNames: { type: 'string', }, additionalProperties: { type: 'boolean' }, maxProperties: 0 } }, required: ['is', 'tags'], additionalProperties: false };
    const schema = { $schema: 'https://json-schema.org/draft/2020-12/schema', type: 'object', properties: { shapes: { type: 'array', items: { anyOf: [circle, box] }, maxItems: 2 } }, required: ['shapes'], additionalProperties: false };
    const response_format = { type: 'json_schema', json_schema: { name: 'shapes', strict: true, schema } };
    for (let seed = 0; seed < 5; seed++) {
      const answer = await client.chat.completions.parse({ model, messages, max_tokens: 200, temperature: 1, seed, response_format });
      const { shapes } = JSON.parse(answer.choices[0].message.content);
      assert.ok(Array.isArray(shapes) && shapes.length <= 2 && shapes.every(({ is }) => ['circle', 'box'].includes(is)));
    }
    const format = { type: 'json_schema', name: 'shapes', strict: true, schema };
    const response = await client.responses.create({ model, input: 'Name three colours.', max_output_tokens: 200, text: { format } });
    assert.ok(Array.isArray(JSON.parse(response.output_text).shapes));
  },

  async 'a response is kept on request, gone on from and forgotten'() {
    const settings = { model, max_output_tokens: 12, temperature: 0, store: true };
    const first = await client.responses.create({ ...settings, input: 'Name three colours.', metadata: { case: '7' } });
    const again = await client.responses.retrieve(first.id);
    assert.deepEqual([again.output, again.usage, again.metadata], [first.output, first.usage, { case: '7' }]);
    assert.equal(again.output_text, first.output_text);
    const second = await client.responses.stream({ ...settings, input: 'Go on.', previous_response_id: first.id }).finalResponse();
    assert.equal(second.previous_response_id, first.id);
    assert.ok(second.usage.input_tokens > first.usage.input_tokens);
    const turn = (content) => ({ role: 'user', content });
    const items = [turn('Name three colours.'), ...first.output, turn('Go on.')];
    const byHand = await client.responses.create({ ...settings, store: false, input: items });
    assert.deepEqual([byHand.output_text, byHand.usage.input_tokens], [second.output_text, second.usage.input_tokens]);
    const said = [];
    for await (const item of client.responses.inputItems.list(first.id, { limit: 1 })) said.push(item.content[0].text);
    assert.deepEqual(said, ['Name three colours.']);
    await refused(OpenAI.BadRequestError, 'unsupported_field', () => client.responses.retrieve(first.id, { stream: true }));
    await client.responses.delete(first.id);
    await refused(OpenAI.NotFoundError, 'not_found', () => client.responses.retrieve(first.id));
    const more = () => client.responses.create({ ...settings, input: 'More.', previous_response_id: second.id });
    await refused(OpenAI.BadRequestError, 'previous_response_not_found', more);
  },

  async 'tools run by the helper come to an answer'() {
    const asked = [];
    const parameters = { type: 'object', properties: { city: { type: 'string', maxLength: 20 } }, required: ['city'], additionalProperties: false };
    const run = (input) => { asked.push(input.city); return '{"temperature": 7, "sky": "cloudy"}'; };
    const tool = { type: 'function', function: { name: 'get_weather', description: 'The weather.', parameters, parse: JSON.parse, function: run } };
    const question = [{ role: 'user', content: 'What is the weather in Rome?' }];
    const settings = { model, messages: question, tools: [tool], temperature: 0, max_tokens: 60 };
    for (const stream of [false, true]) {
      const answer = await client.chat.completions.runTools({ ...settings, stream }).finalContent();
      assert.match(answer, /7/);
    }
    assert.deepEqual(asked, ['Rome', 'Rome']);
  },

  async 'wrong requests are refused by class'() {
    const stranger = new OpenAI({ apiKey: 'sk-sub-unknown', baseURL: base, maxRetries: 0 });
    await refused(OpenAI.AuthenticationError, 'invalid_api_key', () => stranger.chat.completions.create({ model, messages }));
    await refused(OpenAI.NotFoundError, 'model_not_found', () => ask({ model: 'no-such-model' }));
    await refused(OpenAI.NotFoundError, 'model_not_found', () => ask({ model: 'no-such-model', stream: true }));
    await refused(OpenAI.BadRequestError, 'invalid_request', () => ask({ temperature: 9 }));
    const long = [{ role: 'user', content: 'word '.repeat(50_000) }];
    await refused(OpenAI.BadRequestError, 'context_length_exceeded', () => ask({ messages: long }));
  },

  async 'files go up and come down'() {
    const content = Buffer.alloc(300_000, 'sublet');
    const file = await client.files.create({ file: await toFile(content, 'text.bin'), purpose: 'user_data' });
    assert.deepEqual([file.object, file.bytes, file.filename], ['file', content.length, 'text.bin']);
    const back = Buffer.from(await (await client.files.content(file.id)).arrayBuffer());
    assert.ok(back.equals(content), 'the content came back changed');
    assert.equal((await client.files.delete(file.id)).deleted, true);
    await refused(OpenAI.NotFoundError, 'not_found', () => client.files.retrieve(file.id));
  },

  async 'a batch answers each line'() {
    const endpoint = '/v1/chat/completions';
    const line = (n) => JSON.stringify({ custom_id: `line-${n}`, method: 'POST', url: endpoint, body: { model, messages, max_tokens: 8 } });
    const text = [0, 1, 2].map(line).join('\n');
    const file = await client.files.create({ file: await toFile(Buffer.from(text), 'lines.jsonl'), purpose: 'batch' });
    let batch = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' });
    for (const deadline = Date.now() + 60_000; !['completed', 'failed', 'expired', 'cancelled'].includes(batch.status);) {
      assert.ok(Date.now() < deadline, `${batch.id} is still ${batch.status}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
      batch = await client.batches.retrieve(batch.id);
    }
    assert.deepEqual([batch.status, batch.request_counts], ['completed', { total: 3, completed: 3, failed: 0 }]);
    const answers = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map((one) => JSON.parse(one));
    assert.deepEqual(answers.map((one) => one.custom_id), ['line-0', 'line-1', 'line-2']);
    assert.ok(answers.every((one) => one.response.status_code === 200 && one.response.body.choices[0].message.content));
    const listed = [];
    for await (const one of client.batches.list({ limit: 2 })) listed.push(one.id);
    assert.ok(listed.includes(batch.id), `${batch.id} is not listed`);
  },

  async 'an aborted stream is charged for what was delivered'() {
    const limit = 400;
    const { data: stream, request_id: request } = await ask({ max_tokens: limit, temperature: 1, stream: true }).withResponse();
    let delivered = 0;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) delivered += 1;
      if (delivered >= 3) break; // leaving the loop aborts the request
    }
    const record = await settledRequest(request);
    const charged = record.usage.output_tokens;
    assert.ok(charged >= delivered, `${delivered} chunks delivered, ${charged} tokens charged`);
    if (record.outcome === 'client_cancelled') assert.ok(charged < limit, `${charged} tokens charged of ${limit}`);
    else assert.ok(['completed', 'length'].includes(record.outcome), record.outcome);
  },

  async 'a time-out of the client leaves the cloud serving'() {
    const hasty = new OpenAI({ apiKey: key, baseURL: base, maxRetries: 0, timeout: 5 });
    await hasty.chat.completions.create({ model, messages, max_tokens: 200 }).catch((error) => {
      if (!(error instanceof OpenAI.APIConnectionTimeoutError)) throw error;
    });
    assert.ok((await ask({ max_tokens: 2 })).usage.completion_tokens <= 2);
  },

  async 'a model that is free calls several tools and goes on'() {
    const calls = ['Rome', 'Oslo'].map((city) => ({ name: 'get_weather', arguments: { city } }));
    for (const stream of [false, true]) {
      const asked = [];
      const run = ({ city }) => { asked.push(city); return `7 degrees in ${city}`; };
      const tool = { type: 'function', function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } }, parse: JSON.parse, function: run } };
      await upstream.script({ calls }, { text: 'It is 7 degrees.' });
      const answer = await client.chat.completions.runTools({ model: upstream.model, messages, tools: [tool], stream }).finalContent();
      assert.equal(answer.trim(), 'It is 7 degrees.');
      assert.deepEqual(asked, ['Rome', 'Oslo']);
      const [, call, ...results] = (await upstream.bodies())[1].messages;
      assert.deepEqual(results.map((one) => one.tool_call_id), call.tool_calls.map(({ id }) => id));
    }
    await upstream.isCharged();
  },

  async 'texts and tokens become vectors in both forms'() {
    for (const [input, lengths] of [['two', [3]], [['Name three colours.', 'two'], [19, 3]], [[1, 2, 3], [3]], [[[1, 2, 3], [4]], [3, 1]]]) {
      for (const form of [undefined, 'float']) {
        await upstream.script();
        const { data, usage } = await client.embeddings.create({ model: upstream.model, input, ...(form && { encoding_format: form }) });
        assert.deepEqual(data.map(({ embedding }) => [...embedding]), lengths.map((length, place) => [length, place, 0.5, -2]));
        assert.equal(usage.total_tokens, lengths.reduce((sum, length) => sum + length));
        const [body] = await upstream.bodies();
        assert.deepEqual([body.input, body.encoding_format], [input, form ?? 'base64']);
      }
    }
    await upstream.isCharged();
  },

  async 'a busy server is asked again when it said'() {
    const patient = (apiKey) => client.withOptions({ maxRetries: 2, apiKey });
    await upstream.isAskedAgain(async (apiKey) => (await patient(apiKey).chat.completions.create({ model: upstream.model, messages })).choices[0].message.content);
  },
});
