// One open terminal: screen, feed and connection put together. It owns how large the characters are and when the server is told what would
// fit; what it finds out (status, verdicts, who owns the size) it hands to the page around it.

import { isPossible, type WindowSize } from './codec.ts';
import { TerminalConnection, type ConnectionStatus } from './connection.ts';
import { Feed, HoleError } from './feed.ts';
import type { Resume, ServerMessage, ViewerMode } from './messages.ts';
import { isMouse, isPassive } from './reports.ts';
import { Screen } from './screen.ts';
import { fittingFont, naturalSize, SCROLLBAR_PX, wholePixelFont } from './size.ts';

/** A window being dragged changes at every frame; the program should lay itself out once. */
const RESIZE_QUIET_MS = 100;

export type SizeOwner = 'me' | 'other' | 'nobody';

export interface ViewEvents {
  status(status: ConnectionStatus): void;
  message(message: ServerMessage): void;
  /** How output went on after a reconnect. */
  resumed(verdict: Resume): void;
  /** This page was slower than the program, and output was left out. */
  skipped(): void;
  size(session: WindowSize, natural: WindowSize, owner: SizeOwner): void;
  inputLost(bytes: number, why: string): void;
  title(title: string): void;
  clipboard(text: string): void;
  link(url: string): void;
  shortcut(event: KeyboardEvent): boolean;
}

export class TerminalView {
  readonly element: HTMLElement;
  readonly screen: Screen;
  private readonly events: ViewEvents;
  private readonly feed: Feed;
  private readonly connection: TerminalConnection;
  private readonly observer: ResizeObserver;
  private readonly preferredPx: number;
  private timer: number | undefined;
  private viewer: number | null = null;
  private owner: SizeOwner = 'nobody';
  private natural: WindowSize = { cols: 0, rows: 0 };
  private fontPx: number;
  private hadSpawn = false;
  /** The next character is typed with Ctrl held: the phone's key bar. */
  private stickyCtrl: (() => void) | null = null;

  constructor(element: HTMLElement, session: string, mode: ViewerMode, preferredPx: number, events: ViewEvents) {
    this.element = element;
    this.events = events;
    this.preferredPx = wholePixelFont(preferredPx);
    this.fontPx = this.preferredPx;
    this.screen = new Screen(
      {
        input: (bytes, data) => this.input(bytes, data),
        title: (title) => events.title(title),
        clipboard: (text) => events.clipboard(text),
        link: (url) => events.link(url),
        shortcut: (event) => events.shortcut(event),
      },
      this.preferredPx,
    );
    this.feed = new Feed(
      { write: (bytes, parsed) => this.screen.write(bytes, parsed), reset: () => this.screen.reset(), resize: (size) => this.resized(size) },
      (position) => this.connection.send({ type: 'ack', ...position }),
    );
    this.connection = new TerminalConnection(session, mode, {
      message: (message) => this.receive(message),
      frame: (frame) => {
        if (frame.kind === 'output') return this.feed.output(frame);
        if (frame.skipped) events.skipped();
        this.feed.keyframe(frame);
      },
      status: (status) => events.status(status),
      inputLost: (bytes, why) => events.inputLost(bytes, why),
      position: () => this.feed.position(),
    });
    this.observer = new ResizeObserver(() => this.areaChanged());
  }

  /** Needs the element to be on the page and the font to be loaded: xterm.js measures both. */
  open(): void {
    this.screen.open(this.element);
    this.fit();
    this.observer.observe(this.element);
    this.connection.connect();
  }

  takeSize(): void {
    this.connection.wantSize(this.natural);
    this.connection.send({ type: 'take_size' });
  }

  setMode(mode: ViewerMode): void {
    this.connection.setMode(mode);
  }

  retryNow(): void {
    this.connection.retryNow();
  }

  setStickyCtrl(used: (() => void) | null): void {
    this.stickyCtrl = used;
  }

  focus(): void {
    this.screen.terminal.focus();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.observer.disconnect();
    this.connection.close();
    this.screen.dispose();
  }

  private receive(message: ServerMessage): void {
    switch (message.type) {
      case 'hello':
        this.viewer = message.viewer;
        // Said only when it changes from nobody.
        this.owner = 'nobody';
        this.report();
        break;
      case 'spawn': {
        this.feed.begin(message.spawn, message.resume === 'resumed' ? message.offset : null, message.size);
        // Said anew on every connection: the server applies it when this viewer owns the size.
        this.connection.wantSize(this.natural);
        if (this.hadSpawn) this.events.resumed(message.resume);
        this.hadSpawn = true;
        break;
      }
      case 'resized':
        this.feed.resized(message.spawn, message.size);
        break;
      case 'size_owner':
        this.owner = message.viewer === null ? 'nobody' : message.viewer === this.viewer ? 'me' : 'other';
        this.report();
        break;
      default:
    }
    this.events.message(message);
  }

  private input(bytes: Uint8Array, data: string): void {
    // Typing takes the size; clicking into the page or crossing it is not typing. Only the owner tells the program of that.
    if (isPassive(data) && (this.owner !== 'me' || !this.connection.canType())) return;
    if (isMouse(data) && !this.connection.canType()) return;
    let typed = bytes;
    if (this.stickyCtrl && bytes.length === 1) {
      typed = withCtrl(bytes[0] ?? 0);
      this.stickyCtrl();
    }
    this.connection.type(typed);
  }

  private resized(size: WindowSize): void {
    if (!isPossible(size)) throw new HoleError('impossible size');
    this.screen.resize(size);
    this.fit();
  }

  private areaChanged(): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      const before = this.natural;
      this.fit();
      if (before.cols !== this.natural.cols || before.rows !== this.natural.rows) this.connection.wantSize(this.natural);
    }, RESIZE_QUIET_MS);
  }

  /** Chooses the characters' size so that the whole of the session's size is visible here. */
  private fit(): void {
    const height = this.element.clientHeight;
    const width = this.element.clientWidth - SCROLLBAR_PX;
    if (width <= 0 || height === 0) return;
    this.natural = naturalSize(width, height, this.preferredPx);
    const { terminal } = this.screen;
    const fontPx = fittingFont({ cols: terminal.cols, rows: terminal.rows }, width, height, this.preferredPx);
    this.screen.accelerate(fontPx === this.preferredPx);
    if (fontPx !== this.fontPx) {
      this.fontPx = fontPx;
      terminal.options.fontSize = fontPx;
    }
    this.report();
  }

  private report(): void {
    const { cols, rows } = this.screen.terminal;
    this.events.size({ cols, rows }, this.natural, this.owner);
  }
}

/** The control character of a key, as keyboards have it: letters and `@[\\]^_`, space is NUL, `?` is DEL; others stay themselves. */
export function withCtrl(key: number): Uint8Array {
  if (key === 0x3f) return Uint8Array.of(0x7f);
  return Uint8Array.of(key === 0x20 || (key >= 0x40 && key < 0x7f) ? key & 0x1f : key);
}
