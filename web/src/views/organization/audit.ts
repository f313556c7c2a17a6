// The audit trail. Filters and the place in it stand in the address, so that a reload and Back show the same, and a link can be sent.

import { api, AUDIT_EXPORT_URL } from '../../api/client.ts';
import type { AuditRecord } from '../../api/organization.ts';
import { fill, h, icon, type Child } from '../../ui/dom.ts';
import { Fetched, nothing } from '../../ui/fetched.ts';
import { Fields, onSubmit, select, textInput } from '../../ui/form.ts';
import { clock } from '../../ui/format.ts';
import { table, type Column } from '../../ui/table.ts';
import { openRecord } from './audit-record.ts';
import { actorOf, detailLine, timesOf } from './audit-words.ts';
import { nameOf } from './members.ts';
import { page, type Ground, type Page } from './page.ts';

/** Records of a page. */
const PAGE_RECORDS = 50;

/** A page of the API looks at so many records and may find none. So many are asked for before the person is. */
const LOOKS_MAX = 10;

const FILTERS = ['action', 'actor', 'session', 'host', 'from', 'until', 'order'] as const;

const ACTIONS = [
  'session.create', 'session.update', 'session.stop', 'session.restart', 'session.purge_requested', 'session.purged', 'session.input', 'session.placed',
  'spawn.ended', 'spawn.failed', 'terminal.attach', 'terminal.detach', 'login', 'logout', 'login_code.create', 'request.refused', 'member.role', 'member.remove',
  'invitation.create', 'invitation.accept', 'invitation.revoke', 'api_key.create', 'api_key.revoke', 'organization.create', 'organization.update', 'organization.quotas',
  'host_enrolment.create', 'host.enrol', 'host.revoke', 'host.connected', 'host.disconnected', 'egress.denied', 'audit.export',
]; // prettier-ignore

interface Found {
  records: AuditRecord[];
  next: string | null;
}

export function auditPage(ground: Ground, query: URLSearchParams): Page {
  const view = new AuditView(ground, query);
  const save = h(
    'a',
    {
      class: 'button',
      href: AUDIT_EXPORT_URL,
      download: 'audit.ndjson',
      testid: 'audit-export',
      title: 'Everything, for `agentapi audit verify`. Reading it is recorded.',
    },
    'Export',
  );
  return {
    element: page('audit-page', 'Audit trail', 'Who did what, and what was refused. Records are only ever added.', save, view.filters, view.fetched.element),
    moved: (moved) => view.show(moved),
  };
}

class AuditView {
  readonly fetched: Fetched<Found>;
  readonly filters = h('div', { class: 'filters-frame' });
  private readonly ground: Ground;
  private query: URLSearchParams;
  private names = new Map<string, string>();

  constructor(ground: Ground, query: URLSearchParams) {
    this.ground = ground;
    this.query = query;
    this.fetched = new Fetched(
      () => this.fetch(),
      (found) => this.render(found),
    );
    void this.start();
  }

  show(query: URLSearchParams): void {
    this.query = query;
    this.renderFilters();
    void this.fetched.load();
  }

  private async start(): Promise<void> {
    this.renderFilters();
    // Names are a help and no more: without them the ids stand there.
    const members = await api.members().catch(() => []);
    for (const member of members) this.names.set(member.user_id, nameOf(member));
    for (const host of this.ground.store.hosts.values()) this.names.set(host.id, host.name ?? host.facts?.hostname ?? host.id);
    this.renderFilters();
    await this.fetched.load();
  }

  private async fetch(): Promise<Found> {
    const query = new URLSearchParams({ limit: String(PAGE_RECORDS) });
    for (const name of [...FILTERS, 'cursor']) {
      const value = this.query.get(name);
      if (value !== null && value !== '') query.set(name, value);
    }
    for (let look = 1; ; look += 1) {
      const { data, next_cursor } = await api.audit(query);
      if (data.length > 0 || next_cursor === null || look >= LOOKS_MAX) return { records: data, next: next_cursor };
      query.set('cursor', next_cursor);
    }
  }

  private render({ records, next }: Found): Child[] {
    const isOldest = this.query.get('order') === 'oldest';
    const onward =
      next === null
        ? null
        : h('a', { class: 'button', href: this.address({ cursor: next }), testid: 'audit-next' }, isOldest ? 'Newer' : 'Older', icon('next'));
    const back = this.query.has('cursor')
      ? h('a', { class: 'button', href: this.address({ cursor: null }), testid: 'audit-first' }, isOldest ? 'Oldest' : 'Newest')
      : null;
    const empty = next === null ? 'No record is like this.' : 'None so far: there is more to look through.';
    return [
      records.length === 0 ? nothing(empty) : table('Audit records', 'audit', this.columns(), records, ({ number }) => String(number)),
      h('footer', { class: 'pager' }, back, h('span', { class: 'spacer' }), onward),
    ];
  }

