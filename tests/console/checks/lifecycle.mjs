// From stop to purge: what ended stays readable and says why, what cannot start says what to do, and a mark stands only where one is needed.
import { check, connected, createSession, eventually, id, row, shot, typeLine, waitForScreen, waitForState } from '../lib.mjs';

export const checks = {
  async 'stop asks, ends the session and says how it ended'({ page, session, options }) {
    await typeLine(page, 'clear; echo last-words');
    await waitForScreen(page, /^last-words$/m);
    await page.locator(id('stop')).click();
    await page.locator(id('confirm-no')).click();
    check((await row(page, session).getAttribute('data-state')) === 'running', 'saying no changes nothing');
    await page.locator(id('stop')).click();
    await page.locator(id('confirm-yes')).click();
    await waitForState(page, session, 'exited');
    await eventually('the reason is shown', async () => /stopped/i.test(await page.locator(id('exit-reason')).textContent()));
    check((await row(page, session).locator(id('needs-person')).isVisible()) === false, 'an orderly end needs nobody');
    await shot(page, options, 'ended');
  },

  async 'an ended session keeps its screen'({ page }) {
    await page.reload();
    await page.locator(id('ended')).waitFor();
    await waitForScreen(page, /^last-words$/m);
  },

  async 'restart runs the command again in the same session'({ page, session }) {
    await page.locator(id('restart')).click();
    await waitForState(page, session, 'running');
    await connected(page);
    await page.locator(id('ended')).waitFor({ state: 'hidden' });
    await page.locator(`${id('terminal')}[data-spawn="2"]`).waitFor();
    await waitForScreen(page, /[$#] ?$/m, 'a prompt');
    await typeLine(page, 'echo second-run-$((10 + 1))');
    await waitForScreen(page, /^second-run-11$/m);
    check((await page.locator(id('session-meta')).textContent()).includes('run 2'), 'the header counts the runs');
  },

  async 'a program that exits by itself shows its code'({ page, session }) {
    await typeLine(page, 'exit 7');
    await waitForState(page, session, 'exited');
    await eventually('the code is shown', async () => /code 7/.test(await page.locator(id('exit-reason')).textContent()));
  },

  async 'a command that cannot be executed fails, is marked and says what to do'(env) {
    const { page, options } = env;
    const failed = await createSession(page, { name: `cannot start ${env.run}`, command: 'no-such-program-anywhere --flag' });
    await waitForState(page, failed, 'failed');
    await row(page, failed).locator(id('needs-person')).waitFor();
    await eventually('the reason names the program', async () => (await page.locator(id('exit-reason')).textContent()).includes('no-such-program-anywhere'));
    await shot(page, options, 'failed');
    env.failed = failed;
  },

  async 'what the server refuses is shown at the field'({ page }) {
    await page.locator(id('new-session')).click();
    await page.locator(`${id('agent-custom')} input`).check();
    await page.locator(id('create-command')).fill('bash');
    await page.locator(id('workspace-path')).check();
    await page.locator(id('create-path')).fill('not/absolute');
    await page.locator(id('create-submit')).click();
    await eventually('the refusal stands at the directory', async () => (await page.locator(id('error-workspace')).textContent()).length > 10);
    await page.keyboard.press('Escape');
    await page.locator(id('create-dialog')).waitFor({ state: 'detached' });
  },

  async 'rename shows everywhere'({ page, failed }) {
    await page.goto(page.url().replace(/#.*/, `#/sessions/${failed}`));
    await page.locator(id('session-menu')).click();
    await page.locator(id('menu-rename')).click();
    await page.locator(id('ask-text')).fill('<b>renamed</b> by the test');
    await page.locator(id('confirm-yes')).click();
    await eventually('the row has the name', async () => (await row(page, failed).textContent()).includes('<b>renamed</b> by the test'));
    await eventually('the header has the name', async () => (await page.locator(id('session-title')).textContent()) === '<b>renamed</b> by the test');
  },

  async 'purge removes the session'({ page, failed }) {
    await page.locator(id('purge')).click();
    await page.locator(id('confirm-yes')).click();
    await row(page, failed).waitFor({ state: 'detached' });
    await eventually('the page is the list again', () => page.url().endsWith('#/'));
  },
};
