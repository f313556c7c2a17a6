// The page around everything: the list on the left, one session or one page of the organisation on the right; on a phone one of the two. The
// address's fragment says which, so that the server needs no routes of its own and Back works.

import { Rights } from '../api/rights.ts';
import { Store } from '../api/store.ts';
import type { Me } from '../api/types.ts';
import type { WindowSize } from '../terminal/codec.ts';
import { naturalSize, SCROLLBAR_PX, wholePixelFont } from '../terminal/size.ts';
import { fill, h, icon, iconButton, setText } from '../ui/dom.ts';
import { nextTheme, themeChoice } from '../ui/theme.ts';
import { openCreate } from './create.ts';
import { openHelp } from './help.ts';
import { SessionList } from './list.ts';
import { organizationRow, personMenu } from './menus.ts';
import { OrganizationPages, organizationRoute } from './organization/pages.ts';
import { RecordPage } from './record.ts';
import { FONT_PX, SessionPage } from './session.ts';

/** What a session page takes of the pane for its header, strip and edges: what a new session's terminal does not get. */
const CHROME_PX = { width: 12 + SCROLLBAR_PX, height: 100 } as const;

export interface AppEvents {
  loggedOut(): void;
  /** The login is over: by its time, or because somebody ended it. */
  expired(): void;
  /** What one is here is not what it was. */
  changed(): void;
  /** One goes to another organisation. */
  moved(organization: string): void;
}

export class App {
  readonly element: HTMLElement;
  private readonly me: Me;
  private readonly rights: Rights;
  private readonly events: AppEvents;
  private readonly store: Store;
  private readonly list: SessionList;
  private readonly pane = h('div', { class: 'pane' });
  private readonly liveText = h('span', { class: 'live', role: 'status', testid: 'live' });
  private readonly place: HTMLElement;
  private page: SessionPage | RecordPage | null = null;
  private pages: OrganizationPages | null = null;
  private creating = false;
  private readonly onRoute = () => this.route();
  private readonly onKey = (event: KeyboardEvent) => this.key(event);

  constructor(me: Me, events: AppEvents) {
    this.me = me;
    this.events = events;
    this.rights = new Rights(me);
    this.store = new Store(
      me,
      () => events.expired(),
      () => events.changed(),
    );
    this.list = new SessionList(this.store, this.rights, () => this.focusPage());
    this.place = organizationRow(me, this.rights, (organization) => events.moved(organization));
    const theme = iconButton('theme', '', () => this.nameTheme(theme, nextTheme()), 'theme');
    this.nameTheme(theme, themeChoice());
    const create = this.rights.may('session.create')
      ? h('a', { class: 'button primary', href: '#/new', testid: 'new-session', title: 'New session (n)' }, icon('plus'), 'New')
      : null;
    this.element = h(
      'div',
      { class: 'app', testid: 'app' },
      h(
        'aside',
        { class: 'side' },
        h(
          'header',
          { class: 'side-head' },
          h('a', { class: 'brand', href: '#/' }, h('span', { class: 'brand-mark', 'aria-hidden': 'true' }, '❯_'), 'AgentAPI'),
          h('span', { class: 'spacer' }),
          create,
        ),
        this.place,
        this.list.element,
        h(
          'footer',
          { class: 'side-foot' },
          this.liveText,
          h('span', { class: 'spacer' }),
          personMenu(me, () => events.loggedOut()),
          iconButton('help', 'Keyboard help (?)', openHelp, 'help'),
          theme,
        ),
      ),
      this.pane,
    );
    this.store.subscribe(() => this.renderLive());
  }

  start(): void {
    addEventListener('hashchange', this.onRoute);
    document.addEventListener('keydown', this.onKey);
    this.store.start();
    // An auditor's work is the trail; there is nothing for them to open among the sessions.
    if (['', '#/'].includes(location.hash) && !this.rights.may('terminal.view') && this.rights.may('audit.read')) history.replaceState(null, '', '#/audit');
    this.route();
    // On a phone the focus would bring up the keyboard over the list.
    if (!this.page && !this.pages && matchMedia('(pointer: fine)').matches) this.list.focus();
  }

