// A server that is away is asked rarely, one that restarted at once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../src/terminal/backoff.ts';

test('failed tries are ever further apart, also long after the last connection', () => {
  const backoff = new Backoff();
  backoff.opened(0);
  const waits = [100_000, 100_100, 100_500, 101_000, 102_000, 104_000, 109_000].map((now) => backoff.wait(now, 1));
  assert.deepEqual(waits, [0, 250, 500, 1000, 2000, 5000, 5000]);
});

test('a connection that breaks at once does not begin anew', () => {
  const backoff = new Backoff();
  for (let i = 0; i < 4; i += 1) backoff.wait(i, 1);
  backoff.opened(1000);
  assert.equal(backoff.wait(2000, 1), 2000);
  backoff.opened(5000);
  assert.equal(backoff.wait(15_000, 1), 0);
});

test('the random half only shortens', () => {
  const backoff = new Backoff();
  backoff.wait(0, 0);
  assert.equal(backoff.wait(0, 0), 125);
  assert.equal(backoff.wait(0, 0.5), 375);
});
