// A record of the audit trail in the words of a row. Pure, so that it is tested without a page.

import type { AuditRecord } from '../../api/organization.ts';

/** Characters of a detail in a row; the whole of it is in the record. */
const DETAIL_CHARS_MAX = 160;

/** The names that ids have here. */
export type Names = ReadonlyMap<string, string>;

export function actorOf({ entry, personal }: AuditRecord, names: Names): string {
  return (
    personal?.name ??
    names.get(entry.actor.id) ??
    (entry.actor.kind === 'user' || entry.actor.kind === 'host' ? `${entry.actor.kind} ${entry.actor.id.slice(0, 8)}` : entry.actor.id)
  );
}

/** How often it happened, of a record that stands for several. */
export function timesOf({ entry }: AuditRecord): { times: number; since: string | null } | null {
  const { times, since } = fieldsOf(entry.detail);
  if (typeof times !== 'number') return null;
  return { times, since: typeof since === 'string' ? since : null };
}

/** The fields of the detail, in one line. */
export function detailLine({ entry }: AuditRecord): string {
  const words = Object.entries(fieldsOf(entry.detail))
    .filter(([key, value]) => value !== null && !isEmpty(value) && key !== 'times' && key !== 'since')
    .map(([key, value]) => `${key} ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const line = words.join(' · ');
  return line.length > DETAIL_CHARS_MAX ? `${line.slice(0, DETAIL_CHARS_MAX)}…` : line;
}

function fieldsOf(detail: unknown): Record<string, unknown> {
  return typeof detail === 'object' && detail !== null ? (detail as Record<string, unknown>) : {};
}

function isEmpty(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}
