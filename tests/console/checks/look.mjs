// What is seen: no empty boxes for the glyphs that agents draw, rows without gaps, and readable text in light and dark.
import { check, connected, eventually, id, shot, typeLine, waitForScreen } from '../lib.mjs';

const GLYPHS = '✻✳✶✽✢●○◐◑◒◓⏺⎿❯›╭╮╰╯│─├┤┬┴┼═║╔╗╚╝━┃▐▛▜▌▝▘▗▖▙▟█▓▒░▀▄▁▂▃▅▆▇▏▎▍▋▊▉⏵⏸⏹⚠✓✔✗✘→←↑↓…•·※☐☑☒▶▷▼▽◆◇■□★☆⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏⏎↵⌘⌥⧉⎯';

export const checks = {
  async 'no glyph of an agent’s screen is an empty box'({ page, options }) {
    await typeLine(page, `clear; echo '${GLYPHS}'; echo drawn`);
    await waitForScreen(page, /^drawn$/m);
    await page.evaluate(() => document.fonts.ready);
    const boxes = await page.evaluate(async (glyphs) => {
      const family = getComputedStyle(document.querySelector('.xterm-rows')).fontFamily;
      const canvas = new OffscreenCanvas(48, 48);
      const context = canvas.getContext('2d', { willReadFrequently: true });
      const drawn = (text) => {
        context.clearRect(0, 0, 48, 48);
        context.font = `32px ${family}`;
        context.fillText(text, 4, 36);
        return context.getImageData(0, 0, 48, 48).data.join();
      };
      await document.fonts.load(`32px ${family}`, glyphs);
      // A code point that no font will ever have shows what a missing glyph looks like here.
      const missing = new Set([drawn('\u{10fffd}'), drawn('\u0378'), drawn(' ')]);
      return [...glyphs].filter((glyph) => missing.has(drawn(glyph)));
    }, GLYPHS);
    check(boxes.length === 0, `empty boxes: ${boxes.join(' ')}`);
    await shot(page, options, 'glyphs');
  },

  async 'lines of a box touch from row to row'({ page }) {
    const gap = await page.evaluate(async () => {
      const style = getComputedStyle(document.querySelector('.xterm-rows'));
      const rowHeight = document.querySelector('.xterm-rows > div').getBoundingClientRect().height;
      const context = new OffscreenCanvas(64, 64).getContext('2d');
      context.font = `${style.fontSize} ${style.fontFamily}`;
      const box = context.measureText('│');
      return rowHeight - (box.actualBoundingBoxAscent + box.actualBoundingBoxDescent);
    });
    check(gap < 1, `a vertical line is ${gap} px shorter than its row`);
  },

  async 'light and dark follow the system and the button'({ page, options }) {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: 'light' });
    const light = await background();
    await shot(page, options, 'light');
    await page.emulateMedia({ colorScheme: 'dark' });
    const dark = await background();
    await shot(page, options, 'dark');
    check(light !== dark, `two backgrounds: ${light}, ${dark}`);
    await page.locator(id('theme')).click();
    await eventually('the button’s light holds in a dark system', async () => (await background()) === light);
    await page.reload();
    await connected(page);
    check((await background()) === light, 'the choice is remembered');
    await page.locator(id('theme')).click();
    await page.locator(id('theme')).click();
  },
};
