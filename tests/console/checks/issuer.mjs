// Logging in at an OpenID Connect issuer, from nobody here to a member: whoever is in no organisation founds one where that is open, or follows an
// invitation; what one came with survives the way there and back.
import { check, eventually, id, shot } from '../lib.mjs';

/** Presses the button and is this person at the issuer, which takes a hint where others show a form. */
async function continueAs(page, who) {
  await page.route('**/api/v1/login/issuer', async (route) => {
    const response = await route.fetch({ maxRedirects: 0 });
    const to = new URL(response.headers()['location']);
    to.searchParams.set('login_hint', who);
    await route.fulfill({ response, headers: { ...response.headers(), location: to.href } });
  });
  await page.locator(id('login-issuer')).click();
}

/** Somebody else in a browser of their own: the issuer knows the one before. */
async function stranger({ browser, open, options }) {
  const page = await open(await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' }));
  await page.goto(options.url);
  await page.locator(id('login-issuer')).waitFor();
  return page;
}

async function logOut(page) {
  await page.locator(id('person')).click();
  await page.locator(id('logout')).click();
  await page.locator(id('login')).waitFor();
}

export const checks = {
  async 'whoever is in no organisation founds one, where that is open'({ page, options }) {
    await page.goto(options.url);
    check((await page.locator(id('login-issuer')).innerText()).includes('127.0.0.1'), 'the button says where it leads');
    check((await page.locator(id('login-submit')).count()) === 0, 'no passwords here');
    await shot(page, options, 'issuer');
    await continueAs(page, 'ada');
    await page.locator(id('newcomer')).waitFor();
    await page.locator(id('found-submit')).click();
    await eventually('a name is asked for', async () => (await page.locator(id('error-name')).innerText()).includes('1 to 128'));
    await shot(page, options, 'newcomer');
    await page.locator(id('found-name')).fill('Founded here');
    await page.locator(id('found-submit')).click();
    await page.locator(id('app')).waitFor();
    check((await page.locator(id('organization')).innerText()).includes('Founded here'), 'they are in it');
    check((await page.locator(id('own-role')).innerText()) === 'owner', 'as its owner');
  },

  async 'one is back where one was, after the way to the issuer'({ page, options }) {
    await logOut(page);
    await page.goto(`${options.url}/#/settings`);
    await continueAs(page, 'ada');
    await page.locator(id('settings-page')).waitFor();
  },

  async 'an invitation goes along to the issuer and back'({ page, options }) {
    await logOut(page);
    await page.goto(options.invited.ada.link);
    await eventually('the login says what for', async () => (await page.locator(id('login')).innerText()).includes('invitation'));
    await continueAs(page, 'ada');
    await page.locator(id('invitation-accept')).click();
    // They are somewhere else, and go there when they say so.
    await page.locator(id('invitation-open')).click();
    await eventually('they are in it', async () => (await page.locator(id('organization')).innerText()).includes('Analytical Engines'));
    check((await page.locator(id('own-role')).innerText()) === 'viewer', 'as what they were invited as');
  },

  async 'who is nobody yet accepts an invitation, if the address is theirs'(env) {
    const { options } = env;
    const page = await stranger(env);
    await page.goto(options.invited.ada.link);
    await continueAs(page, 'bob');
    await page.locator(id('invitation-accept')).click();
    await eventually('it is refused, with why', async () => (await page.locator(id('invitation-problem')).innerText()).length > 20);
    await page.locator(id('invitation-later')).click();
    await page.locator(id('newcomer')).waitFor();
    await page.locator(id('found-name')).fill('Of nobody');
    await page.locator(id('found-submit')).click();
    await eventually('an address that was not shown to be theirs founds nothing', async () => /confirm|address/i.test(await page.locator(id('error-general')).innerText()));
    await page.locator(id('newcomer-logout')).click();
    await page.locator(id('login')).waitFor();
    await page.context().close();
  },
};
