// The state of an xterm.js terminal in a form that can be compared: what its API shows, and of its core what no other way shows.
import type { IBuffer, IBufferCell, Terminal } from '@xterm/headless';

export type State = Readonly<Record<string, unknown>>;

/** Of the core of xterm.js; the lock file pins it, and `core` notices when a name is gone. */
interface Core {
  readonly coreService: { readonly isCursorHidden: boolean; readonly decPrivateModes: Readonly<Record<string, unknown>> };
  readonly coreMouseService: { readonly activeProtocol: string; readonly activeEncoding: string };
  readonly _oscLinkService: { getLinkData(id: number): { uri: string } | undefined };
  readonly _bufferService: { readonly buffer: CoreBuffer };
  readonly _inputHandler: { onColor(listener: (changes: readonly ColourChange[]) => void): void };
}

/** 0: a query; 1: another colour; 2: as it was, all of the palette without an index. */
interface ColourChange {
  readonly type: 0 | 1 | 2;
  readonly index?: number;
  readonly color?: readonly number[];
}

interface CoreBuffer {
  readonly scrollTop: number;
  readonly scrollBottom: number;
  readonly savedX: number;
  readonly savedY: number;
}

/** Attributes of a cell that the API leaves out. */
interface ExtendedCell {
  readonly extended: { readonly underlineStyle: number; readonly underlineColor: number; readonly urlId: number };
}

export function readState(terminal: Terminal): State {
  const core = coreOf(terminal);
  const { scrollTop, scrollBottom, savedX, savedY } = core._bufferService.buffer;
  const { active, normal, alternate } = terminal.buffer;
  return {
    active: active.type,
    cursor: [active.cursorX, active.cursorY],
    saved: [savedX, savedY],
    region: [scrollTop, scrollBottom],
    primary: readBuffer(normal, core),
    // What an alternate screen held that was left is shown to nobody.
    alternate: active.type === 'alternate' ? readBuffer(alternate, core) : null,
    modes: { ...terminal.modes },
    decModes: { ...core.coreService.decPrivateModes },
    cursorBlink: terminal.options.cursorBlink,
    cursorHidden: core.coreService.isCursorHidden,
    mouse: [core.coreMouseService.activeProtocol, core.coreMouseService.activeEncoding],
  };
}

/** The colours that differ from the theme, as whoever draws the terminal is told of them; xterm.js keeps them with its renderer. */
export function followColours(terminal: Terminal): ReadonlyMap<string, string> {
  const colours = new Map<string, string>();
  coreOf(terminal)._inputHandler.onColor((changes) => {
    for (const { type, index, color } of changes) {
      if (type === 1) colours.set(`${index}`, `${color}`);
      if (type === 2 && index !== undefined) colours.delete(`${index}`);
      if (type === 2 && index === undefined) for (let i = 0; i < 256; i += 1) colours.delete(`${i}`);
    }
  });
  return colours;
}

function coreOf(terminal: Terminal): Core {
  const core = (terminal as unknown as { _core: Core })._core;
  const { buffer } = core._bufferService;
  const known: readonly unknown[] = [core.coreService.isCursorHidden, core.coreMouseService.activeProtocol, core._oscLinkService.getLinkData, buffer.scrollTop, buffer.savedX];
  if (known.includes(undefined)) throw new Error('xterm.js has changed inside: this file must follow');
  return core;
}

/** Every row, scrollback included; `+` stands in front of those that the row above wraps into. */
function readBuffer(buffer: IBuffer, core: Core): string[] {
  return Array.from({ length: buffer.length }, (_, row) => {
    const line = buffer.getLine(row);
    if (!line) return 'no line';
    const cells = Array.from({ length: line.length }, (_, col) => readCell(line.getCell(col), core));
    return (line.isWrapped ? '+' : ' ') + cells.join('').trimEnd();
  });
}

/** The character, and behind it its attributes. */
function readCell(cell: IBufferCell | undefined, core: Core): string {
  if (!cell) return '?';
  const chars = cell.getWidth() === 0 ? '' : cell.getChars() || ' ';
  const blank = chars === ' ';
  const attributes: string[] = [];
  const add = (name: string, value: number) => value !== 0 && attributes.push(`${name}${value}`);
  if (!cell.isBgDefault()) attributes.push(`bg${cell.getBgColorMode()}:${cell.getBgColor()}`);
  add('inverse', cell.isInverse());
  add('strike', cell.isStrikethrough());
  if (cell.isUnderline()) {
    const { underlineStyle, underlineColor } = (cell as unknown as ExtendedCell).extended;
    attributes.push(`underline${underlineStyle}:${underlineColor}`);
  }
  const { urlId } = (cell as unknown as ExtendedCell).extended;
  if (urlId !== 0) attributes.push(`link:${core._oscLinkService.getLinkData(urlId)?.uri}`);
  // What else a cell has cannot be seen where there is no character.
  if (!blank || cell.isInverse()) {
    if (!cell.isFgDefault()) attributes.push(`fg${cell.getFgColorMode()}:${cell.getFgColor()}`);
    add('bold', cell.isBold());
    add('italic', cell.isItalic());
    add('dim', cell.isDim());
    add('blink', cell.isBlink());
    add('hidden', cell.isInvisible());
  }
  return attributes.length === 0 ? chars : `${chars}{${attributes.join(' ')}}`;
}
