// The page of one session: its header with what can be done, the terminal, and the strip that says what is shown. Which buttons there are
// follows from the session's state in the store; what the terminal's connection learns is shown over it.

import type { Rights } from '../api/rights.ts';
import type { Store } from '../api/store.ts';
import { isEnded, type Session } from '../api/types.ts';
import type { ConnectionStatus } from '../terminal/connection.ts';
import type { ServerMessage, ViewerMode } from '../terminal/messages.ts';
import type { SizeOwner } from '../terminal/view.ts';
import { TerminalView } from '../terminal/view.ts';
import type { WindowSize } from '../terminal/codec.ts';
import { ask, menuButton, type MenuItem } from '../ui/dialog.ts';
import { fill, h, icon, iconButton, setText, show } from '../ui/dom.ts';
import { asSentence, exitSentence, postureSentence, stateText, stateWord, titleOf } from '../ui/format.ts';
import { toast } from '../ui/toast.ts';
import { openLink } from '../terminal/screen.ts';
import { Banner } from './banner.ts';
import { Clipboard } from './clipboard.ts';
import { keyBar } from './keybar.ts';
import { SearchBar } from './search.ts';
import { SessionActions } from './actions.ts';

export const FONT_PX = 13;

/** A program may set a title of any length; this much is shown. */
const TITLE_CHARS_MAX = 200;

export class SessionPage {
  readonly element: HTMLElement;
  readonly id: string;
  private readonly store: Store;
  private readonly rights: Rights;
  private readonly leave: () => void;
  private readonly actions: SessionActions;
  private readonly area = h('div', { class: 'terminal', testid: 'terminal' });
  private readonly banner = new Banner();
  private readonly name = h('h1', { testid: 'session-title' });
  private readonly state = h('span', { class: 'chip', testid: 'session-state' });
  private readonly posture = h('span', { class: 'chip', hidden: true, testid: 'posture' });
  private readonly meta = h('span', { class: 'session-meta', testid: 'session-meta' });
  private readonly buttons = h('div', { class: 'toolbar' });
  private readonly ended = h('div', { class: 'ended', hidden: true, testid: 'ended' });
  private readonly link = h('span', { class: 'link-state', testid: 'connection' }, 'Connecting…');
  private readonly sizeText = h('span', { class: 'size-text', testid: 'size' });
  private readonly sizeButton: HTMLButtonElement;
  private readonly modeButton: HTMLButtonElement;
  private readonly stopButton: HTMLButtonElement;
  private readonly forceButton: HTMLButtonElement;
  private readonly search: SearchBar;
  private readonly view: TerminalView;
  private readonly unsubscribe: () => void;
  private mode: ViewerMode;
  private lost = false;
  private title = '';

  /** `changed` is called when the login is over, or one is something else in the organisation than when the terminal was opened. */
  constructor(id: string, store: Store, rights: Rights, leave: () => void, changed: () => void) {
    this.id = id;
    this.store = store;
    this.rights = rights;
    // Whoever may only watch is not let in to type.
    this.mode = rights.may('terminal.type') ? 'rw' : 'ro';
    this.leave = leave;
    this.actions = new SessionActions(id, store);
    const clipboard = new Clipboard();
    this.view = new TerminalView(this.area, id, this.mode, FONT_PX, {
      status: (status) => (status.kind === 'closed' && status.why === 'unauthorized' ? changed() : this.status(status)),
      message: (message) => this.message(message),
      resumed: (verdict) => this.resumed(verdict),
      skipped: () => this.banner.set('skipped', 'warn', 'Some output was skipped: the program was faster than this page.'),
      size: (session, natural, owner) => this.size(session, natural, owner),
      inputLost: (bytes, why) => this.inputLost(bytes, why),
      title: (title) => this.programTitle(title),
      clipboard: (text) => clipboard.programWrites(text),
      link: (url) => void ask({ title: 'Open this link?', text: url, confirm: 'Open' }).then((yes) => yes && openLink(url)),
      shortcut: (event) => this.shortcut(event, clipboard),
    });
    this.search = new SearchBar(this.view.screen.search, () => this.view.focus());
    this.sizeButton = h(
      'button',
      { type: 'button', class: 'button small', testid: 'take-size', onclick: () => this.view.takeSize() },
      icon('fit'),
      'Take size',
    );
    this.modeButton = h('button', { type: 'button', class: 'button small', testid: 'read-only', onclick: () => this.toggleMode() });
    this.stopButton = h('button', { type: 'button', class: 'button', testid: 'stop', onclick: () => void this.actions.stop() }, icon('stop'), 'Stop');
    this.forceButton = h(
      'button',
      { type: 'button', class: 'button danger', testid: 'force-stop', onclick: () => void this.actions.forceStop() },
      'Force stop',
    );
    this.element = this.layout(clipboard);
    this.showMode();
    this.unsubscribe = store.subscribe(() => this.render());
    this.render();
  }

