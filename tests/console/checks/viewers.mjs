// Several viewers of one session: all see the same, one owns the size, a read-only one types nothing, and none of them answers a program.
import { check, connected, eventually, focusTerminal, id, screenText, shot, typeLine, waitForScreen } from '../lib.mjs';

export const checks = {
  async 'a second viewer sees the same and does not change the size'(env) {
    const { page, context, session, options } = env;
    await typeLine(page, 'clear; stty size');
    const before = (await waitForScreen(page, /^(\d+ \d+)$/m))[1];
    env.second = await env.open(context);
    await env.second.setViewportSize({ width: 760, height: 520 });
    await env.second.goto(`${options.url}/#/sessions/${session}`);
    await connected(env.second);
    await waitForScreen(env.second, new RegExp(`^${before}$`, 'm'));
    await typeLine(page, 'clear; stty size; echo same');
    await waitForScreen(page, new RegExp(`^${before}\\nsame$`, 'm'), 'the size is what it was');
    await waitForScreen(env.second, /^same$/m);
    const fits = await env.second.evaluate(() => {
      const screen = document.querySelector('.xterm-screen').getBoundingClientRect();
      const frame = document.querySelector('.terminal').getBoundingClientRect();
      return screen.width <= frame.width && screen.height <= frame.height && screen.width > frame.width / 3;
    });
    check(fits, 'the whole of the session’s size is visible in the smaller window');
    await shot(env.second, options, 'second-viewer');
  },

  async 'the size is taken only on request'({ page, second }) {
    await typeLine(page, 'clear');
    const [cols] = /\d+/.exec(await second.locator(id('size')).textContent());
    await second.locator(id('take-size')).click();
    await eventually('the second viewer owns the size', async () => (await second.locator(id('size')).getAttribute('data-owner')) === 'me');
    await eventually('the first one sees another’s size', async () => (await page.locator(id('size')).getAttribute('data-owner')) === 'other');
    await typeLine(second, 'clear; tput cols');
    const shown = (await waitForScreen(second, /^(\d+)$/m))[1];
    check(Number(shown) < Number(cols), `the program was laid out anew: ${cols} -> ${shown} columns`);
    await waitForScreen(page, new RegExp(`^${shown}$`, 'm'));
  },

  async 'typing takes the size back'({ page }) {
    await typeLine(page, 'clear; echo mine');
    await waitForScreen(page, /^mine$/m);
    await eventually('the typing viewer owns the size', async () => (await page.locator(id('size')).getAttribute('data-owner')) === 'me');
  },

  async 'a read-only viewer sees and types nothing'({ page, second, options }) {
    await second.locator(id('read-only')).click();
    await eventually('read-only is on', async () => (await second.locator(id('read-only')).getAttribute('aria-pressed')) === 'true');
    await connected(second);
    await typeLine(page, 'clear; echo seen-by-$((3 * 3))');
    await waitForScreen(second, /^seen-by-9$/m);
    await focusTerminal(second);
    await second.keyboard.type('must-not-arrive');
    await eventually('it is said that nothing is typed', async () => (await second.locator(id('toasts')).textContent()).includes('read-only'));
    await shot(second, options, 'read-only');
    await typeLine(page, 'echo fence');
    await waitForScreen(page, /^fence$/m);
    check(!(await screenText(page)).includes('must-not-arrive'), 'nothing of it reached the program');
  },

  async 'a program that asks gets one answer, whoever watches'({ page, second }) {
    await second.locator(id('read-only')).click();
    await connected(second);
    await focusTerminal(page);
    // Reads what comes back for a device query until nothing comes any more, and shows how often the answer's end is in it.
    await typeLine(page, `clear; ask() { stty -echo -icanon min 0 time 10; printf "$1" >/dev/tty; a=$(dd bs=4096 count=1 2>/dev/null; dd bs=4096 count=1 2>/dev/null); stty sane; printf '%s' "$a" | tr -cd "$2" | wc -c; }`);
    await typeLine(page, `clear; echo "cpr $(ask '\\033[6n' R)"; echo "da $(ask '\\033[c' c)"; echo "version $(ask '\\033[>q' '|')"; echo as''ked`);
    await waitForScreen(page, /^asked$/m);
    const text = await screenText(page);
    for (const what of ['cpr', 'da', 'version']) {
      const count = new RegExp(`^${what} +(\\d+)$`, 'm').exec(text)?.[1];
      check(count === '1', `one answer to ${what}, got ${count}\n${text}`);
    }
    await second.close();
  },
};
