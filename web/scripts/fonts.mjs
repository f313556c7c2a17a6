// Makes the console's one monospace family from the packages in node_modules: text in JetBrains Mono, lines, blocks and dingbats in DejaVu Sans Mono,
// braille in Cascadia Code, and the symbols that none of them has, cut out of Maple Mono, DejaVu Sans and the Noto symbol fonts. Writes woff2 files and their CSS into
// src/styles/fonts (not committed). Fails if a glyph that agents' screens use is in none of them: an empty box in a terminal is a bug.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import subsetFont from 'subset-font';
import { characters } from './woff2-cmap.mjs';

const require = createRequire(import.meta.url);
const out = join(dirname(fileURLToPath(import.meta.url)), '../src/styles/fonts');
const FAMILY = 'AgentAPI Mono';

// Rows are as high as DejaVu's lines and blocks, so that boxes close without gaps although the letters come from another font.
const METRICS = 'ascent-override: 94%; descent-override: 25%; line-gap-override: 0%;';

const JETBRAINS = (part) => `@fontsource-variable/jetbrains-mono/files/jetbrains-mono-${part}-wght-normal.woff2`;
const SOURCES = [
  { name: 'text', file: JETBRAINS('latin'), keep: [[0x20, 0x7e], [0xa0, 0xff], [0x131, 0x131], [0x152, 0x153], [0x2013, 0x201e], [0x2022, 0x2022], [0x2026, 0x2026], [0x2039, 0x203a], [0x20ac, 0x20ac], [0x2122, 0x2122]] },
  { name: 'latin-ext', file: JETBRAINS('latin-ext'), keep: [[0x100, 0x17f], [0x1e00, 0x1eff]] },
  { name: 'greek', file: JETBRAINS('greek'), keep: [[0x370, 0x3ff]] },
  { name: 'cyrillic', file: JETBRAINS('cyrillic'), keep: [[0x400, 0x45f], [0x490, 0x491]] },
  { name: 'lines', file: '@fontsource/dejavu-mono/files/dejavu-mono-latin-400-normal.woff2', weights: [400], keep: [[0x2010, 0x27bf], [0x27e0, 0x27ff], [0x2b00, 0x2bff], [0x180, 0x2ff]] },
  { name: 'lines-bold', file: '@fontsource/dejavu-mono/files/dejavu-mono-latin-700-normal.woff2', weights: [700], keep: [[0x2010, 0x27bf], [0x27e0, 0x27ff], [0x2b00, 0x2bff], [0x180, 0x2ff]] },
  { name: 'braille', file: '@fontsource/cascadia-code/files/cascadia-code-braille-400-normal.woff2', keep: [[0x2800, 0x28ff]] },
  // claude's marker of a tool's result, as high as the row.
  { name: 'corner', file: '@fontsource/maple-mono/files/maple-mono-latin-400-normal.woff2', keep: [[0x23bf, 0x23bf]] },
  // Proportional symbols, made small enough for one cell (0.6 em).
  { name: 'technical', file: '@fontsource/noto-sans-symbols/files/noto-sans-symbols-symbols-400-normal.woff2', adjust: 86, keep: [[0x2300, 0x23ff], [0x2460, 0x24ff], [0x2600, 0x27bf]] },
  { name: 'math', file: '@fontsource/dejavu-sans/files/dejavu-sans-latin-400-normal.woff2', adjust: 72, keep: [[0x2010, 0x205e], [0x2070, 0x218b], [0x2200, 0x22ff], [0x27c0, 0x27ff]] },
  { name: 'operators', file: '@fontsource/noto-sans-math/files/noto-sans-math-latin-400-normal.woff2', adjust: 66, keep: [[0x2900, 0x29ff]] },
  { name: 'symbols', file: '@fontsource/noto-sans-symbols-2/files/noto-sans-symbols-2-symbols-400-normal.woff2', adjust: 78, keep: [[0x203b, 0x203b], [0x2300, 0x23ff], [0x2400, 0x2426], [0x25a0, 0x27bf], [0x2b00, 0x2bff], [0x1fb00, 0x1fbaf]] },
];

