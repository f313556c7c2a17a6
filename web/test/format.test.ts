// Words for people, and the splitting of a command line, which decides what is run.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Exit, Session } from '../src/api/types.ts';
import { age, ago, ahead, asSentence, bytes, stateText, words } from '../src/ui/format.ts';
import { isQuery } from '../src/terminal/queries.ts';
import { isPassive } from '../src/terminal/reports.ts';

test('a command line is split as a shell would', () => {
  const cases: [string, string[]][] = [
    ['bash -l', ['bash', '-l']],
    ['  a   b ', ['a', 'b']],
    [`sh -c 'echo "a b" $HOME'`, ['sh', '-c', 'echo "a b" $HOME']],
    ['say "it\'s" "a \\"b\\" \\n"', ['say', "it's", 'a "b" \\n']],
    ['a\\ b c', ['a b', 'c']],
    [`x ''`, ['x', '']],
    ['', []],
  ];
  for (const [line, expected] of cases) assert.deepEqual(words(line), expected, line);
  assert.throws(() => words('echo "open'), /double quote/);
  assert.throws(() => words("echo 'open"), /single quote/);
});

test('ages are short', () => {
  const now = Date.parse('2026-01-10T12:00:00Z');
  const cases: [string, string][] = [
    ['2026-01-10T12:00:30Z', 'now'],
    ['2026-01-10T11:59:10Z', 'now'],
    ['2026-01-10T11:10:00Z', '50m'],
    ['2026-01-10T02:00:00Z', '10h'],
    ['2026-01-01T12:00:00Z', '9d'],
  ];
  for (const [iso, expected] of cases) assert.equal(age(iso, now), expected, iso);
});

test('a host’s words become a sentence, names stay names', () => {
  assert.equal(asSentence('the program ended with exit code 7'), 'The program ended with exit code 7.');
  assert.equal(asSentence('my-tool: not found. Install it.'), 'my-tool: not found. Install it.');
  assert.equal(asSentence('missing: npm install -g @a/b@1.2'), 'missing: npm install -g @a/b@1.2');
});

test('the state of a session says how it ended, unless that was well', () => {
  const session = { state: 'exited', unreachable: false } as Session;
  const exit = (code: number | null, signal: string | null): Exit => ({ code, signal, reason: 'exited', detail: '' });
  const cases: [Exit | null, string][] = [
    [null, 'exited'],
    [exit(0, null), 'exited'],
    [exit(3, null), 'exited (3)'],
    [exit(null, 'SIGKILL'), 'exited (SIGKILL)'],
  ];
  for (const [ended, expected] of cases) assert.equal(stateText({ ...session, exit: ended }), expected);
});

test('a colour is asked for by a question mark alone', () => {
  assert.equal(isQuery('?'), true);
  assert.equal(isQuery('4;?'), true);
  assert.equal(isQuery('#101318'), false);
});

test('focus and hovering are not typing, keys and clicks are', () => {
  for (const passive of ['\x1b[I', '\x1b[O', '\x1b[<35;10;5M', '\x1b[<39;1;1M']) assert.equal(isPassive(passive), true, JSON.stringify(passive));
  for (const active of ['a', '\x1b[A', '\x1b[<0;10;5M', '\x1b[<32;10;5M', '\x1b[<64;1;1M', '\x1b[<0;1;1m']) assert.equal(isPassive(active), false, JSON.stringify(active));
});

test('times before and after now are said as people do', () => {
  const now = Date.parse('2026-01-31T12:00:00Z');
  assert.equal(ago(null, now), 'never');
  assert.equal(ago('2026-01-31T11:59:50Z', now), 'just now');
  assert.equal(ago('2026-01-31T09:00:00Z', now), '3h ago');
  assert.equal(ahead('2026-05-01T11:59:58Z', now), 'in 90d');
  assert.equal(ahead('2026-02-07T11:50:00Z', now), 'in 7d');
  assert.equal(ahead('2026-01-31T12:00:20Z', now), 'in less than a minute');
  assert.equal(bytes(1536), '1.5 KiB');
  assert.equal(bytes(25_300_000_000), '24 GiB');
});