  /** After the element is on the page. */
  open(): void {
    this.view.open();
    // On a phone the keyboard comes when the terminal is tapped: first one wants to see it.
    if (matchMedia('(pointer: fine)').matches) this.view.focus();
  }

  focus(): void {
    this.view.focus();
  }

  dispose(): void {
    this.unsubscribe();
    this.view.dispose();
  }

  private layout(clipboard: Clipboard): HTMLElement {
    const more = iconButton('more', 'More', () => undefined, 'session-menu');
    const menu = menuButton(more, () => this.menu(clipboard));
    fill(
      this.buttons,
      iconButton('search', 'Search output (Ctrl+Shift+F)', () => this.search.open(), 'open-search'),
      this.stopButton,
      this.forceButton,
      menu,
    );
    return h(
      'main',
      { class: 'session', testid: 'session-page' },
      h(
        'header',
        { class: 'session-head' },
        h('a', { class: 'icon-button back', href: '#/', 'aria-label': 'All sessions', title: 'All sessions' }, icon('back')),
        h('div', { class: 'session-title' }, h('div', { class: 'session-name' }, this.name, this.state, this.posture), this.meta),
        this.buttons,
      ),
      h('div', { class: 'terminal-frame' }, this.banner.element, this.search.element, this.area),
      this.ended,
      h('footer', { class: 'strip' }, this.link, this.modeButton, h('span', { class: 'spacer' }), this.sizeText, this.sizeButton),
      keyBar(this.view),
    );
  }

  private menu(clipboard: Clipboard): MenuItem[] {
    const session = this.store.sessions.get(this.id);
    const over = session ? isEnded(session.state) : true;
    const isShared = session?.visibility === 'organization';
    const own: MenuItem[] = [
      { label: 'Rename…', testid: 'menu-rename', run: () => void this.actions.rename() },
      { label: isShared ? 'Make private…' : 'Share…', testid: 'menu-share', run: () => void this.actions.share(!isShared) },
      over
        ? { label: 'Restart', testid: 'menu-restart', run: () => void this.actions.restart(false) }
        : { label: 'Stop and restart…', testid: 'menu-restart', run: () => void this.actions.restart(true) },
      { label: 'Purge…', testid: 'menu-purge', danger: true, run: () => void this.purge() },
    ];
    const anybodys: MenuItem[] = [
      { label: 'Copy selection', testid: 'menu-copy', run: () => void clipboard.copy(this.view.screen.terminal) },
      ...(this.mode === 'rw' ? [{ label: 'Paste', testid: 'menu-paste', run: () => void clipboard.paste(this.view.screen.terminal) }] : []),
      { label: 'Copy session id', testid: 'menu-copy-id', run: () => void clipboard.write(this.id, 'Session id copied.') },
    ];
    return session && this.rights.manages(session) ? [...anybodys, ...own] : anybodys;
  }

