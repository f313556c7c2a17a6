// What every check of the console needs: a browser, a terminal's text, waiting for facts, and counting what held. Terminals are read from
// the page's own rows, so WebGL is off; everything else is as a person has it.
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** A fact that is not there after this long is not coming: loaded machines included. */
export const DEADLINE_MS = 20_000;

const BROWSERS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

const ARGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-3d-apis', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export function parseArgs(argv) {
  const options = { url: null, 'login-url': null, owners: null, bin: null, invited: null, out: null, chromium: BROWSERS.find((path) => existsSync(path)) ?? null, only: null };
  for (let i = 0; i < argv.length; i += 1) {
    const name = argv[i]?.replace(/^--/, '');
    if (!(name in options) || argv[i + 1] === undefined) throw new Error(`usage: run.mjs --url URL --login-url URL [--owners FILE --bin DIR] [--invited FILE] [--out DIR] [--chromium PATH] [--only NAME]; not understood: ${argv[i]}`);
    options[name] = argv[(i += 1)];
  }
  if (!options.url || !(options['login-url'] || options.invited)) throw new Error('--url and --login-url are needed; `agentapi open` makes the second');
  if (!options.chromium) throw new Error(`no Chromium found (looked for ${BROWSERS.join(', ')}): apt-get install chromium`);
  const [owners, invited] = [options.owners, options.invited].map((file) => (file === null ? null : JSON.parse(readFileSync(file, 'utf8'))));
  const { out, chromium, only, bin } = options;
  return { url: options.url.replace(/\/$/, ''), loginUrl: options['login-url'], owners, invited, bin, out, chromium, only };
}

export async function launch(options) {
  if (options.out) mkdirSync(options.out, { recursive: true });
  return chromium.launch({ executablePath: options.chromium, args: ARGS });
}

/** Waits until `probe` gives something true, and gives it. */
export async function eventually(what, probe, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

export const id = (name) => `[data-testid="${name}"]`;

/** A page of this browser context, with everything it complains about kept. */
export async function openPage(context, complaints) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.on('pageerror', (error) => complaints.push(`page error: ${error.message}`));
  page.on('console', (message) => {
    const text = message.text();
    // The browser reports refusals that a check provoked on purpose; a CSP report is never on purpose.
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(text)) complaints.push(`console: ${text}`);
  });
  return page;
}

/** The rows on screen, as text. */
export async function screenText(page) {
  return page.evaluate(() => [...document.querySelectorAll('.xterm-rows > div')].map((row) => row.textContent.replaceAll('\u00a0', ' ').trimEnd()).join('\n'));
}

export async function waitForScreen(page, pattern, what = String(pattern)) {
  try {
    return await eventually(`screen shows ${what}`, async () => pattern.exec(await screenText(page)));
  } catch (error) {
    throw new Error(`${error.message}\n--- screen\n${(await screenText(page)).trimEnd()}\n---`);
  }
}

/** Types a line as a person would, into the focused terminal. */
export async function typeLine(page, line) {
  await focusTerminal(page);
  await page.keyboard.type(line);
  await page.keyboard.press('Enter');
}

export async function focusTerminal(page) {
  await page.locator('.xterm-helper-textarea').focus();
}

export async function connected(page) {
  await page.locator(`${id('connection')}[data-kind="open"]`).waitFor();
}

/** Creates a session of a command through the form; gives its id. */
export async function createSession(page, { name, command }) {
  await page.locator(id('new-session')).click();
  await page.locator(`${id('agent-custom')} input`).check();
  await page.locator(id('create-command')).fill(command);
  await page.locator(id('create-name')).fill(name);
  await page.locator(id('create-submit')).click();
  await page.waitForURL(/#\/sessions\//);
  return /#\/sessions\/([0-9a-f-]+)/.exec(page.url())[1];
}

export function row(page, session) {
  return page.locator(`${id('session-row')}[data-session="${session}"]`);
}

export async function waitForState(page, session, state) {
  await eventually(`session ${session} is ${state}`, async () => (await row(page, session).getAttribute('data-state')) === state);
}

export async function shot(page, options, name) {
  if (options.out) await page.screenshot({ path: join(options.out, `${name}.png`) });
}

/** A request of a program with a key. */
export function request(options, key, path, body) {
  const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
  return fetch(`${options.url}/api/v1${path}`, { ...init, headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' } });
}

/** What a program with a key is answered, which must be well. */
export async function answer(options, key, path, body) {
  const response = await request(options, key, path, body);
  const text = await response.text();
  check(response.ok, `${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** A browser of somebody who is logged in by a link that their key made. */
export async function browserOf({ browser, options, open }, key, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'dark', ...settings });
  const page = await open(context);
  const { url } = await answer(options, key, '/login-codes', {});
  await page.goto(url);
  return page;
}

/** Cuts WebSockets of a page when told to, and only then. Must be set up before the page loads. */
export async function cuttable(page) {
  const open = new Set();
  await page.routeWebSocket(/\/terminal\?/, (socket) => {
    const server = socket.connectToServer();
    const pair = { socket, server };
    open.add(pair);
    server.onClose((code, reason) => {
      open.delete(pair);
      socket.close({ code, reason });
    });
    socket.onClose((code, reason) => {
      open.delete(pair);
      server.close({ code, reason });
    });
  });
  return {
    async cut() {
      check(open.size > 0, 'there is a terminal connection to cut');
      for (const { socket, server } of open) {
        open.clear();
        await server.close({ code: 3001, reason: 'cut by the test' });
        await socket.close({ code: 3001, reason: 'cut by the test' });
      }
    },
  };
}
