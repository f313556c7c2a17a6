// Who one is: nobody gets in without a link, a link works once, and nothing of it stays in the address.
import { check, eventually, id, shot } from '../lib.mjs';

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
};
