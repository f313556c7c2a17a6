// An organisation with two people: made, entered, and joined by invitation in another browser. Ada is its owner, Grace is who comes.
import { answer, browserOf, check, eventually, id, request, shot } from '../lib.mjs';

/** The address of the link that a dialog shows once; closes the dialog. */
export async function takeSecret(page) {
  const secret = await page.locator(id('secret')).innerText();
  await page.locator(id('secret-done')).click();
  await page.locator(id('secret')).waitFor({ state: 'detached' });
  check(!(await page.content()).includes(secret), 'what was shown once is nowhere on the page any more');
  return secret;
}

export function rowOf(page, list, text) {
  return page.locator(id(`${list}-row`)).filter({ hasText: text });
}

async function invite(page, email, role) {
  await page.locator(id('invite')).click();
  await page.locator(id('invite-email')).fill(email);
  await page.locator(id(`role-${role}`)).check();
  await page.locator(id('form-submit')).click();
  return takeSecret(page);
}

export const checks = {
  async 'an owner is in their organisation, and makes another'(env) {
    const { options, run } = env;
    const [ada, grace] = options.owners;
    const page = await browserOf(env, ada.key);
    await eventually('the organisation is named', async () => (await page.locator(id('organization')).innerText()).includes(ada.organization));
    check((await page.locator(id('own-role')).innerText()) === 'owner', 'and the role');
    await page.locator(id('organization-menu')).click();
    await page.locator(id('new-organization')).click();
    await page.locator(id('organization-name')).fill('');
    await page.locator(id('form-submit')).click();
    await eventually('a name is asked for, at its field', async () => /1 to 128/.test(await page.locator(id('error-name')).innerText()));
    env.organization = `Difference & Söhne ${run}`;
    await page.locator(id('organization-name')).fill(env.organization);
    await page.locator(id('form-submit')).click();
    await eventually('one is in the new one', async () => (await page.locator(id('organization')).innerText()).includes(env.organization));
    await eventually('the event stream is live there', () => page.locator(`${id('live')}[data-live="live"]`).count());
    Object.assign(env, { ada: page, people: { ada, grace } });
    const { data } = await answer(options, ada.key, '/organizations');
    check(data.length === 1, 'a key is in its own organisation alone');
  },

  async 'the organisation is switched, in every tab, and a reload stays there'({ ada: page, people, organization, open }) {
    const other = await open(page.context());
    await other.goto(page.url());
    await other.locator(id('app')).waitFor();
    check((await other.locator(id('organization')).innerText()).includes(organization), 'a new tab is where the browser is');
    await page.locator(id('organization-menu')).click();
    await page.locator(id(`organization-${people.ada.organization_id}`)).click();
    for (const tab of [page, other]) await eventually('both tabs moved', async () => (await tab.locator(id('organization')).innerText()).includes(people.ada.organization));
    await page.reload();
    await eventually('it is the same after a reload', async () => (await page.locator(id('organization')).innerText()).includes(people.ada.organization));
    await other.close();
    await page.locator(id('organization-menu')).click();
    await page.getByRole('menuitemradio', { name: organization }).click();
    await eventually('and back', async () => (await page.locator(id('organization')).innerText()).includes(organization));
  },

  async 'pages have addresses that survive a reload, and Back goes back'({ ada: page }) {
    await page.locator(id('organization')).click();
    await page.locator(id('members-page')).waitFor();
    for (const name of ['invitations', 'keys', 'hosts', 'settings', 'audit']) {
      await page.locator(id(`tab-${name}`)).click();
      await page.locator(id(`${name}-page`)).waitFor();
      check(page.url().endsWith(`#/${name}`), `its address: ${page.url()}`);
    }
    await page.goBack();
    await page.locator(id('settings-page')).waitFor();
    await page.reload();
    await page.locator(id('settings-page')).waitFor();
    check((await page.locator(`${id('tab-settings')}[aria-current="page"]`).count()) === 1, 'its tab is marked');
    await page.goBack();
    await page.locator(id('hosts-page')).waitFor();
  },

  async 'an invitation is refused at its field, made, and shown once'(env) {
    const { ada: page, people, options } = env;
    await page.locator(id('tab-invitations')).click();
    await page.locator(id('nothing')).waitFor();
    await page.locator(id('invite')).click();
    await page.locator(id('invite-email')).fill('nobody');
    await page.locator(id('form-submit')).click();
    await eventually('the address is refused at its field', async () => /mail address/.test(await page.locator(id('error-email')).innerText()));
    check((await page.locator(id('invite-email')).getAttribute('aria-invalid')) === 'true', 'and is marked for those who hear');
    await shot(page, options, 'invite-refused');
    await page.locator(id('invite-email')).fill(people.grace.email);
    await page.locator(id('role-member')).check();
    await page.locator(id('form-submit')).click();
    await page.locator(id('secret')).waitFor();
    await page.keyboard.press('Escape');
    await page.mouse.click(5, 5);
    check(await page.locator(id('secret')).isVisible(), 'a slip of the hand loses nothing');
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.locator(id('secret-copy')).click();
    await eventually('it is copied', async () => (await page.evaluate(() => navigator.clipboard.readText())).includes('#invitation='));
    await shot(page, options, 'invitation-link');
    env.link = await takeSecret(page);
    await rowOf(page, 'invitations', people.grace.email).waitFor();
  },

  async 'who is invited accepts in another browser, after the login, and the token stays nowhere'(env) {
    const { browser, options, people, link, organization, open } = env;
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
    const page = await open(context);
    await page.goto(link);
    await page.locator(id('login')).waitFor();
    check(!page.url().includes('invitation'), `the token left the address: ${page.url()}`);
    check((await page.locator(id('login')).innerText()).includes('invitation'), 'the login says what for');
    await shot(page, options, 'login-invited');
    const { url } = await answer(options, people.grace.key, '/login-codes', {});
    await page.goto(url);
    await page.locator(id('invitation')).waitFor();
    await eventually('it says where to before it is accepted', async () => (await page.locator(id('invitation-where')).innerText()).includes(organization));
    await shot(page, options, 'invitation');
    await page.locator(id('invitation-accept')).click();
    await page.locator(id('invitation-open')).waitFor();
    const said = await page.locator(id('invitation')).innerText();
    check(said.includes(organization) && said.includes(`still in ${people.grace.organization}`), `it says where to, and where she is: ${said}`);
    await shot(page, options, 'invitation-accepted');
    await page.locator(id('invitation-stay')).click();
    await eventually('she stays where she was', async () => (await page.locator(id('organization')).innerText()).includes(people.grace.organization));
    await page.goto(link);
    await page.locator(id('invitation-open')).click();
    await eventually('she is in the organisation', async () => (await page.locator(id('organization')).innerText()).includes(organization));
    check((await page.locator(id('own-role')).innerText()) === 'member', 'as what she was invited as');
    check(await page.evaluate(() => !JSON.stringify({ ...sessionStorage, ...localStorage }).includes('aai_')), 'and no storage has the token');
    env.grace = page;
    const token = new URLSearchParams(new URL(link).hash.slice(1));
    const again = await request(options, people.grace.key, '/invitations/accept', { organization_id: token.get('organization'), token: token.get('invitation') });
    check(again.status === 404, `it is good once: ${again.status}`);
  },

  async 'an invitation of somebody else says why it is not accepted'({ ada, grace, options, organization }) {
    await ada.locator(id('tab-members')).click();
    await rowOf(ada, 'members', 'grace').waitFor();
    await ada.locator(id('to-invitations')).click();
    await eventually('the accepted one is folded away', async () => (await ada.locator(id('invitations-past')).count()) === 1);
    // Into the organisation that Grace is in already, and into one that she is not in.
    const known = await invite(ada, 'somebody-else@example.com', 'auditor');
    await grace.goto(known);
    await grace.locator(id('invitation-open')).click();
    await eventually('who is in it is led there', async () => (await grace.locator(id('organization')).innerText()).includes(organization));
    const home = options.owners[0].organization_id;
    await ada.locator(id('organization-menu')).click();
    await ada.locator(id(`organization-${home}`)).click();
    await ada.locator(id('organization')).click();
    await ada.locator(id('to-invitations')).click();
    const foreign = await invite(ada, 'somebody-else@example.com', 'viewer');
    await grace.goto(foreign);
    await grace.locator(id('invitation-accept')).click();
    await eventually('the reasons are said', async () => /another address/.test(await grace.locator(id('invitation-problem')).innerText()));
    await shot(grace, options, 'invitation-refused');
    await grace.locator(id('invitation-later')).click();
    await grace.locator(id('app')).waitFor();
    await rowOf(ada, 'invitations', 'somebody-else').locator(id('invitation-revoke')).click();
    await ada.locator(id('confirm-yes')).click();
    await ada.locator(id('nothing')).waitFor();
    await ada.locator(id('organization-menu')).click();
    await ada.getByRole('menuitemradio', { name: organization }).click();
    await eventually('Ada is back', async () => (await ada.locator(id('organization')).innerText()).includes(organization));
  },

  async 'the last owner stays, and the page says so'({ ada: page, options }) {
    await page.locator(id('organization')).click();
    const own = rowOf(page, 'members', 'you');
    await own.locator(id('member-role-change')).click();
    await page.locator(id('role-viewer')).check();
    await page.locator(id('form-submit')).click();
    await eventually('it is refused in the dialog', async () => (await page.locator(id('error-general')).innerText()).length > 10);
    await shot(page, options, 'last-owner');
    await page.locator(id('form-cancel')).click();
    await own.locator(id('member-leave')).click();
    await page.locator(id('confirm-yes')).click();
    await eventually('leaving too', async () => (await page.locator(id('confirm-error')).innerText()).length > 10);
    await page.locator(id('confirm-no')).click();
    check((await own.locator(id('member-role')).innerText()) === 'owner', 'nothing changed');
  },
};
