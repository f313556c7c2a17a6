// On a phone: the whole width of the terminal is visible, and the keys that its keyboard lacks are there and send what they should.
import { check, connected, eventually, focusTerminal, id, screenText, shot, waitForScreen } from '../lib.mjs';

export const checks = {
  async 'the whole width is visible and the key bar types'(env) {
    const { browser, context, session, options } = env;
    const state = await context.storageState();
    const phone = await browser.newContext({ storageState: state, viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: 'dark' });
    const page = await env.open(phone);
    await page.goto(options.url);
    await page.locator(id('session-row')).first().waitFor();
    await shot(page, options, 'phone-list');
    await page.locator(`${id('session-row')}[data-session="${session}"]`).tap();
    await connected(page);
    await waitForScreen(page, /[$#] ?$/m, 'a prompt');
    const { right, left, width } = await page.evaluate(() => document.querySelector('.xterm-screen').getBoundingClientRect().toJSON());
    check(left >= 0 && right <= 390 && width > 150, `the terminal lies within the page: ${left} to ${right}`);
    check(await page.evaluate(() => document.documentElement.scrollWidth <= 390), 'the page does not scroll sideways');
    const name = await page.evaluate(() => document.querySelector('.session-name h1').getBoundingClientRect().width);
    check(name > 100, `the name of the session is ${name} px wide`);
    await shot(page, options, 'phone-terminal');

    await page.locator(id('take-size')).tap();
    await eventually('the phone owns the size', async () => (await page.locator(id('size')).getAttribute('data-owner')) === 'me');
    await focusTerminal(page);
    await page.keyboard.type('clear; cat -v');
    await page.locator(id('key-Enter')).tap();
    await eventually('the screen is clear', async () => !/clear;/.test(await screenText(page)));
    for (const key of ['Escape', 'Up', 'Left', 'Down', 'Right', 'Tab']) await page.locator(id(`key-${key}`)).tap();
    await page.keyboard.type('x');
    await page.locator(id('key-Enter')).tap();
    await waitForScreen(page, /\^\[\^\[\[A\^\[\[D\^\[\[B\^\[\[C\s+x/, 'the keys as the program got them');
    await page.locator(id('key-Ctrl')).tap();
    check((await page.locator(id('key-Ctrl')).getAttribute('aria-pressed')) === 'true', 'Ctrl is held');
    await page.keyboard.type('c');
    await waitForScreen(page, /\^C/);
    check((await page.locator(id('key-Ctrl')).getAttribute('aria-pressed')) === 'false', 'Ctrl is let go after one key');
    await page.keyboard.type('echo phone-$((6 * 7))');
    await page.locator(id('key-Enter')).tap();
    await waitForScreen(page, /^phone-42$/m);
    await shot(page, options, 'phone-keys');

    await page.keyboard.type('clear; seq 1 500');
    await page.locator(id('key-Enter')).tap();
    await waitForScreen(page, /^500$/m);
    await drag(page, 300, 700);
    await eventually('a finger scrolls back', async () => !/^500$/m.test(await screenText(page)));
    await phone.close();
  },
};

/** A finger drawn down the terminal, in steps, as real ones come. */
async function drag(page, fromY, toY) {
  const touch = await page.context().newCDPSession(page);
  const at = (type, y) => touch.send('Input.dispatchTouchEvent', { type, touchPoints: type === 'touchEnd' ? [] : [{ x: 150, y }] });
  await at('touchStart', fromY);
  for (let y = fromY; y <= toY; y += 20) await at('touchMove', y);
  await at('touchEnd', toY);
}
