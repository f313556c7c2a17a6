// Everything by keyboard: the list, the form, the help, in and out of a terminal; and every control has a name.
import { check, connected, createSession, eventually, id, row, waitForScreen, waitForState } from '../lib.mjs';

export const checks = {
  async 'list, filter and help work by keyboard'({ page, run }) {
    await page.keyboard.press('Escape');
    await page.evaluate(() => document.activeElement?.blur());
    await page.keyboard.press('?');
    await page.locator(id('help-dialog')).waitFor();
    await page.keyboard.press('Escape');
    await page.locator(id('help-dialog')).waitFor({ state: 'detached' });
    await page.keyboard.press('n');
    await page.locator(id('create-dialog')).waitFor();
    await page.keyboard.press('Escape');
    await page.locator(id('create-dialog')).waitFor({ state: 'detached' });
    await page.evaluate(() => document.activeElement?.blur());
    await page.keyboard.press('/');
    await page.keyboard.type(`console test ${run}`);
    await eventually('the filter holds', async () => (await page.locator(id('session-row')).count()) === 1);
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.waitForURL(/#\/sessions\//);
    await page.locator(id('session-filter')).fill('');
  },

  async 'a terminal is left and entered by keyboard'(env) {
    const { page } = env;
    env.session = await createSession(page, { name: `keyboard test ${env.run}`, command: 'bash --noprofile --norc' });
    await waitForState(page, env.session, 'running');
    await connected(page);
    await waitForScreen(page, /[$#] ?$/m, 'a prompt');
    await page.keyboard.type('echo focus-$((2 * 4))');
    await page.keyboard.press('Enter');
    await waitForScreen(page, /^focus-8$/m, 'a new terminal has the focus');
    await page.keyboard.press('Control+Shift+L');
    await eventually('the focus is on its row', () => row(page, env.session).evaluate((element) => element === document.activeElement));
    await page.keyboard.press('Enter');
    await eventually('the focus is in the terminal again', () => page.evaluate(() => document.activeElement?.closest('.terminal') !== null));
  },

  async 'every control has a name'({ page }) {
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, a[href], input, textarea:not(.xterm-helper-textarea)')]
        .filter((element) => element.checkVisibility())
        .filter((element) => !(element.getAttribute('aria-label') || element.textContent.trim() || element.labels?.length || element.title))
        .map((element) => element.outerHTML.slice(0, 120)),
    );
    check(nameless.length === 0, `nameless: ${nameless.join(' | ')}`);
  },
};