// What claude, codex and the other agents draw, and the whole of the blocks they draw from. `tests/console` shows them in a browser as well.
const REQUIRED_RANGES = [[0x20, 0x7e], [0xa1, 0x17f], [0x2190, 0x21ff], [0x2500, 0x259f], [0x25a0, 0x25ff], [0x2800, 0x28ff]];
const REQUIRED =
  '✻✳✶✽✢✣✤✥✦✧✱✲✴✵✷✸✹✺❉❋●○◐◑◒◓◯⏺⎿⎯❯❮❱❰›‹❙╭╮╰╯▐▛▜▌▝▘⏵⏴⏸⏹⏩⏪⏭⏮⚠✓✔✗✘✕→←↑↓…•·※☐☑☒▶▷▸▹▼▽▾◀◂◆◇◈◉◎■□▪▫★☆⚡⚙⚑⌘⌥⌃⏎↵↩⎇⌫⬆⬇⏱⏳⌛∙◦⋮⋯≈≠≤≥∞√×÷±↻↺➜➤➔☰♪⇡⇣⊘⊗⊕◼◻▰▱∗␣⎋⏻⧉⤷⤴“”‘’–—€™';

const faces = [];
const covered = new Set();
const servedBy = new Map();
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const source of SOURCES) {
  const original = await readFile(require.resolve(source.file));
  // A code point is served by the first font that has it, so that no browser loads a large file for a glyph of a small one.
  const bold = source.name.endsWith('-bold');
  const had = characters(original);
  const wanted = source.keep.flatMap(([a, b]) => range(a, b)).filter((c) => had.has(c) && (bold || !covered.has(c)));
  const served = bold ? wanted.filter((c) => servedBy.get('lines')?.has(c)) : wanted;
  const subset = await subsetFont(original, String.fromCodePoint(...served), { targetFormat: 'woff2' });
  servedBy.set(source.name, new Set(served));
  for (const c of served) covered.add(c);
  await writeFile(join(out, `${source.name}.woff2`), subset);
  faces.push(face(source, served));
  console.log(`${source.name}: ${served.length} characters, ${subset.length} bytes`);
}
const required = [...REQUIRED_RANGES.flatMap(([a, b]) => range(a, b)), ...Array.from(REQUIRED, (c) => c.codePointAt(0))];
const missing = required.filter((c) => !covered.has(c) && !isUnassigned(c));
if (missing.length > 0) throw new Error(`no bundled font has ${missing.map((c) => `${String.fromCodePoint(c)} U+${c.toString(16)}`).join(', ')}`);
await writeFile(join(out, 'fonts.css'), `/* Made by scripts/fonts.mjs. */\n${faces.join('\n')}\n`);

/** The faces of one file. A browser chooses the weight first and the characters second, among the faces of exactly that weight: so every file is there for both. */
function face({ name, weights = [400, 700], adjust }, served) {
  // size-adjust scales the overrides as well, so they are divided by it.
  const metrics = adjust ? `ascent-override: ${((94 * 100) / adjust).toFixed(1)}%; descent-override: ${((25 * 100) / adjust).toFixed(1)}%; line-gap-override: 0%; size-adjust: ${adjust}%;` : METRICS;
  return weights
    .map((weight) => `@font-face { font-family: '${FAMILY}'; font-style: normal; font-weight: ${weight}; font-display: block; ${metrics} src: url('./${name}.woff2') format('woff2'); unicode-range: ${unicodeRange(served)}; }`)
    .join('\n');
}

function unicodeRange(codepoints) {
  const ranges = [];
  for (const c of [...codepoints].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] === c - 1) last[1] = c;
    else ranges.push([c, c]);
  }
  return ranges.map(([a, b]) => (a === b ? `U+${a.toString(16)}` : `U+${a.toString(16)}-${b.toString(16)}`)).join(', ');
}

function range(first, last) {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** Letters of the Latin ranges that JetBrains Mono leaves out on purpose (deprecated ones) are no reason to fail. */
function isUnassigned(c) {
  return c === 0xad || c === 0x132 || c === 0x133 || c === 0x149 || c === 0x17f;
}
