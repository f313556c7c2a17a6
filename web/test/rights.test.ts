// What the console offers by role is what the server allows.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CAPABILITIES } from '../src/api/rights.ts';

test('the table of rights is the server’s', () => {
  const text = readFileSync('../shared/policy/capabilities.toml', 'utf8');
  const theirs = new Map([...text.matchAll(/^"([a-z_.]+)" = (\[.*\])$/gm)].map(([, name, roles]) => [name, (JSON.parse(roles ?? '[]') as string[]).sort()]));
  assert.ok(theirs.size > 15, 'the file is read');
  for (const [name, roles] of Object.entries(CAPABILITIES)) assert.deepEqual([...roles].sort(), theirs.get(name), name);
});
