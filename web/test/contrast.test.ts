// Every text can be read on every surface, in light and dark: 4.5 to 1, as WCAG asks of small text (AA).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const LEAST = 4.5;
const TEXTS = ['text', 'text-2', 'text-3', 'accent', 'good', 'warn', 'bad'];
const SURFACES = ['bg', 'panel', 'raised', 'hover', 'selected'];

/** Relative luminance of `#rrggbb`. */
function luminance(colour: string): number {
  const parts = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16) / 255);
  const [red = 0, green = 0, blue = 0] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

test('every text can be read on every surface', () => {
  const blocks = [...readFileSync('src/styles/tokens.css', 'utf8').matchAll(/\{([^{}]*--bg:[^{}]*)\}/g)];
  assert.equal(blocks.length, 3, 'light, dark by the system, dark by choice');
  for (const [, block = ''] of blocks) {
    const colours = new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name = '', colour = '']) => [name, colour]));
    const of = (name: string): string => colours.get(name) ?? assert.fail(`--${name} has a colour`);
    const pairs = TEXTS.flatMap((text) => [...SURFACES, `${text}-soft`].filter((surface) => colours.has(surface)).map((surface) => [text, surface] as const));
    for (const [text, surface] of [...pairs, ['accent-text', 'accent'] as const]) {
      const ratio = contrast(of(text), of(surface));
      assert.ok(ratio >= LEAST, `--${text} on --${surface}: ${ratio.toFixed(2)} to 1`);
    }
  }
});
