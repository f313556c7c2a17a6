// Who one is: nobody gets in without a link, a link works once, and nothing of it stays in the address.
import { check, eventually, id, shot } from '../lib.mjs';

/** A link of the command line; here a page makes it for its own login. */
async function link(page) {
  const made = await page.evaluate(async () => (await fetch('/api/v1/login-codes', { method: 'POST' })).json());
  return made.url;
}

async function loginCookie(context) {
  return (await context.cookies()).find(({ name }) => /^agentapi_\d+$/.test(name))?.value;
}

export const checks = {
  async 'without a login the page says what to run'({ page, options }) {
    await page.goto(options.url);
    await page.locator(id('login')).waitFor();
    await eventually('the page names the command', async () => (await page.locator(id('login')).innerText()).includes('agentapi open'));
    await shot(page, options, 'login');
  },

  async 'a login link logs in and leaves the address'({ page, context, options }) {
    await page.goto(options.loginUrl);
    await page.locator(id('app')).waitFor();
    check(!page.url().includes('code='), `the code left the address: ${page.url()}`);
    const cookies = await context.cookies();
    const cookie = cookies.find((candidate) => candidate.name.startsWith('agentapi_'));
    check(cookie?.httpOnly && cookie.sameSite === 'Strict', `the cookie is HttpOnly and SameSite=Strict: ${JSON.stringify(cookies)}`);
    await eventually('the event stream is live', () => page.locator(`${id('live')}[data-live="live"]`).count());
  },

  async 'a login link works once'({ browser, options, open }) {
    const stranger = await browser.newContext();
    const page = await open(stranger);
    await page.goto(options.loginUrl);
    await page.locator(id('login-problem')).waitFor();
    await stranger.close();
  },

  async 'a browser that is logged in asks before it takes a link, and one that stays does not use it up'({ browser, page, context, options, open }) {
    const [own, url] = [await loginCookie(context), await link(page)];
    const requests = [];
    page.on('request', (request) => requests.push(request.url()));
    await page.goto(url);
    await page.locator(id('other-login')).waitFor();
    check(!page.url().includes('code='), `the code left the address: ${page.url()}`);
    const { name } = await page.evaluate(async () => (await fetch('/api/v1/me')).json());
    check((await page.locator(id('other-login')).innerText()).includes(name), 'it says who is logged in');
    await shot(page, options, 'other-login');
    await page.locator(id('other-login-stay')).click();
    await page.locator(id('app')).waitFor();
    check((await loginCookie(context)) === own, 'the login is the same');
    check(!requests.some((one) => one.endsWith('/api/v1/login')), 'and the code was not sent');
    const other = await browser.newContext();
    const elsewhere = await open(other);
    await elsewhere.goto(url);
    await elsewhere.locator(id('app')).waitFor();
    await other.close();
    // It is used up now: that is said, and shuts nobody out.
    await page.goto(url);
    await page.locator(id('other-login-use')).click();
    await eventually('the link was used', async () => (await page.locator(id('other-login-problem')).innerText()).length > 10);
    await page.locator(id('other-login-stay')).click();
    await page.locator(id('app')).waitFor();
  },

  async 'who wants the login of the link has it'({ page, context }) {
    const own = await loginCookie(context);
    await page.goto(await link(page));
    await page.locator(id('other-login-use')).click();
    await page.locator(id('app')).waitFor();
    check((await loginCookie(context)) !== own, 'it is another login');
    await eventually('the event stream is live', () => page.locator(`${id('live')}[data-live="live"]`).count());
  },

  async 'a link that was broken on its way is refused in words'({ browser, options, open }) {
    const stranger = await browser.newContext();
    const page = await open(stranger);
    await page.goto(`${options.url}/#code=100%`);
    await page.locator(id('login-problem')).waitFor();
    await stranger.close();
  },

  async 'an organisation that is not one’s own is forgotten'({ page, context, options }) {
    const cookie = (await context.cookies()).find(({ name }) => name.endsWith('_organization'));
    check(cookie !== undefined, 'the browser knows where it is');
    await context.addCookies([{ ...cookie, value: '01890000-0000-7000-8000-000000000001' }]);
    await page.goto(`${options.url}/`);
    await page.reload();
    await page.locator(id('app')).waitFor();
    await eventually('it is where the login is', async () => (await context.cookies()).find(({ name }) => name === cookie.name)?.value === cookie.value);
  },
};
