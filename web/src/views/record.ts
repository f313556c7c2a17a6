// A session for whoever may see its record and not its terminal: what it is, how each of its runs went, and what is on the audit trail of it.

import type { Rights } from '../api/rights.ts';
import type { Store } from '../api/store.ts';
import type { Session, Spawn } from '../api/types.ts';
import { fill, h, icon, type Child } from '../ui/dom.ts';
import { clock, exitSentence, postureSentence, stateWord, titleOf } from '../ui/format.ts';
import { table, type Column } from '../ui/table.ts';

export class RecordPage {
  readonly element = h('main', { class: 'organization', testid: 'record-page' });
  readonly id: string;
  private readonly store: Store;
  private readonly rights: Rights;
  private readonly unsubscribe: () => void;

  constructor(id: string, store: Store, rights: Rights) {
    this.id = id;
    this.store = store;
    this.rights = rights;
    this.unsubscribe = store.subscribe(() => this.render());
    this.render();
  }

  dispose(): void {
    this.unsubscribe();
  }

  private render(): void {
    const session = this.store.sessions.get(this.id);
    document.title = session ? `${titleOf(session)} · AgentAPI` : 'AgentAPI';
    fill(
      this.element,
      h(
        'header',
        { class: 'org-head' },
        h('a', { class: 'icon-button back', href: '#/', 'aria-label': 'All sessions', title: 'All sessions' }, icon('back')),
        h('span', { class: 'hint' }, 'The record of a session'),
      ),
      h(
        'div',
        { class: 'org-body' },
        ...(session ? this.parts(session) : [h('p', { class: 'loading', role: 'status' }, this.store.loaded ? 'There is no such session.' : 'Loading…')]),
      ),
    );
  }

  private parts(session: Session): Child[] {
    const word = stateWord(session);
    const trail = this.rights.may('audit.read') ? h('a', { class: 'button', href: `#/audit?session=${session.id}`, testid: 'to-audit' }, 'Audit trail') : null;
    const facts: [string, Child][] = [
      ['Agent', session.agent],
      ['Command', h('code', {}, session.command.join(' '))],
      ['Host', this.store.hostName(session.host_id)],
      ['Workspace', session.workspace.path ?? 'a directory of its own'],
      ['Seen by', session.visibility === 'private' ? 'whoever made it' : 'everybody in the organisation'],
      ['Made by', h('code', {}, session.created_by)],
      ['Made', clock(session.created_at)],
      ['Isolation', session.sandbox ? postureSentence(session.sandbox) : 'it has not run yet'],
      ['Id', h('code', {}, session.id)],
    ];
    const columns: Column<Spawn>[] = [
      { title: 'Run', kind: 'number', cell: ({ number }) => String(number) },
      { title: 'State', cell: ({ state }) => h('span', { class: 'chip', 'data-state': state }, state) },
      { title: 'Started', cell: ({ started }) => (started === null ? 'never' : clock(started)) },
      { title: 'Ended', cell: ({ ended }) => (ended === null ? 'not yet' : clock(ended)) },
      { title: 'How', kind: 'wide', cell: ({ state, exit }) => (exit === null ? null : exitSentence(state, exit)) },
    ];
    return [
      h(
        'section',
        { class: 'page' },
        h(
          'header',
          { class: 'page-head' },
          h(
            'div',
            { class: 'page-title' },
            h('h1', { testid: 'session-title' }, titleOf(session), ' ', h('span', { class: 'chip', 'data-state': word }, word)),
            h('p', { class: 'hint' }, 'Your role reads records, and opens no terminals.'),
          ),
          trail,
        ),
        h('dl', { class: 'facts', testid: 'record-facts' }, ...facts.flatMap(([what, value]) => [h('dt', {}, what), h('dd', {}, value)])),
        table('Runs', 'spawns', columns, session.spawns, ({ number }) => String(number)),
      ),
    ];
  }
}
