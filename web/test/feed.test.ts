// The order of things: bytes are parsed in order, a size waits for the bytes before it, acknowledgements say only what was parsed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WindowSize } from '../src/terminal/codec.ts';
import { Feed, HoleError, type Position } from '../src/terminal/feed.ts';

/** A terminal that parses when told to. */
class FakeScreen {
  readonly log: string[] = [];
  private readonly pending: (() => void)[] = [];

  write(bytes: Uint8Array, parsed: () => void): void {
    this.pending.push(() => {
      this.log.push(new TextDecoder().decode(bytes.subarray(0, 8)));
      parsed();
    });
  }

  reset(): void {
    this.log.push('<reset>');
  }

  resize(size: WindowSize): void {
    this.log.push(`<${size.cols}x${size.rows}>`);
  }

  async parse(): Promise<void> {
    for (let next = this.pending.shift(); next; next = this.pending.shift()) {
      next();
      await Promise.resolve();
    }
  }
}

function setup() {
  const screen = new FakeScreen();
  const acks: Position[] = [];
  const feed = new Feed(screen, (position) => acks.push(position));
  const out = (offset: number, text: string | number, spawn = 1) =>
    feed.output({ kind: 'output', spawn, offset, bytes: typeof text === 'string' ? new TextEncoder().encode(text) : new Uint8Array(text) });
  const key = (offset: number, text: string, spawn = 1) =>
    feed.keyframe({ kind: 'keyframe', spawn, offset, skipped: false, size: { cols: 100, rows: 30 }, bytes: new TextEncoder().encode(text) });
  return { screen, acks, feed, out, key };
}

const SIZE = { cols: 80, rows: 24 };

test('a keyframe starts, output follows, the keyframe is acknowledged with its position', async () => {
  const { screen, acks, feed, out, key } = setup();
  feed.begin(1, null, SIZE);
  assert.equal(feed.position(), null);
  key(500, 'KEY');
  out(500, 'abc');
  assert.deepEqual(feed.position(), { spawn: 1, offset: 503 });
  await screen.parse();
  assert.deepEqual(screen.log, ['<reset>', '<100x30>', 'KEY', 'abc']);
  assert.deepEqual(acks, [{ spawn: 1, offset: 500 }]);
});

test('a resize waits for what was written before it', async () => {
  const { screen, feed, out } = setup();
  feed.begin(1, 0, SIZE);
  out(0, 'wide');
  feed.resized(1, { cols: 40, rows: 10 });
  out(4, 'narrow');
  assert.deepEqual(screen.log, ['<reset>', '<80x24>']);
  await screen.parse();
  assert.deepEqual(screen.log, ['<reset>', '<80x24>', 'wide', '<40x10>', 'narrow']);
});

test('a keyframe in the middle comes after what was written before it', async () => {
  const { screen, feed, out, key } = setup();
  feed.begin(1, 0, SIZE);
  out(0, 'old');
  key(9000, 'KEY');
  out(9000, 'new');
  await screen.parse();
  assert.deepEqual(screen.log.slice(2), ['old', '<reset>', '<100x30>', 'KEY', 'new']);
});

test('acknowledgements come every 32 KiB of parsed output', async () => {
  const { screen, acks, feed, out } = setup();
  feed.begin(1, 0, SIZE);
  for (let i = 0; i < 10; i += 1) out(i * 10_000, 10_000);
  assert.equal(acks.length, 0);
  await screen.parse();
  assert.deepEqual(acks.map((ack) => ack.offset), [40_000, 80_000]);
});

test('bytes that are known are not parsed twice, and a hole is an error', async () => {
  const { screen, feed, out } = setup();
  feed.begin(1, 0, SIZE);
  out(0, 'abcd');
  out(2, 'cdef');
  out(0, 'ab');
  await screen.parse();
  assert.deepEqual(screen.log.slice(2), ['abcd', 'ef']);
  assert.throws(() => out(7, 'x'), HoleError);
});

test('a resumed spawn keeps its screen, another one starts on an empty screen', async () => {
  const { screen, feed, out } = setup();
  feed.begin(1, 0, SIZE);
  out(0, 'first');
  await screen.parse();
  feed.begin(1, 5, SIZE);
  out(5, 'more');
  await screen.parse();
  assert.deepEqual(screen.log, ['<reset>', '<80x24>', 'first', '<80x24>', 'more']);
  feed.begin(2, 0, SIZE);
  out(0, 'other', 2);
  out(9, 'late', 1);
  await screen.parse();
  assert.deepEqual(screen.log.slice(5), ['<reset>', '<80x24>', 'other']);
});

test('what is parsed after the offsets began anew is not acknowledged', async () => {
  const { screen, acks, feed, out, key } = setup();
  feed.begin(1, 0, SIZE);
  out(0, 100_000);
  feed.begin(1, null, SIZE);
  key(40, 'KEY');
  await screen.parse();
  assert.deepEqual(acks, [{ spawn: 1, offset: 40 }]);
});