  private render(): void {
    const session = this.store.sessions.get(this.id);
    if (!session) {
      if (this.store.loaded) this.gone();
      return;
    }
    const word = stateWord(session);
    setText(this.name, titleOf(session));
    document.title = `${titleOf(session)} · AgentAPI`;
    setText(this.state, stateText(session));
    this.state.dataset['state'] = word;
    const spawns = session.spawns.length > 1 ? ` · run ${session.spawns.length}` : '';
    const said = this.title === '' ? '' : ` · ${this.title}`;
    const shared = session.visibility === 'organization' ? ' · shared' : '';
    setText(this.meta, `${session.agent} · ${this.store.hostName(session.host_id)}${shared}${spawns}${said}`);
    this.meta.title = session.command.join(' ');
    this.renderPosture(session);
    const over = isEnded(session.state);
    const manages = this.rights.manages(session);
    show(this.stopButton, manages && !over && session.state !== 'stopping');
    show(this.forceButton, manages && session.state === 'stopping');
    if (session.unreachable && !over) this.banner.set('unreachable', 'bad', 'The host is not connected: the agent goes on there, but output and input wait.');
    else this.banner.clear('unreachable');
    // Such as that no host is connected.
    const waits = (session.state === 'pending' || session.state === 'starting') && session.state_reason !== null;
    if (waits) this.banner.set('pending', 'info', asSentence(session.state_reason ?? ''));
    else this.banner.clear('pending');
    this.renderEnded(session, over);
  }

  /** How it is isolated; what is missing stands there in words, and is not only shown on hovering. */
  private renderPosture(session: Session): void {
    const { sandbox } = session;
    show(this.posture, sandbox !== null);
    if (sandbox === null) return;
    const words = sandbox.isolation === 'none' ? ['no isolation', ...sandbox.degraded] : [sandbox.profile, ...sandbox.degraded];
    setText(this.posture, words.join(' · '));
    this.posture.dataset['degraded'] = String(sandbox.isolation === 'none' || sandbox.degraded.length > 0);
    this.posture.title = postureSentence(sandbox);
  }

  /** What the program calls itself. Agents say there what they are at. */
  private programTitle(title: string): void {
    this.title = title.slice(0, TITLE_CHARS_MAX);
    this.render();
  }

  private renderEnded(session: Session, over: boolean): void {
    show(this.ended, over);
    this.element.dataset['over'] = String(over);
    if (!over) return;
    const text = session.exit ? exitSentence(session.state, session.exit) : (session.state_reason ?? exitSentence(session.state, null));
    if (this.ended.dataset['text'] === text) return;
    this.ended.dataset['text'] = text;
    this.ended.dataset['state'] = session.state;
    fill(this.ended, h('p', { testid: 'exit-reason' }, text), ...(this.rights.manages(session) ? this.endedButtons() : []));
  }

  private endedButtons(): HTMLElement[] {
    return [
      h('button', { type: 'button', class: 'button', testid: 'restart', onclick: () => void this.actions.restart(false) }, icon('restart'), 'Restart'),
      h('button', { type: 'button', class: 'button quiet', testid: 'purge', onclick: () => void this.purge() }, icon('trash'), 'Purge'),
    ];
  }

  private status(status: ConnectionStatus): void {
    this.link.dataset['kind'] = status.kind;
    switch (status.kind) {
      case 'connecting':
        setText(this.link, status.again ? 'Reconnecting…' : 'Connecting…');
        break;
      case 'open':
        setText(this.link, 'Connected');
        this.banner.clear('lost');
        break;
      case 'waiting': {
        this.lost = true;
        setText(this.link, 'Not connected');
        const retry = h('button', { type: 'button', class: 'button small', onclick: () => this.view.retryNow() }, 'Retry now');
        this.banner.set('lost', 'warn', `${status.why} Reconnecting; the agent goes on meanwhile.`, retry);
        break;
      }
      case 'closed':
        setText(this.link, 'Closed');
        if (status.why === 'gone') this.gone();
        break;
      default:
    }
  }

