// A real browser over the console of a running cloud.
//
// Signs in with each key, follows every link that stays in the console, and takes a picture of each
// page. A page fails if its status is not 200, a script throws, it asks another host for anything, it
// has no heading, or it is wider than the window. Prints `ok NAME` or `FAIL NAME: why` per check.
// Reads SUBLET_CONSOLE_URL, SUBLET_PROJECT_KEY, SUBLET_OPERATOR_KEY; writes to SUBLET_OUT.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PAGES_MAX = 25;
const WAIT_MS_MAX = 20_000;
const consoleUrl = process.env.SUBLET_CONSOLE_URL.replace(/\/$/, '');
const origin = new URL(consoleUrl).origin;
const pictures = join(process.env.SUBLET_OUT, 'console');
mkdirSync(pictures, { recursive: true });

/** The browser's debugging protocol over its web socket. */
class Browser {
  static async start() {
    const profile = mkdtempSync(join(tmpdir(), 'console-'));
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'];
    // A process group of its own, so that the helpers which the browser starts end with it.
    const child = spawn('chromium', flags, { stdio: 'ignore', detached: true });
    const portFile = join(profile, 'DevToolsActivePort');
    await until(() => existsSync(portFile) && readFileSync(portFile, 'utf8').includes('\n'), 'the browser to start');
    const [port] = readFileSync(portFile, 'utf8').split('\n');
    const targets = await (await fetch(`http://127.0.0.1:${port}/json/list`)).json();
    const browser = new Browser();
    Object.assign(browser, { child, profile, calls: new Map(), next: 1, events: [] });
    browser.socket = new WebSocket(targets.find((target) => target.type === 'page').webSocketDebuggerUrl);
    await new Promise((resolve, reject) => Object.assign(browser.socket, { onopen: resolve, onerror: reject }));
    browser.socket.onmessage = ({ data }) => browser.receive(JSON.parse(data));
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await browser.call(`${domain}.enable`);
    await browser.call('Emulation.setDeviceMetricsOverride', { width: 1280, height: 900, deviceScaleFactor: 1, mobile: false });
    return browser;
  }
  receive(message) {
    if (!message.id) return this.events.push(message);
    const { resolve, reject } = this.calls.get(message.id);
    this.calls.delete(message.id);
    if (message.error) reject(new Error(message.error.message));
    else resolve(message.result);
  }
  call(method, params = {}) {
    const id = this.next++;
    this.socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.calls.set(id, { resolve, reject }));
  }
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }
  /** Does something that loads a page, and answers what went wrong on it. */
  async load(action) {
    this.events = [];
    await action();
    await until(() => this.events.some((event) => event.method === 'Page.loadEventFired'), 'the page to load');
    return this.problems();
  }
  problems() {
    const found = [];
    for (const { method, params } of this.events) {
      if (method === 'Runtime.exceptionThrown') found.push(`a script threw: ${params.exceptionDetails.exception?.description ?? params.exceptionDetails.text}`);
      if (method === 'Log.entryAdded' && params.entry.level === 'error') found.push(`the browser complains: ${params.entry.text}`);
      if (method === 'Network.requestWillBeSent' && !/^(data|blob|about):/.test(params.request.url) && new URL(params.request.url).origin !== origin) found.push(`it asks ${params.request.url}`);
      if (method === 'Network.responseReceived' && params.type === 'Document' && params.response.status !== 200) found.push(`status ${params.response.status}`);
    }
    return found;
  }
  async picture(name) {
    const { data } = await this.call('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
    writeFileSync(join(pictures, `${name}.png`), Buffer.from(data, 'base64'));
  }
  async end() {
    this.socket.close();
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    process.kill(-this.child.pid, 'SIGKILL');
    await ended;
    // A helper that is still ending may write once more, so the whole removal is repeated, not its last step.
    await until(() => removed(this.profile), 'the profile folder to go');
  }
}

function removed(folder) {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    return false;
  }
  return true;
}

async function until(condition, what) {
  for (const deadline = Date.now() + WAIT_MS_MAX; !(await condition());) {
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS_MAX} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

let failed = 0;
function verdict(name, problems) {
  if (problems.length) failed += 1;
  console.log(problems.length ? `FAIL ${name}: ${problems.join('; ')}`.replaceAll('\n', ' ') : `ok ${name}`);
}

async function inspect(browser) {
  const page = await browser.evaluate(`({
    heading: document.querySelector('h1')?.innerText ?? '',
    title: document.title,
    language: document.documentElement.lang,
    wide: document.documentElement.scrollWidth > window.innerWidth,
    links: [...document.querySelectorAll('a[href]')].map((link) => link.href),
    unnamed: [...document.querySelectorAll('input:not([type=hidden]), select, textarea')].filter((field) => !field.labels?.length && !field.ariaLabel).length,
  })`);
  const problems = [];
  if (!page.heading) problems.push('no heading');
  if (!page.title || !page.language) problems.push('no title or language');
  if (page.wide) problems.push('wider than the window');
  if (page.unnamed) problems.push(`${page.unnamed} fields without a label`);
  return { problems, links: page.links };
}

const slug = (path) => path.replace(/^\/console\/?/, '').replaceAll(/[^a-z0-9]+/gi, '-').replace(/-$/, '') || 'home';

async function tour(who, key) {
  const browser = await Browser.start();
  try {
    verdict(`${who}: the door opens`, await browser.load(() => browser.call('Page.navigate', { url: consoleUrl })));
    const fill = `(() => { const field = document.querySelector('input[type=password], input[name=key]'); field.value = ${JSON.stringify(key)}; field.form.requestSubmit(); })()`;
    verdict(`${who}: signing in`, await browser.load(() => browser.evaluate(fill)));
    const seen = new Set();
    const open = [await browser.evaluate('location.href')];
    while (open.length && seen.size < PAGES_MAX) {
      const url = open.shift();
      const path = new URL(url).pathname;
      if (seen.has(path)) continue;
      seen.add(path);
      const trouble = await browser.load(() => browser.call('Page.navigate', { url }));
      const { problems, links } = await inspect(browser);
      await browser.picture(`${who}-${slug(path)}`);
      verdict(`${who}: ${path}`, [...trouble, ...problems]);
      open.push(...links.filter((link) => link.startsWith(`${consoleUrl}/`) && !/\/(logout|sign-?out)/.test(link)).map((link) => link.split('#')[0]));
    }
    verdict(`${who}: there are pages to see`, seen.size >= 2 ? [] : [`only ${seen.size}`]);
  } finally {
    await browser.end();
  }
}

for (const [who, key] of [['customer', process.env.SUBLET_PROJECT_KEY], ['operator', process.env.SUBLET_OPERATOR_KEY]]) {
  try {
    await tour(who, key);
  } catch (error) {
    verdict(`${who}: the tour`, [error.message]);
  }
}
process.exit(failed ? 1 : 0);
