// What a row of the audit trail says of a record.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditRecord } from '../src/api/organization.ts';
import { actorOf, detailLine, timesOf } from '../src/views/organization/audit-words.ts';

function record(detail: unknown, personal: AuditRecord['personal'] = null): AuditRecord {
  const actor = { kind: 'user', id: '01a20eed-f92f-77c1-8c43-b1f122d3dc53' };
  const entry = { id: 'x', org_id: 'o', at: '2026-01-31T12:00:00Z', action: 'request.refused', channel: 'api', actor, session_id: null, host_id: null, request_id: null, detail };
  return { number: 7, hash: 'h', entry, personal };
}

test('repeats are counted, and their count is no detail', () => {
  const folded = record({ status: 403, code: 'forbidden', path: null, times: 12, since: '2026-01-31T11:59:00Z' });
  assert.deepEqual(timesOf(folded), { times: 12, since: '2026-01-31T11:59:00Z' });
  assert.equal(detailLine(folded), 'status 403 · code forbidden');
  assert.equal(timesOf(record({ status: 403 })), null);
  assert.equal(timesOf(record(null)), null);
  assert.equal(detailLine(record(null)), '');
});

test('an actor has the name of then, or of now, or none', () => {
  const names = new Map([['01a20eed-f92f-77c1-8c43-b1f122d3dc53', 'Grace']]);
  assert.equal(actorOf(record(null, { name: 'Ada' }), names), 'Ada');
  assert.equal(actorOf(record(null), names), 'Grace');
  assert.equal(actorOf(record(null), new Map()), 'user 01a20eed');
});

test('a long detail is cut', () => {
  assert.equal(detailLine(record({ text: 'x'.repeat(500) })).length, 161);
});
