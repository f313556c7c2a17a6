// One terminal: type, see, search, come back. The session it makes is used by the checks after it.
import { check, connected, createSession, cuttable, eventually, id, screenText, shot, typeLine, waitForScreen, waitForState } from '../lib.mjs';

export const checks = {
  async 'a session made in the form runs and shows in the list'(env) {
    const { page } = env;
    env.cutter = await cuttable(page);
    // Routes hold from the next load on.
    await page.reload();
    await page.locator(id('app')).waitFor();
    const session = await createSession(page, { name: `console test ${env.run}`, command: 'bash --noprofile --norc' });
    await waitForState(page, session, 'running');
    await connected(page);
    await waitForScreen(page, /[$#] ?$/m, 'a prompt');
    env.session = session;
  },

  async 'what is typed is run and its output seen'({ page, options }) {
    await typeLine(page, 'echo "hello-$((40 + 2))"');
    await waitForScreen(page, /^hello-42$/m);
    await typeLine(page, `printf '\\033[1;31mred\\033[0m \\033[4munder\\033[0m ┌─┐ 中 ok\\n'`);
    await waitForScreen(page, /^red under ┌─┐ 中 ok$/m);
    await shot(page, options, 'terminal');
  },

  async 'a paste of several lines arrives whole'({ page, context }) {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const text = `cat <<'END' | wc -lc\n${Array.from({ length: 50 }, (_, i) => `pasted line ${i} äöü €`).join('\n')}\nEND\n`;
    await page.evaluate((value) => navigator.clipboard.writeText(value), text);
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.press('Control+Shift+V');
    const bytes = new TextEncoder().encode(text.split('\n').slice(1, -2).join('\n') + '\n').length;
    await waitForScreen(page, /(pasted line 49|END)/);
    // With bracketed paste the shell holds the text until Enter.
    await page.keyboard.press('Enter');
    await waitForScreen(page, new RegExp(`^\\s+50\\s+${bytes}$`, 'm'));
  },

  async 'the selection is copied'({ page }) {
    await typeLine(page, 'clear; echo copy-me-please');
    await waitForScreen(page, /^copy-me-please$/m);
    const target = page.locator('.xterm-rows > div', { hasText: /^copy-me-please/ }).last();
    const box = await target.boundingBox();
    await page.mouse.dblclick(box.x + 20, box.y + box.height / 2);
    await page.keyboard.press('Control+Shift+C');
    await eventually('the clipboard has the word', async () => (await page.evaluate(() => navigator.clipboard.readText())).startsWith('copy'));
  },

  async 'the search finds what scrolled away'({ page, options }) {
    await typeLine(page, 'clear; for i in $(seq 1 400); do echo "needle-$i-end"; done; echo scrolled-out');
    await waitForScreen(page, /^scrolled-out$/m);
    check(!(await screenText(page)).includes('needle-77-end'), 'the line is above the screen');
    await page.keyboard.press('Control+Shift+F');
    await page.locator(id('search-input')).fill('needle-77-end');
    await waitForScreen(page, /^needle-77-end$/m, 'the found line');
    await eventually('one match', async () => (await page.locator(id('search-count')).textContent()) === '1/1');
    await shot(page, options, 'search');
    await page.keyboard.press('Escape');
    await page.locator(id('search')).waitFor({ state: 'hidden' });
  },

  async 'a reload shows the same terminal, scrollback included'({ page }) {
    await page.reload();
    await connected(page);
    await waitForScreen(page, /^scrolled-out$/m);
    await page.keyboard.press('Control+Shift+F');
    await page.locator(id('search-input')).fill('needle-300-end');
    await waitForScreen(page, /^needle-300-end$/m);
    await page.keyboard.press('Escape');
    await typeLine(page, 'clear; echo after-$((500 + 5))');
    await waitForScreen(page, /^after-505$/m);
  },

  async 'a lost connection resumes without a gap and says so'({ page, cutter, options }) {
    await typeLine(page, 'clear; i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); echo "count-$i"; done; echo counted');
    await waitForScreen(page, /^count-\d+$/m);
    await cutter.cut();
    await eventually('the verdict', async () => (await page.locator(id('banner')).textContent()).includes('resumed'));
    await waitForScreen(page, /^counted$/m);
    await shot(page, options, 'resumed');
    const lines = (await screenText(page)).split('\n').filter((line) => /^count-\d+$/.test(line)).map((line) => Number(line.slice(6)));
    check(lines.length > 10 && lines.at(-1) === 2000, `the last lines are there: ${lines.slice(-3)}`);
    check(lines.every((n, i) => i === 0 || n === lines[i - 1] + 1), `no line is missing or doubled: ${lines}`);
    await typeLine(page, 'echo typed-$((1 + 1))-again');
    await waitForScreen(page, /^typed-2-again$/m);
  },

  async 'a program writes the clipboard only with consent and never reads it'({ page }) {
    await page.evaluate(() => navigator.clipboard.writeText('mine'));
    await typeLine(page, `clear; printf '\\033]52;c;?\\007'; printf '\\033]52;c;c3RvbGVu\\007'; echo asked-52`);
    await page.locator(id('confirm-dialog')).waitFor();
    check((await page.locator(id('confirm-dialog')).textContent()).includes('stolen'), 'it says what would be copied');
    await page.locator(id('confirm-no')).click();
    await typeLine(page, `printf '\\033]52;c;c3RvbGVu\\007'; echo again-52`);
    await waitForScreen(page, /^again-52$/m);
    check((await page.locator(id('confirm-dialog')).count()) === 0, 'it does not ask twice');
    check((await page.evaluate(() => navigator.clipboard.readText())) === 'mine', 'the clipboard is what it was');
  },
};
