// xterm.js, set up as this console needs it: the host's width rule, silent to queries, OSC 52 by consent only, links that say where they
// lead. It knows nothing of sessions or sockets; what the user types leaves through `onInput`.

import { SearchAddon } from '@xterm/addon-search';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import { Terminal } from '@xterm/xterm';
import type { WindowSize } from './codec.ts';
import type { FeedScreen } from './feed.ts';
import { silence } from './queries.ts';
import { FONT_FAMILY, SCROLLBAR_PX } from './size.ts';
import { THEME } from './theme.ts';
import { scrollByTouch } from './touch.ts';
import { useHostWidths } from './width.ts';

/** Rows kept beside the screen; the host keeps as many. */
const SCROLLBACK_ROWS = 10_000;

/** Text that a program may put on the clipboard at once. */
const CLIPBOARD_BYTES_MAX = 1024 * 1024;

export interface ScreenEvents {
  input(bytes: Uint8Array, data: string): void;
  title(title: string): void;
  /** A program wants to write the clipboard. */
  clipboard(text: string): void;
  /** A link whose text may say something else than its target. */
  link(url: string): void;
  /** Keys of the console itself; true if it took them. */
  shortcut(event: KeyboardEvent): boolean;
}

export class Screen implements FeedScreen {
  readonly terminal: Terminal;
  readonly search = new SearchAddon();
  private readonly encoder = new TextEncoder();
  private webgl: WebglAddon | null = null;
  private webglRefused = false;
  /** Glyphs drawn before their font arrived are empty boxes in the renderer's cache. */
  private readonly fontsChanged = () => this.terminal.clearTextureAtlas();

  constructor(events: ScreenEvents, fontPx: number) {
    this.terminal = new Terminal({
      allowProposedApi: true, // the search addon's decorations and the width table
      cursorBlink: false,
      fontFamily: FONT_FAMILY,
      fontSize: fontPx,
      fontWeightBold: '700',
      lineHeight: 1,
      minimumContrastRatio: 1,
      overviewRuler: { width: SCROLLBAR_PX },
      rescaleOverlappingGlyphs: true,
      scrollback: SCROLLBACK_ROWS,
      screenReaderMode: false,
      theme: THEME,
      macOptionIsMeta: true,
      linkHandler: { activate: (_event, url) => events.link(url) },
    });
    useHostWidths(this.terminal);
    silence(this.terminal.parser);
    this.terminal.loadAddon(this.search);
    this.terminal.loadAddon(new WebLinksAddon((_event, url) => openLink(url)));
    this.terminal.parser.registerOscHandler(52, (data) => {
      const text = clipboardText(data);
      if (text !== null) events.clipboard(text);
      return true;
    });
    this.terminal.onTitleChange((title) => events.title(title));
    this.terminal.onData((data) => events.input(this.encoder.encode(data), data));
    // Old mouse encodings are bytes, not text.
    this.terminal.onBinary((data) => events.input(Uint8Array.from(data, (c) => c.charCodeAt(0)), data));
    this.terminal.attachCustomKeyEventHandler((event) => !(event.type === 'keydown' && events.shortcut(event)));
  }

  open(parent: HTMLElement): void {
    this.terminal.open(parent);
    const lineHeight = () => Math.max(1, (parent.querySelector('.xterm-screen')?.clientHeight ?? 0) / this.terminal.rows);
    scrollByTouch(parent, lineHeight, (lines, at) => this.scroll(lines, at));
    document.fonts.addEventListener('loadingdone', this.fontsChanged);
  }

  /**
   * Draws with WebGL where it is there and does well: not on phones, where contexts are taken away, and not while characters are made smaller,
   * since it cuts their width down to whole pixels.
   */
  accelerate(wanted: boolean): void {
    if (!wanted) {
      this.webgl?.dispose();
      this.webgl = null;
      return;
    }
    if (this.webgl || this.webglRefused || !matchMedia('(pointer: fine)').matches) return;
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => {
        this.webglRefused = true;
        this.accelerate(false);
      });
      this.terminal.loadAddon(webgl);
      this.webgl = webgl;
    } catch {
      // xterm.js goes on with its DOM renderer.
      this.webglRefused = true;
    }
  }

  write(bytes: Uint8Array, parsed: () => void): void {
    this.terminal.write(bytes, parsed);
  }

  reset(): void {
    this.terminal.reset();
  }

  resize(size: WindowSize): void {
    if (this.terminal.cols !== size.cols || this.terminal.rows !== size.rows) this.terminal.resize(size.cols, size.rows);
  }

  /** Scrolls as a wheel would: to a program that takes the mouse, as arrows on the other screen, else through the scrollback. */
  private scroll(lines: number, at: { x: number; y: number }): void {
    const { terminal } = this;
    if (terminal.modes.mouseTrackingMode !== 'none' && terminal.modes.mouseTrackingMode !== 'x10') {
      const cell = (part: number, count: number) => Math.min(count, Math.max(1, Math.ceil(part * count)));
      const report = `\x1b[<${lines < 0 ? 64 : 65};${cell(at.x, terminal.cols)};${cell(at.y, terminal.rows)}M`;
      terminal.input(report.repeat(Math.abs(lines)));
    } else if (terminal.buffer.active.type === 'alternate') {
      for (let i = 0; i < Math.abs(lines); i += 1) this.key(lines < 0 ? 'Up' : 'Down');
    } else {
      terminal.scrollLines(lines);
    }
  }

  /** Types as if the keyboard had: arrows follow the program's cursor key mode. */
  key(name: 'Escape' | 'Tab' | 'Enter' | 'Up' | 'Down' | 'Left' | 'Right'): void {
    const arrows = { Up: 'A', Down: 'B', Right: 'C', Left: 'D' } as const;
    const plain = { Escape: '\x1b', Tab: '\t', Enter: '\r' } as const;
    if (name in plain) return this.terminal.input(plain[name as keyof typeof plain]);
    const application = this.terminal.modes.applicationCursorKeysMode;
    this.terminal.input(`\x1b${application ? 'O' : '['}${arrows[name as keyof typeof arrows]}`);
  }

  dispose(): void {
    document.fonts.removeEventListener('loadingdone', this.fontsChanged);
    this.webgl?.dispose();
    this.terminal.dispose();
  }
}

/** Opens a web address in a tab that knows nothing of this one. */
export function openLink(url: string): void {
  if (/^(https?|mailto):/i.test(url)) window.open(url, '_blank', 'noopener,noreferrer');
}

/** The text of an OSC 52 write; `null` for a query, which would leak the clipboard, and for what is not base64. */
export function clipboardText(data: string): string | null {
  const content = data.slice(data.indexOf(';') + 1);
  if (content === '?' || content === '' || content.length > CLIPBOARD_BYTES_MAX) return null;
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(content), (c) => c.charCodeAt(0)));
  } catch {
    return null;
  }
}
