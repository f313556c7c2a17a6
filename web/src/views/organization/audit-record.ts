// One record of the audit trail, whole.

import type { AuditRecord } from '../../api/organization.ts';
import { openDialog } from '../../ui/dialog.ts';
import { h, type Child } from '../../ui/dom.ts';
import { clock } from '../../ui/format.ts';
import { actorOf, timesOf, type Names } from './audit-words.ts';

export function openRecord(record: AuditRecord, names: Names): void {
  const { entry, personal } = record;
  const code = (text: string | null | undefined): Child => (text ? h('code', {}, text) : null);
  const named = (id: string | null): Child => (id === null ? null : h('span', {}, names.has(id) ? `${names.get(id) ?? ''} ` : '', h('code', {}, id)));
  const folded = timesOf(record);
  const rows: [string, Child][] = [
    ['When', h('span', { title: entry.at }, `${clock(entry.at)} (${entry.at})`)],
    ['Action', code(entry.action)],
    ['Who', actorOf(record, names)],
    ['Actor', h('span', {}, `${entry.actor.kind} `, h('code', {}, entry.actor.id))],
    ['Credential', code(entry.actor.credential)],
    ['Through', entry.channel],
    ['Times', folded === null ? null : `${folded.times}${folded.since ? ` since ${clock(folded.since)}` : ''}`],
    ['Session', entry.session_id === null ? null : h('a', { href: `#/sessions/${entry.session_id}` }, h('code', {}, entry.session_id))],
    ['Host', named(entry.host_id)],
    ['Request', code(entry.request_id)],
    ['Address', personal?.ip],
    ['Mail', personal?.email],
    ['Client', personal?.user_agent],
    ['Hash', code(record.hash)],
  ];
  const shown = rows.filter(([, value]) => value !== null && value !== undefined);
  const dialog = openDialog(
    `Record ${record.number}`,
    'audit-record',
    h('dl', { class: 'facts record-facts' }, ...shown.flatMap(([what, value]) => [h('dt', {}, what), h('dd', {}, value)])),
    entry.detail === null ? null : h('pre', { class: 'command record-detail', tabindex: '0', 'aria-label': 'Detail' }, JSON.stringify(entry.detail, null, 2)),
  );
  dialog.element.classList.add('large');
  // Its link leads away from here.
  dialog.element.addEventListener('click', (event) => (event.target as Element).closest('a') && dialog.close());
}
