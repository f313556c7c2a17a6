// The list of sessions: living ones first, newest first. Rows are links, so that they can be opened in a tab; arrow keys move along them.
// A row is marked only where a person is needed. Rows are kept and updated, never rebuilt, so that focus and scrolling survive an event.

import type { Rights } from '../api/rights.ts';
import { isEnded, type Session } from '../api/types.ts';
import type { Store } from '../api/store.ts';
import { fill, h, icon, setText, show } from '../ui/dom.ts';
import { age, clock, needsPerson, stateText, stateWord, titleOf } from '../ui/format.ts';

/** Ages are shown to the minute. */
const AGE_MS = 30_000;

interface Row {
  element: HTMLElement;
  update(session: Session, current: boolean): void;
}

export class SessionList {
  readonly element: HTMLElement;
  private readonly store: Store;
  private readonly rights: Rights;
  private readonly rows = new Map<string, Row>();
  private readonly filter = h('input', {
    class: 'input filter',
    type: 'search',
    placeholder: 'Filter sessions',
    'aria-label': 'Filter sessions',
    autocomplete: 'off',
    testid: 'session-filter',
    oninput: () => this.render(),
  });
  private readonly active = group('Active', 'active');
  private readonly ended = group('Ended', 'ended');
  private readonly empty = h('div', { class: 'empty', testid: 'list-empty' });
  private readonly timer: number;
  private readonly unsubscribe: () => void;
  private current: string | null = null;

  /** `reopen` is called for the session that is open already, whose link changes no address. */
  constructor(store: Store, rights: Rights, reopen: () => void) {
    this.store = store;
    this.rights = rights;
    const onkeydown = (event: KeyboardEvent) => this.keydown(event);
    const onclick = (event: MouseEvent) => this.click(event, reopen);
    this.element = h(
      'nav',
      { class: 'list', 'aria-label': 'Sessions', testid: 'session-list', onkeydown, onclick },
      this.filter,
      h('div', { class: 'list-scroll' }, this.active.element, this.ended.element, this.empty),
    );
    this.unsubscribe = store.subscribe(() => this.render());
    this.timer = window.setInterval(() => document.visibilityState === 'visible' && this.render(), AGE_MS);
    this.render();
  }

  select(id: string | null): void {
    this.current = id;
    this.render();
  }

  focusFilter(): void {
    this.filter.focus();
    this.filter.select();
  }

  focus(): void {
    const links = this.links();
    (links.find((link) => link.getAttribute('aria-current') === 'page') ?? links[0] ?? this.filter).focus();
  }

  dispose(): void {
    clearInterval(this.timer);
    this.unsubscribe();
  }

  private render(): void {
    const needle = this.filter.value.trim().toLowerCase();
    const sorted = [...this.store.sessions.values()].sort((a, b) => b.created_at.localeCompare(a.created_at));
    const shown = sorted.filter((session) => needle === '' || haystack(session, this.store).includes(needle));
    this.place(
      this.active,
      shown.filter((session) => !isEnded(session.state)),
    );
    this.place(
      this.ended,
      shown.filter((session) => isEnded(session.state)),
    );
    const visible = new Set(shown.map((session) => session.id));
    for (const [id, row] of this.rows) {
      if (visible.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    this.renderEmpty(shown.length, needle);
  }

  private place(into: Group, sessions: Session[]): void {
    show(into.element, sessions.length > 0);
    setText(into.count, String(sessions.length));
    let at = into.items.firstElementChild;
    for (const session of sessions) {
      let row = this.rows.get(session.id);
      if (!row) this.rows.set(session.id, (row = makeRow(session.id, this.store)));
      if (row.element === at) at = at.nextElementSibling;
      else into.items.insertBefore(row.element, at);
      row.update(session, session.id === this.current);
    }
  }

  private renderEmpty(shown: number, needle: string): void {
    show(this.empty, shown === 0);
    if (shown > 0) return;
    const { loaded, loadError } = this.store;
    if (loadError && !loaded) fill(this.empty, h('p', { class: 'notice error', role: 'alert' }, loadError));
    else if (!loaded) fill(this.empty, h('p', {}, 'Loading…'));
    else if (needle !== '') fill(this.empty, h('p', {}, `No session matches “${needle}”.`));
    else
      fill(
        this.empty,
        h('p', {}, this.rights.may('session.create') ? 'No sessions yet.' : 'There are no sessions that you see.'),
        this.rights.may('session.create') ? h('a', { class: 'button primary', href: '#/new' }, 'New session') : null,
      );
  }

  private links(): HTMLAnchorElement[] {
    return [...this.element.querySelectorAll<HTMLAnchorElement>('a.row')];
  }

  private click(event: MouseEvent, reopen: () => void): void {
    const link = (event.target as Element).closest('a.row');
    if (link?.getAttribute('aria-current') !== 'page' || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    reopen();
  }

  private keydown(event: KeyboardEvent): void {
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    const links = this.links();
    if (step !== 0) {
      event.preventDefault();
      const at = links.indexOf(document.activeElement as HTMLAnchorElement);
      if (at + step < 0) this.filter.focus();
      else links[Math.min(links.length - 1, at + step)]?.focus();
    } else if (event.key === 'Home' || event.key === 'End') {
      if (event.target === this.filter) return;
      event.preventDefault();
      links.at(event.key === 'Home' ? 0 : -1)?.focus();
    } else if (event.key === 'Enter' && event.target === this.filter) {
      links[0]?.click();
    }
  }
}

interface Group {
  element: HTMLElement;
  items: HTMLElement;
  count: HTMLElement;
}

function group(label: string, testid: string): Group {
  const items = h('ul', {});
  const count = h('span', { class: 'count' });
  const element = h('section', { class: 'group', 'aria-label': label, testid: `group-${testid}` }, h('h2', {}, label, ' ', count), items);
  return { element, items, count };
}

function makeRow(id: string, store: Store): Row {
  const dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
  const name = h('span', { class: 'row-name' });
  const mark = h('span', { class: 'mark', role: 'img', testid: 'needs-person' }, icon('alert'));
  const when = h('time', { class: 'row-age' });
  const state = h('span', { class: 'row-state', testid: 'row-state' });
  const meta = h('span', { class: 'row-meta' });
  const link = h(
    'a',
    { class: 'row', href: `#/sessions/${id}`, testid: 'session-row', 'data-session': id },
    dot,
    h('span', { class: 'row-top' }, name, mark, when),
    h('span', { class: 'row-bottom' }, state, meta),
  );
  return {
    element: h('li', {}, link),
    update(session, current) {
      const word = stateWord(session);
      const need = needsPerson(session);
      setText(name, titleOf(session));
      setText(state, session.agent_status?.reason && word === 'running' ? session.agent_status.reason.replaceAll('_', ' ') : stateText(session));
      setText(meta, `${session.agent} · ${store.hostName(session.host_id)}`);
      setText(when, age(session.created_at, Date.now()));
      when.title = `Created ${clock(session.created_at)}`;
      when.dateTime = session.created_at;
      link.dataset['state'] = word;
      show(mark, need !== null);
      mark.setAttribute('aria-label', need ?? '');
      mark.title = need ?? '';
      if (current) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    },
  };
}

function haystack(session: Session, store: Store): string {
  const labels = Object.entries(session.labels).map(([key, value]) => `${key}:${value}`);
  return [titleOf(session), session.agent, stateWord(session), store.hostName(session.host_id), session.id, ...labels].join(' ').toLowerCase();
}
