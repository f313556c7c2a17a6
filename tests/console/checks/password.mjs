// Logging in with an address and a password, as in a project with Supabase Auth: what is wrong is said, an invitation is accepted on request
// alone, and one is back where one was.
import { check, eventually, id, shot } from '../lib.mjs';

async function logIn(page, { email, password }) {
  await page.locator(id('login-email')).fill(email);
  await page.locator(id('login-password')).fill(password);
  await page.locator(id('login-submit')).click();
}

const problem = (page) => page.locator(id('error-general')).innerText();

export const checks = {
  async 'the page asks for what this installation takes'({ page, options }) {
    await page.goto(options.invited.ada.link);
    await page.locator(id('login-form')).waitFor();
    check(!page.url().includes('invitation'), `the token left the address: ${page.url()}`);
    check((await page.locator(id('login-issuer')).count()) === 0, 'and nothing else');
    check((await page.locator(id('login-password')).getAttribute('autocomplete')) === 'current-password', 'password managers know the field');
    await shot(page, options, 'password');
  },

  async 'a wrong password is said, and typed again'({ page, options }) {
    const { ada } = options.invited;
    await logIn(page, { ...ada, password: 'wrong' });
    await eventually('it is said', async () => (await problem(page)).length > 10);
    check((await page.locator(id('login-password')).inputValue()) === '', 'the password is not kept');
    check(await page.locator(id('login-password')).evaluate((element) => element === document.activeElement), 'and is where one goes on');
    check((await page.locator(id('login-email')).inputValue()) === ada.email, 'the address stays');
    await shot(page, options, 'password-wrong');
  },

  async 'whoever is invited logs in, and is a member when they accept'({ page, context, options }) {
    await logIn(page, options.invited.ada);
    await page.locator(id('invitation-accept')).waitFor();
    check((await page.evaluate(async () => (await fetch('/api/v1/me')).status)) === 403, 'logging in accepts nothing');
    await eventually('it says where to, and as what', async () => /ours.*admin/s.test(await page.locator(id('invitation-where')).innerText()));
    await page.locator(id('invitation-accept')).click();
    await page.locator(id('invitation-open')).waitFor();
    check(/ours.*admin/s.test(await page.locator(id('invitation')).innerText()), 'it says where, and as what');
    check((await page.locator(id('invitation-stay')).count()) === 0, 'there is nowhere else to be');
    await shot(page, options, 'password-accepted');
    await page.locator(id('invitation-open')).click();
    await page.locator(id('app')).waitFor();
    check((await page.locator(id('organization')).innerText()).includes('ours'), 'in the organisation that invited');
    check((await page.locator(id('own-role')).innerText()) === 'admin', 'as what she was invited as');
    check(await page.evaluate(() => sessionStorage.getItem('agentapi.invitation') === null), 'the invitation is used up');
    const cookie = (await context.cookies()).find(({ name }) => /^agentapi_\d+$/.test(name));
    check(cookie?.httpOnly && cookie.sameSite === 'Strict', `the login is in no script’s reach: ${JSON.stringify(cookie)}`);
    await page.locator(id('organization')).click();
    await page.locator(id('members-row')).filter({ hasText: options.invited.ada.email }).waitFor();
  },

  async 'after a login that was over, one is where one was'({ page, context, options }) {
    await page.goto(`${options.url}/#/invitations`);
    await page.locator(id('invitations-page')).waitFor();
    await context.clearCookies({ name: /^agentapi_\d+$/ });
    await page.locator(id('tab-hosts')).click();
    await page.locator(id('hosts-page')).waitFor();
    await page.locator(id('tab-keys')).click();
    await page.locator(id('login-form')).waitFor();
    await logIn(page, options.invited.ada);
    await page.locator(id('keys-page')).waitFor();
  },

  async 'a logout is one, and whoever has no confirmed address is told so'({ page, options }) {
    await page.locator(id('person')).click();
    await page.locator(id('logout')).click();
    await page.locator(id('login-form')).waitFor();
    await logIn(page, options.invited.bob);
    await eventually('the address has to be confirmed', async () => /confirm/i.test(await problem(page)));
  },

  async 'an invitation for somebody else is said, and put aside'({ page, options }) {
    await page.goto(options.invited.bob.link);
    await eventually('the login says what for', async () => (await page.locator(id('login')).innerText()).includes('invitation'));
    await logIn(page, options.invited.eve);
    await page.locator(id('invitation-accept')).click();
    await eventually('it is refused', async () => /another address/.test(await page.locator(id('invitation-problem')).innerText()));
    await shot(page, options, 'password-invitation-refused');
    await page.locator(id('invitation-later')).click();
    await page.locator(id('newcomer-logout')).click();
    await page.locator(id('login-form')).waitFor();
  },

  async 'too many tries are said'({ page, options }) {
    const { ada } = options.invited;
    await eventually('the issuer takes no more', async () => {
      const answered = page.waitForResponse((response) => response.url().endsWith('/api/v1/login/password'));
      await logIn(page, { ...ada, password: 'wrong' });
      return (await answered).status() === 429;
    });
    // Nothing can be sent until then, so this is said for a while.
    await eventually('it is said', async () => /too many|attempts|try again/i.test(await problem(page)));
    await shot(page, options, 'password-too-many');
  },
};
