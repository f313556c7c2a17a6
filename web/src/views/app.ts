// The page around everything: the list on the left, one session on the right; on a phone one of the two. The address's fragment says which,
// so that the server needs no routes of its own and Back works.

import { api } from '../api/client.ts';
import { Store } from '../api/store.ts';
import type { Me } from '../api/types.ts';
import type { WindowSize } from '../terminal/codec.ts';
import { naturalSize, SCROLLBAR_PX, wholePixelFont } from '../terminal/size.ts';
import { fill, h, icon, iconButton, setText, show } from '../ui/dom.ts';
import { nextTheme, themeChoice } from '../ui/theme.ts';
import { toast } from '../ui/toast.ts';
import { openCreate } from './create.ts';
import { openHelp } from './help.ts';
import { SessionList } from './list.ts';
import { FONT_PX, SessionPage } from './session.ts';

/** What a session page takes of the pane for its header, strip and edges: what a new session's terminal does not get. */
const CHROME_PX = { width: 12 + SCROLLBAR_PX, height: 100 } as const;

export class App {
  readonly element: HTMLElement;
  private readonly store: Store;
  private readonly list: SessionList;
  private readonly pane = h('div', { class: 'pane' });
  private readonly liveText = h('span', { class: 'live', role: 'status', testid: 'live' });
  private readonly logOut: () => void;
  private page: SessionPage | null = null;
  private creating = false;
  private readonly onRoute = () => this.route();
  private readonly onKey = (event: KeyboardEvent) => this.key(event);

  constructor(me: Me, loggedOut: () => void) {
    this.logOut = loggedOut;
    this.store = new Store(loggedOut);
    this.list = new SessionList(this.store, () => this.page?.focus());
    const theme = iconButton('theme', '', () => this.nameTheme(theme, nextTheme()), 'theme');
    this.nameTheme(theme, themeChoice());
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
          h('a', { class: 'button primary', href: '#/new', testid: 'new-session', title: 'New session (n)' }, icon('plus'), 'New'),
        ),
        this.list.element,
        h(
          'footer',
          { class: 'side-foot' },
          this.liveText,
          h('span', { class: 'spacer' }),
          h('span', { class: 'who', title: `${me.name}, ${me.role} of ${me.organization}; AgentAPI ${me.version}` }, me.name),
          iconButton('help', 'Keyboard help (?)', openHelp, 'help'),
          theme,
          iconButton('logout', 'Log out', () => void this.leave(), 'logout'),
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
    this.route();
    // On a phone the focus would bring up the keyboard over the list.
    if (!this.page && matchMedia('(pointer: fine)').matches) this.list.focus();
  }

  dispose(): void {
    removeEventListener('hashchange', this.onRoute);
    document.removeEventListener('keydown', this.onKey);
    this.page?.dispose();
    this.list.dispose();
    this.store.stop();
  }

  private route(): void {
    const session = /^#\/sessions\/([0-9a-f-]{36})$/i.exec(location.hash)?.[1] ?? null;
    if (location.hash === '#/new') {
      this.create();
      if (this.page) return;
    }
    if (this.page && this.page.id === session) return;
    this.page?.dispose();
    this.page = null;
    this.element.dataset['page'] = session ? 'session' : 'list';
    this.list.select(session);
    if (!session) {
      document.title = 'AgentAPI';
      fill(this.pane, h('div', { class: 'welcome' }, h('p', {}, 'Choose a session, or start one.'), h('p', { class: 'hint' }, 'Press ', h('kbd', {}, '?'), ' for the keys.')));
      return;
    }
    const page = new SessionPage(session, this.store, () => this.list.focus(), this.logOut);
    this.page = page;
    fill(this.pane, page.element);
    page.open();
  }

  private create(): void {
    if (this.creating) return;
    this.creating = true;
    const back = this.page ? `#/sessions/${this.page.id}` : '#/';
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
    show(this.liveText, true);
  }

  private nameTheme(button: HTMLButtonElement, choice: string): void {
    button.setAttribute('aria-label', `Colours: ${choice}. Press to change.`);
    button.title = `Colours: ${choice}`;
  }

  private key(event: KeyboardEvent): void {
    const target = event.target as HTMLElement | null;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (target?.closest('input, textarea, select, .terminal')) return;
    if (event.key === 'n') location.hash = '#/new';
    else if (event.key === '/') this.list.focusFilter();
    else if (event.key === '?') openHelp();
    else return;
    event.preventDefault();
  }

  private async leave(): Promise<void> {
    try {
      await api.logout();
    } catch (error) {
      return toast(error instanceof Error ? error.message : 'The logout failed.', 'error');
    }
    this.logOut();
  }
}
