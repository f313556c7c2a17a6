// Rules of this console that no compiler knows: files that open with why they are there, stay short, never make markup from text, never
// hide an error, and never poll. Prints every finding; exit code 1 if there is one.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const LINES_MAX = 350;

const FORBIDDEN = [
  [/\b(inner|outer)HTML\b|insertAdjacentHTML|document\.write/, 'markup from text'],
  [/\beval\(|new Function\(/, 'code from text'],
  [/: any\b|as any\b|<any>/, 'an any'],
  [/@ts-(ignore|nocheck)/, 'a silenced compiler'],
  [/catch\s*(\([^)]*\))?\s*\{\s*\}/, 'a swallowed error'],
  [/console\.(log|debug|info)/, 'a left-over message'],
  [/https?:\/\/(?!www\.w3\.org)/, 'an address of another server'],
];
/** Where a timer that repeats is right: ages are shown to the minute, and nothing is fetched. */
const INTERVALS = new Set(['src/views/list.ts']);

const findings = [];
for (const folder of ['src', 'scripts', 'test']) {
  for (const entry of readdirSync(join(root, folder), { recursive: true })) {
    const path = join(folder, entry);
    if (!/\.(ts|mjs|css)$/.test(path) || path.startsWith('src/styles/fonts')) continue;
    const text = readFileSync(join(root, path), 'utf8');
    const lines = text.split('\n');
    const say = (line, what) => findings.push(`${relative('.', path)}:${line}: ${what}`);
    if (!/^(\/\/|\/\*) /.test(lines[0])) say(1, 'does not open with why it is there');
    if (lines.length > LINES_MAX) say(LINES_MAX, `${lines.length} lines, at most ${LINES_MAX}`);
    if (path.endsWith('lint.mjs')) continue;
    lines.forEach((line, i) => {
      if (line.length > 180 && path.startsWith('src') && !path.endsWith('-table.ts')) say(i + 1, `${line.length} characters`);
      if (/setInterval/.test(line) && !INTERVALS.has(path)) say(i + 1, 'a timer that repeats');
      for (const [pattern, what] of FORBIDDEN) if (!path.startsWith('scripts') && !line.startsWith('//') && pattern.test(line)) say(i + 1, what);
    });
  }
}
for (const finding of findings) console.log(finding);
process.exit(findings.length === 0 ? 0 : 1);