  private resumed(verdict: 'fresh' | 'resumed' | 'gap'): void {
    const { lost } = this;
    this.lost = false;
    if (verdict === 'gap') this.banner.set('resume', 'warn', 'Reconnected: gap. Some output was skipped; this is the current screen.');
    // A change of mode connects anew as well, and a restarted session begins afresh: nobody has to hear of that.
    else if (lost && verdict === 'resumed') this.banner.set('resume', 'good', 'Reconnected: resumed. Nothing was missed.');
  }

  private message(message: ServerMessage): void {
    if (message.type === 'spawn') this.area.dataset['spawn'] = String(message.spawn);
    if (message.type === 'state' && !message.reachable)
      this.banner.set('unreachable', 'bad', 'The host is not connected: the agent goes on there, but output and input wait.');
    if (message.type === 'state' && message.reachable) this.banner.clear('unreachable');
  }

  private size(session: WindowSize, natural: WindowSize, owner: SizeOwner): void {
    const differs = session.cols !== natural.cols || session.rows !== natural.rows;
    const who = owner === 'me' ? 'your size' : owner === 'other' ? 'another’s size' : differs ? 'not fitted' : 'fits';
    setText(this.sizeText, `${session.cols}×${session.rows} · ${who}`);
    this.sizeText.dataset['owner'] = owner;
    show(this.sizeButton, this.mode === 'rw' && owner !== 'me' && differs);
    this.sizeButton.title = `Lay the terminal out for this window: ${natural.cols}×${natural.rows}`;
  }

  private inputLost(bytes: number, why: string): void {
    if (why === 'read_only')
      return toast(
        this.rights.may('terminal.type')
          ? 'This page is read-only: nothing is typed. Turn it off below the terminal.'
          : 'Your role looks only: nothing is typed.',
        'info',
        'input',
      );
    const session = this.store.sessions.get(this.id);
    if (session && isEnded(session.state)) return toast('Not typed: the session has ended.', 'info', 'input');
    const reason = why === 'not_connected' ? 'there is no connection' : why;
    toast(`${bytes} ${bytes === 1 ? 'byte' : 'bytes'} of input may not have arrived: ${reason}`, 'error', 'input');
  }

  private toggleMode(): void {
    this.mode = this.mode === 'rw' ? 'ro' : 'rw';
    this.view.setMode(this.mode);
    this.showMode();
    this.view.focus();
  }

  private showMode(): void {
    const readOnly = this.mode === 'ro';
    this.element.dataset['mode'] = this.mode;
    this.modeButton.setAttribute('aria-pressed', String(readOnly));
    this.modeButton.disabled = !this.rights.may('terminal.type');
    this.modeButton.title = this.modeButton.disabled
      ? 'Your role looks only.'
      : readOnly
        ? 'You look only. Press to type again.'
        : 'You can type. Press to look only.';
    fill(this.modeButton, icon(readOnly ? 'lock' : 'unlock'), readOnly ? 'Read-only' : 'Can type');
  }

  private shortcut(event: KeyboardEvent, clipboard: Clipboard): boolean {
    if (!(event.ctrlKey && event.shiftKey) || event.altKey || event.metaKey) return false;
    switch (event.code) {
      case 'KeyC':
        void clipboard.copy(this.view.screen.terminal);
        break;
      case 'KeyV':
        // Left to the browser: its paste event reaches xterm.js, and asks for no permission.
        return true;
      case 'KeyF':
        this.search.open();
        break;
      case 'KeyL':
        this.leave();
        break;
      default:
        return false;
    }
    event.preventDefault();
    return true;
  }

  private gone(): void {
    toast('The session is not there any more: it was purged, or is private now.', 'info', 'gone');
    location.hash = '#/';
  }

  private async purge(): Promise<void> {
    if (await this.actions.purge()) location.hash = '#/';
  }
}
