// Every page of an organisation, wide and on a phone, light and dark, with names as long as they may be: nothing runs out of the page, every
// control has a name, a failure is said and can be tried again. Then the way out, and back to where one was.
import { answer, check, eventually, id, shot } from '../lib.mjs';

const PAGES = ['members', 'invitations', 'keys', 'hosts', 'settings', 'audit'];
const LONG = 'Gesellschaft-zur-Förderung-der-rechnenden-Wissenschaften-und-Künste ';

async function go(page, name) {
  await page.goto(page.url().replace(/#.*/, '') + `#/${name}`);
  await page.locator(id(`${name}-page`)).waitFor();
  await eventually('it is loaded', async () => (await page.locator('.page .loading, .page [aria-busy]').count()) === 0);
}

/** What sticks out of the window sideways. */
function overflow(page) {
  return page.evaluate(() => {
    const wide = document.documentElement.clientWidth;
    const inTabs = (element) => element.closest('.tabs, .list, datalist, .unseen');
    return [...document.querySelectorAll('.app *')]
      .filter((element) => element.checkVisibility() && !inTabs(element) && element.getBoundingClientRect().width > 0)
      .filter((element) => element.getBoundingClientRect().right > wide + 1)
      .map((element) => `${element.tagName}.${element.className} ${Math.round(element.getBoundingClientRect().right)}`)
      .slice(0, 5);
  });
}

function nameless(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('button, a[href], input, select, textarea, summary')]
      .filter((element) => element.checkVisibility())
      .filter((element) => !(element.getAttribute('aria-label') || element.textContent.trim() || element.labels?.length || element.title))
      .map((element) => element.outerHTML.slice(0, 120)),
  );
}

export const checks = {
  async 'names as long as they may be fit, wide and on a phone, light and dark'({ ada: page, options, run }) {
    await go(page, 'settings');
    await page.locator(id('settings-name')).fill(`${LONG}${LONG}`.slice(0, 128 - run.length) + run);
    await page.locator(id('settings-save')).click();
    await eventually('it is renamed', async () => (await page.locator(id('organization')).innerText()).includes('Gesellschaft'));
    await go(page, 'keys');
    await page.locator(id('new-key')).click();
    await page.locator(id('key-name')).fill('k'.repeat(128));
    await page.locator(id('form-submit')).click();
    await page.locator(id('secret-done')).click();
    await go(page, 'invitations');
    await page.locator(id('invite')).click();
    await page.locator(id('invite-email')).fill(`${'a'.repeat(180)}@example.com`);
    await page.locator(id('form-submit')).click();
    await page.locator(id('secret-done')).click();
    for (const [size, viewport] of Object.entries({ wide: { width: 1280, height: 800 }, tablet: { width: 800, height: 900 }, phone: { width: 390, height: 844 } })) {
      await page.setViewportSize(viewport);
      for (const name of PAGES) {
        await go(page, name);
        for (const scheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme: scheme });
          if (size !== 'tablet') await shot(page, options, `page-${name}-${size}-${scheme}`);
        }
        const out = await overflow(page);
        check(out.length === 0, `${name} at ${viewport.width}: ${out.join(', ')}`);
        const found = await nameless(page);
        check(found.length === 0, `${name}, nameless: ${found.join(' | ')}`);
      }
    }
    await page.setViewportSize({ width: 1280, height: 800 });
  },

  async 'a phone has one of list and page, and the way between'({ ada: page, options }) {
    await page.setViewportSize({ width: 390, height: 844 });
    await go(page, 'members');
    check((await page.locator(id('session-list')).isVisible()) === false, 'the page alone');
    await page.locator('.org-head .back').click();
    await page.locator(id('session-list')).waitFor();
    await shot(page, options, 'phone-organization-list');
    await page.locator(id('person')).click();
    await shot(page, options, 'phone-person');
    await page.keyboard.press('Escape');
    await page.locator(id('organization-menu')).click();
    const menu = await page.locator('.menu:visible').boundingBox();
    check(menu.x >= 0 && menu.x + menu.width <= 390, `the menu is within the page: ${JSON.stringify(menu)}`);
    await shot(page, options, 'phone-switcher');
    await page.keyboard.press('Escape');
    await page.locator(id('organization')).click();
    await page.locator(id('members-page')).waitFor();
    await page.setViewportSize({ width: 1280, height: 800 });
  },

  async 'everything is reached by keyboard'({ ada: page }) {
    await go(page, 'members');
    await page.evaluate(() => document.activeElement?.blur());
    await page.keyboard.press('o');
    await page.locator(id('organization-menu')).focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('ArrowDown');
    check(await page.evaluate(() => document.activeElement?.getAttribute('role') === 'menuitemradio'), 'arrows move in the menu');
    await page.keyboard.press('Escape');
    await eventually('Escape goes back', () => page.evaluate(() => document.activeElement?.getAttribute('data-testid') === 'organization-menu'));
    await page.locator(id('tab-keys')).focus();
    await page.keyboard.press('Enter');
    await page.locator(id('keys-row')).first().waitFor();
    await page.locator(id('new-key')).focus();
    await page.keyboard.press('Enter');
    await eventually('the form has the focus', () => page.evaluate(() => document.activeElement?.id === 'key-name'));
    await page.keyboard.press('Escape');
    await page.locator(id('key-dialog')).waitFor({ state: 'detached' });
  },

  async 'a page that cannot be loaded says why, and is tried again'({ ada: page, options }) {
    await go(page, 'members');
    await page.route('**/api/v1/members', (route) => route.abort());
    await page.reload();
    await page.locator(id('failure')).waitFor();
    check((await page.locator(id('failure')).innerText()).includes('does not answer'), 'why');
    await shot(page, options, 'failure');
    await page.unroute('**/api/v1/members');
    await page.locator(id('try-again')).click();
    await page.locator(id('members-row')).first().waitFor();
  },

  async 'a login that is over leads to the login page, and from there back'({ ada: page, people, options }) {
    await go(page, 'settings');
    const { hash } = new URL(page.url());
    await page.context().clearCookies({ name: /^agentapi_\d+$/ });
    await page.locator(id('tab-members')).click();
    await page.locator(id('login')).waitFor();
    await eventually('it says what to do', async () => (await page.locator(id('login')).innerText()).includes('agentapi open'));
    check((await page.locator(id('login-submit')).count()) === 0 && (await page.locator(id('login-issuer')).count()) === 0, 'no way that this installation has not');
    const { url } = await answer(options, people.ada.key, '/login-codes', {});
    await page.goto(url);
    await page.locator(id('members-page')).waitFor();
    check(hash === '#/settings', 'it was another page');
  },

  async 'logging out ends it'({ ada: page, people }) {
    await page.locator(id('person')).click();
    const head = await page.locator(id('person-head')).innerText();
    check(head.includes(people.ada.email) && head.includes('owner of'), `who one is: ${head}`);
    await page.locator(id('logout')).click();
    await page.locator(id('login')).waitFor();
    check(!page.url().includes('members'), 'nobody is led to where somebody else was');
    check((await page.evaluate(async () => (await fetch('/api/v1/me')).status)) === 401, 'the login is over');
    await page.reload();
    await page.locator(id('login')).waitFor();
  },
};