  dispose(): void {
    removeEventListener('hashchange', this.onRoute);
    document.removeEventListener('keydown', this.onKey);
    this.page?.dispose();
    this.pages?.dispose();
    this.list.dispose();
    this.store.stop();
  }

  private route(): void {
    const { hash } = location;
    if (hash === '#/new') {
      this.create();
      if (this.page || this.pages) return;
    }
    const session = /^#\/sessions\/([0-9a-f-]{36})$/i.exec(hash)?.[1] ?? null;
    const organization = organizationRoute(hash, this.rights);
    if (this.page && this.page.id === session) return;
    this.page?.dispose();
    this.page = null;
    if (organization === null) {
      this.pages?.dispose();
      this.pages = null;
    }
    this.element.dataset['page'] = session ? 'session' : organization ? 'organization' : 'list';
    this.list.select(session);
    const link = this.place.querySelector('.place-link');
    if (organization) link?.setAttribute('aria-current', 'page');
    else link?.removeAttribute('aria-current');
    if (session) this.openSession(session);
    else if (organization) this.openOrganization(organization, hash);
    else this.welcome();
  }

  private openSession(id: string): void {
    if (!this.rights.may('terminal.view')) {
      this.page = new RecordPage(id, this.store, this.rights);
      fill(this.pane, this.page.element);
      return;
    }
    const page = new SessionPage(
      id,
      this.store,
      this.rights,
      () => this.list.focus(),
      () => this.events.changed(),
    );
    this.page = page;
    fill(this.pane, page.element);
    page.open();
  }

  private openOrganization(name: string, hash: string): void {
    this.pages ??= new OrganizationPages({ me: this.me, rights: this.rights, store: this.store, changed: () => this.events.changed() });
    if (!this.pane.contains(this.pages.element)) fill(this.pane, this.pages.element);
    this.pages.show(name, hash);
  }

  private welcome(): void {
    document.title = 'AgentAPI';
    const what = this.rights.may('session.create') ? 'Choose a session, or start one.' : 'Choose a session.';
    fill(this.pane, h('div', { class: 'welcome' }, h('p', {}, what), h('p', { class: 'hint' }, 'Press ', h('kbd', {}, '?'), ' for the keys.')));
  }

  private focusPage(): void {
    if (this.page instanceof SessionPage) this.page.focus();
  }

  private create(): void {
    if (this.creating) return;
    if (!this.rights.may('session.create')) {
      location.hash = '#/';
      return;
    }
    this.creating = true;
    const back = this.page ? `#/sessions/${this.page.id}` : this.pages ? '#/organization' : '#/';
    openCreate(
      this.store,
      () => this.paneSize(),
      (session) => {
        this.store.put(session);
        location.hash = `#/sessions/${session.id}`;
      },
      () => {
        this.creating = false;
        if (location.hash === '#/new') location.hash = back;
      },
    );
  }

  /** The size a terminal would have here; a phone's list hides the pane, and its window is what there is. */
  private paneSize(): WindowSize | null {
    const width = this.pane.clientWidth || innerWidth;
    const height = this.pane.clientHeight || innerHeight;
    return naturalSize(width - CHROME_PX.width, height - CHROME_PX.height, wholePixelFont(FONT_PX));
  }

  private renderLive(): void {
    const { live } = this.store;
    this.liveText.dataset['live'] = live;
    setText(this.liveText, live === 'live' ? 'Live' : live === 'lost' ? 'Reconnecting…' : 'Connecting…');
  }

  private nameTheme(button: HTMLButtonElement, choice: string): void {
    button.setAttribute('aria-label', `Colours: ${choice}. Press to change.`);
    button.title = `Colours: ${choice}`;
  }

  private key(event: KeyboardEvent): void {
    const target = event.target as HTMLElement | null;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (target?.closest('input, textarea, select, .terminal')) return;
    if (event.key === 'n' && this.rights.may('session.create')) location.hash = '#/new';
    else if (event.key === '/') this.list.focusFilter();
    else if (event.key === 'o') location.hash = '#/organization';
    else if (event.key === '?') openHelp();
    else return;
    event.preventDefault();
  }
}
