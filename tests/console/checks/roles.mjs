// What a role may not do is not offered: a member, a viewer who watches, an auditor who reads; and a role that changes changes the page.
import { check, connected, createSession, eventually, id, row, screenText, shot, waitForScreen, waitForState } from '../lib.mjs';
import { rowOf } from './organization.mjs';

async function giveRole(page, name, role) {
  await page.locator(id('organization')).click();
  await rowOf(page, 'members', name).locator(id('member-role-change')).click();
  await page.locator(id(`role-${role}`)).check();
  await page.locator(id('form-submit')).click();
  await eventually('the list has the new role', async () => (await rowOf(page, 'members', name).locator(id('member-role')).innerText()) === role);
}

const tabs = (page) => page.locator('.tab').allInnerTexts();

export const checks = {
  async 'a member manages nobody, and sees a session once it is shared'(env) {
    const { ada, grace, options, run } = env;
    await grace.locator(id('organization')).click();
    await grace.locator(id('members-row')).first().waitFor();
    check((await tabs(grace)).join() === 'Members,API keys,Hosts,Settings', `a member's pages: ${await tabs(grace)}`);
    check((await grace.locator(id('member-remove')).count()) === 0 && (await grace.locator(id('member-leave')).count()) === 1, 'she may leave, and remove nobody');
    await grace.goto(grace.url().replace(/#.*/, '#/audit'));
    await grace.locator('.welcome').waitFor();
    // One that is not private any more.
    env.shared = await createSession(ada, { name: `shared ${run}`, command: 'bash --noprofile --norc' });
    await waitForState(ada, env.shared, 'running');
    await connected(ada);
    check((await row(grace, env.shared).count()) === 0, 'a private one is nobody else’s');
    await ada.locator(id('session-menu')).click();
    await ada.locator(id('menu-share')).click();
    await ada.locator(id('confirm-yes')).click();
    await row(grace, env.shared).click();
    await connected(grace);
    await waitForScreen(grace, /[$#] ?$/m, 'a prompt');
    check((await grace.locator(id('stop')).isVisible()) === false, 'not hers to stop');
    await grace.keyboard.type('echo member-$((40 + 4))');
    await grace.keyboard.press('Enter');
    await waitForScreen(ada, /^member-44$/m, 'what a member typed');
    await shot(grace, options, 'shared-session');
  },

  async 'a viewer watches, and is offered nothing else'(env) {
    const { ada, grace, options, shared, run } = env;
    await giveRole(ada, 'grace', 'viewer');
    await eventually('her page knows', async () => (await grace.locator(id('own-role')).innerText()) === 'viewer');
    check((await grace.locator(id('new-session')).count()) === 0, 'no new sessions');
    await row(grace, shared).click();
    await connected(grace);
    await waitForScreen(grace, /^member-44$/m);
    check(await grace.locator(id('read-only')).isDisabled(), 'she cannot begin to type');
    check((await grace.locator(id('stop')).isVisible()) === false, 'nor stop it');
    await grace.locator('.xterm-helper-textarea').focus();
    await grace.keyboard.type('must-not-arrive');
    await eventually('it is said that nothing is typed', async () => (await grace.locator(id('toasts')).innerText()).includes('looks only'));
    await grace.locator(id('session-menu')).click();
    check(!(await grace.locator('.menu:visible').innerText()).includes('Purge'), 'no way to purge it');
    await grace.keyboard.press('Escape');
    await shot(grace, options, 'viewer');
    await ada.goto(ada.url().replace(/#.*/, `#/sessions/${shared}`));
    await connected(ada);
    await ada.keyboard.type(`echo fence-${run}`);
    await ada.keyboard.press('Enter');
    await waitForScreen(grace, new RegExp(`^fence-${run}$`, 'm'));
    check(!(await screenText(grace)).includes('must-not-arrive'), 'nothing of hers reached the program');
    await grace.evaluate(() => document.activeElement?.blur());
    await grace.goto(grace.url().replace(/#.*/, '#/new'));
    await eventually('the form is not hers', async () => grace.url().endsWith('#/'));
    await grace.locator(id('organization')).click();
    await grace.locator(id('tab-settings')).click();
    check(await grace.locator(id('settings-name')).isDisabled(), 'settings are to be seen');
    check((await grace.locator(id('settings-save')).count()) === 0, 'and not to be saved');
    check((await tabs(grace)).join() === 'Members,Hosts,Settings', `a viewer's pages: ${await tabs(grace)}`);
  },

  async 'an auditor lands on the trail, and reads records instead of terminals'(env) {
    const { ada, grace, options, shared, run } = env;
    await giveRole(ada, 'grace', 'auditor');
    await eventually('her page knows', async () => (await grace.locator(id('own-role')).innerText()) === 'auditor');
    await grace.goto(grace.url().replace(/#.*/, ''));
    await grace.locator(id('audit-row')).first().waitFor();
    check((await tabs(grace)).join() === 'Members,Hosts,Settings,Audit', `an auditor's pages: ${await tabs(grace)}`);
    await row(grace, shared).click();
    await grace.locator(id('record-page')).waitFor();
    check((await grace.locator('.xterm').count()) === 0, 'no terminal');
    const text = await grace.locator(id('record-page')).innerText();
    check(text.includes(`shared ${run}`) && text.includes('bash --noprofile --norc') && text.includes('running'), `the record: ${text}`);
    await shot(grace, options, 'auditor-record');
    await grace.locator(id('to-audit')).click();
    await eventually('its trail', async () => (await grace.locator(id('audit-action')).allInnerTexts()).includes('session.create'));
    await shot(grace, options, 'auditor');
  },

  async 'who is removed is out at once'({ ada, grace, people, options }) {
    await ada.locator(id('organization')).click();
    await rowOf(ada, 'members', 'grace').locator(id('member-remove')).click();
    await shot(ada, options, 'remove-member');
    await ada.locator(id('confirm-yes')).click();
    await rowOf(ada, 'members', 'grace').waitFor({ state: 'detached' });
    await eventually('her page is in her own organisation again', async () => {
      // Whatever she does next finds it out; so does the event stream, when it comes back.
      await grace.locator(id('organization')).click({ timeout: 500 }).catch(() => undefined);
      return (await grace.locator(id('organization')).innerText()).includes(people.grace.organization);
    });
  },
};