  private columns(): Column<AuditRecord>[] {
    return [
      {
        title: 'Record',
        kind: 'number',
        cell: (record) =>
          h(
            'button',
            {
              type: 'button',
              class: 'link',
              testid: 'audit-open',
              'aria-label': `Show record ${record.number}`,
              onclick: () => openRecord(record, this.names),
            },
            `#${record.number}`,
          ),
      },
      { title: 'When', cell: ({ entry }) => h('time', { datetime: entry.at, title: entry.at }, clock(entry.at)) },
      { title: 'Who', cell: (record) => h('span', { class: 'clip short', title: record.entry.actor.id }, actorOf(record, this.names)) },
      { title: 'Action', cell: (record) => [h('code', { testid: 'audit-action' }, record.entry.action), times(record)] },
      { title: 'Detail', kind: 'wide', cell: detail },
    ];
  }

  private renderFilters(): void {
    const value = (name: string): string => this.query.get(name) ?? '';
    const fields = new Fields();
    const actor = textInput('audit-actor', { value: value('actor'), list: 'audit-actors', placeholder: 'anybody' });
    const action = textInput('audit-action-filter', { value: value('action'), list: 'audit-actions', placeholder: 'any', spellcheck: 'false' });
    const session = textInput('audit-session', { value: value('session'), placeholder: 'any', spellcheck: 'false' });
    const host = textInput('audit-host', { value: value('host'), list: 'audit-hosts', placeholder: 'any', spellcheck: 'false' });
    const from = textInput('audit-from', { type: 'datetime-local', value: localTime(value('from')) });
    const until = textInput('audit-until', { type: 'datetime-local', value: localTime(value('until')) });
    const order = select(
      'audit-order',
      [
        ['newest', 'newest first'],
        ['oldest', 'oldest first'],
      ],
      value('order') || 'newest',
    );
    const button = h('button', { class: 'button primary', testid: 'audit-filter' }, 'Show');
    const clear = h('a', { class: 'button', href: '#/audit', testid: 'audit-clear' }, 'Clear');
    const form = h(
      'form',
      { class: 'filters', novalidate: true, role: 'search', 'aria-label': 'Filter the audit trail', testid: 'audit-filters' },
      fields.field('query.action', 'Action', action),
      fields.field('query.actor', 'Who', actor),
      fields.field('query.session', 'Session', session),
      fields.field('query.host', 'Host', host),
      fields.field('query.from', 'From', from),
      fields.field('query.until', 'Until', until),
      fields.field('query.order', 'Order', order),
      h('div', { class: 'filter-buttons' }, button, FILTERS.some((name) => this.query.has(name)) ? clear : null),
      fields.general,
    );
    onSubmit(form, button, fields, async () => {
      const wanted = {
        action: action.value,
        actor: actor.value,
        session: session.value,
        host: host.value,
        from: worldTime(from.value),
        until: worldTime(until.value),
        order: order.value === 'newest' ? '' : order.value,
      };
      const query = new URLSearchParams(
        Object.entries(wanted)
          .map(([name, text]) => [name, text.trim()])
          .filter(([, text]) => text !== ''),
      );
      // Whatever is wrong with it is said at its field, before the address has it.
      await api.audit(new URLSearchParams([...query, ['limit', '1']]));
      const address = query.size === 0 ? '#/audit' : `#/audit?${query.toString()}`;
      if (location.hash === address) void this.fetched.load();
      else location.hash = address;
    });
    fill(this.filters, narrow(form, this.query), ...this.lists());
  }

  private lists(): Child[] {
    const hosts = [...this.ground.store.hosts.keys()];
    const named = (id: string): HTMLElement => h('option', { value: id, label: this.names.get(id) ?? id });
    return [
      h('datalist', { id: 'audit-actions' }, ...ACTIONS.map((action) => h('option', { value: action }))),
      h('datalist', { id: 'audit-hosts' }, ...hosts.map(named)),
      h('datalist', { id: 'audit-actors' }, ...[...this.names.keys()].map(named)),
    ];
  }

  private address(change: Record<string, string | null>): string {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(change)) {
      if (value === null) query.delete(name);
      else query.set(name, value);
    }
    return query.size === 0 ? '#/audit' : `#/audit?${query.toString()}`;
  }
}

/** Folded on a phone, where the filters would fill the page, unless some are set. */
function narrow(form: HTMLElement, query: URLSearchParams): HTMLElement {
  const isOpen = matchMedia('(min-width: 721px)').matches || FILTERS.some((name) => query.has(name));
  return h('details', { class: 'filters-fold', open: isOpen }, h('summary', {}, 'Filters'), form);
}

function detail(record: AuditRecord): Child {
  const line = detailLine(record);
  return line === '' ? null : h('span', { class: 'detail' }, line);
}

function times(record: AuditRecord): Child {
  const folded = timesOf(record);
  if (folded === null) return null;
  return h('span', { class: 'chip', title: folded.since ? `Since ${clock(folded.since)}` : '', testid: 'audit-times' }, `× ${folded.times}`);
}

/** A time as the field for it has it, in the reader's own zone. */
function localTime(iso: string): string {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return '';
  const date = new Date(at);
  return new Date(at - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function worldTime(local: string): string {
  return local === '' ? '' : new Date(local).toISOString();
}
