// What suites of Node clients share: their packages, how checks are run and reported, the record of a request as the
// cloud keeps it, and the scripted server behind a model of the suite's own. `checks.py` is the same for Python.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';

export const base = process.env.SUBLET_API_BASE;
export const key = process.env.SUBLET_PROJECT_KEY;
export const model = process.env.SUBLET_MODEL;
export const load = createRequire(join(process.env.SUBLET_NODE_MODULES, '..', 'here.js'));

const authorization = `Bearer ${key}`;
const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

async function fetched(url, options) {
  const answer = await fetch(url, { headers: { authorization, 'content-type': 'application/json' }, signal: AbortSignal.timeout(60_000), ...options });
  return answer.status === 404 ? undefined : (assert.ok(answer.ok, `${url} answers ${answer.status}`), answer.json());
}

/** What `look` gives as soon as it gives something. */
async function settled(look, what) {
  for (const deadline = Date.now() + 20_000; ;) {
    const found = await look();
    if (found !== undefined) return found;
    assert.ok(Date.now() < deadline, `${what()} after 20 s`);
    await pause();
  }
}

/** The record has the counts that the client was shown, and was charged by the price list. */
export async function charged(answer, prompt, output) {
  const request = answer.replace(/^[a-z]+_/, 'req_');
  const record = await settled(() => fetched(`${base}/requests/${request}`), () => `${request} is not settled`);
  const { input_tokens: input, cached_input_tokens: cached, output_tokens: written } = record.usage;
  assert.deepEqual([input + cached, written], [prompt, output], 'tokens in the record');
  assert.ok(prompt > 0 && output > 0, JSON.stringify(record));
  const { prices } = await fetched(`${base}/prices`);
  // In nano-units, which are whole: no price here has a finer one.
  const cost = prices
    .filter(({ subject }) => subject.kind === 'model' && subject.name === record.model)
    .filter(({ service_tier: tier = 'default' }) => tier === record.service_tier)
    .reduce((sum, { meter, amount, per }) => sum + (record.usage[meter] * Math.round(amount * 1e9)) / per, 0);
  assert.equal(Math.round(record.cost.amount * 1e9), Math.round(cost), 'the cost in the record');
  return record;
}

/** A new key of the project that may have one request in flight. */
async function narrowKey() {
  const { project } = await fetched(`${base}/account`);
  const body = JSON.stringify({ name: 'one at a time', rate_limits: { concurrent_requests: 1 } });
  const headers = { authorization: `Bearer ${process.env.SUBLET_ADMIN_KEY}`, 'content-type': 'application/json' };
  return (await fetched(`${base}/organization/projects/${project}/api_keys`, { method: 'POST', body, headers })).value;
}

/** The scripted server (`upstream.py`) behind the model that this suite has for itself. */
export class Upstream {
  constructor(room = basename(process.argv[1], '.mjs')) {
    this.address = `${process.env.SUBLET_UPSTREAM}/${room}`;
    this.model = `scripted/${room}`;
    // Tokens of streams that were left.
    this.left = [0, 0];
  }

  /** What it will answer, in order; forgets what it was asked. */
  async script(...replies) {
    await fetched(`${this.address}/script`, { method: 'POST', body: JSON.stringify(replies) });
  }

  received() {
    return fetched(`${this.address}/received`);
  }

  async bodies() {
    return (await this.received()).map(({ body }) => body);
  }

  /** Tokens that were charged and that this server never told of: those of streams that were left. */
  async uncounted() {
    const told = await fetched(`${this.address}/told`);
    const lines = (await fetched(`${base}/usage`)).lines.filter(({ subject }) => subject.kind === 'model' && subject.name === this.model);
    const total = (...meters) => lines.filter(({ meter }) => meters.includes(meter)).reduce((sum, { quantity }) => sum + quantity, 0);
    const used = [total('input_tokens', 'cached_input_tokens'), total('output_tokens')];
    return used.map((count, place) => count - told[place] - this.left[place]);
  }

  /** Waits until all that this server told is charged, once and exactly. */
  async isCharged() {
    let more;
    const look = async () => ((more = await this.uncounted()).some((count) => count !== 0) ? undefined : true);
    await settled(look, () => `${more} tokens too many are charged`);
  }

  /** A stream that `begin` leaves after its first words ends here, and is charged for what was delivered. */
  async isLeft(begin, ...more) {
    await this.isCharged();
    await this.script({ text: 'one two three', wait: true }, ...more);
    await begin();
    assert.deepEqual(await fetched(`${this.address}/left`), { left: true });
    const look = async () => {
      const more = await this.uncounted();
      return more[1] > 0 ? more : undefined;
    };
    const [prompt, output] = await settled(look, () => 'a stream that was left is not settled');
    // Nobody counted: a quarter of the bytes.
    assert.ok(prompt > 0 && output <= 4, `${prompt} and ${output} tokens are charged for three words`);
    this.left = [this.left[0] + prompt, this.left[1] + output];
  }

  /** What fails is repeated when it should be, by the cloud or by the client, and charged once. */
  async isAskedAgain(ask) {
    // The client repeats what a server could not answer; the cloud waits for one that is busy, as long as it said.
    for (const [reply, wait] of [[{ status: 500 }, 0], [{ status: 503 }, 0], [{ status: 429, headers: { 'retry-after': '2' } }, 2]]) {
      await this.script(reply, { text: 'At last.' });
      assert.equal((await ask(key)).trim(), 'At last.');
      const [first, second] = (await this.received()).map(({ seconds }) => seconds);
      assert.ok(second - first >= wait, `asked again after ${second - first} s, told to wait ${wait} s`);
      await this.isCharged();
    }
    await this.isLeft(() => this.atItsLimit(ask), { text: 'At last.' });
  }

  /** A client whose key has all it may have in flight is refused for a second, and waits so long. */
  async atItsLimit(ask) {
    const narrow = await narrowKey();
    const controller = new AbortController();
    const body = JSON.stringify({ model: this.model, messages: [{ role: 'user', content: 'x' }], stream: true });
    const headers = { authorization: `Bearer ${narrow}`, 'content-type': 'application/json' };
    const stream = await fetch(`${base}/chat/completions`, { method: 'POST', headers, body, signal: controller.signal });
    await stream.body.getReader().read();
    // Its place is free before the client comes back for the second time, and not before it came for the first.
    setTimeout(() => controller.abort(), 1_500);
    const start = Date.now();
    assert.equal((await ask(narrow)).trim(), 'At last.');
    assert.ok(Date.now() - start >= 1_000, `came back after ${Date.now() - start} ms, told to wait 1 s`);
  }
}

/** Prints `ok NAME` or `FAIL NAME: why` per check; the exit status is 0 only if all passed. */
export async function run(checks) {
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${error?.message ?? error}`.replaceAll('\n', ' '));
    }
  }
  process.exit(failed ? 1 : 0);
}
