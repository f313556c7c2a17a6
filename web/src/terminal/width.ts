// How many cells a character takes. The screen on the host and the one in the browser must agree, or every absolute column after a
// disputed character is off by one. xterm.js' Unicode 11 table is the base; the differences to the host's newer one lie on top.

import { Unicode11Addon } from '@xterm/addon-unicode11';
import type { IUnicodeVersionProvider, Terminal } from '@xterm/xterm';
import { WIDTH_DIFFERENCES } from './width-table.ts';

export const WIDTH_VERSION = 'agentapi';

/** A character of each width in the base table: where the host disagrees, its stand-in is asked instead. */
const STAND_INS = { 0: 0x0300, 1: 0x0041, 2: 0x4e00 } as const;

export function useHostWidths(terminal: Terminal): void {
  terminal.unicode.register(hostWidths(baseProvider()));
  terminal.unicode.activeVersion = WIDTH_VERSION;
}

/** The base table under the host's corrections. */
export function hostWidths(base: IUnicodeVersionProvider): IUnicodeVersionProvider {
  const corrections = readDifferences();
  const standIn = (codepoint: number): number => {
    const width = corrections.get(codepoint);
    return width === undefined ? codepoint : STAND_INS[width];
  };
  return {
    version: WIDTH_VERSION,
    wcwidth: (codepoint) => base.wcwidth(standIn(codepoint)),
    charProperties: (codepoint, preceding) => base.charProperties(standIn(codepoint), preceding),
  };
}

/** The addon has its table only for registering, so it registers with a terminal that is not one. */
export function baseProvider(): IUnicodeVersionProvider {
  let provider: IUnicodeVersionProvider | null = null;
  const register = (given: IUnicodeVersionProvider) => {
    provider = given;
  };
  new Unicode11Addon().activate({ unicode: { register } } as unknown as Terminal);
  if (provider === null) throw new Error('xterm.js registered no Unicode 11 table');
  return provider;
}

function readDifferences(): Map<number, 0 | 1 | 2> {
  const map = new Map<number, 0 | 1 | 2>();
  for (const width of [0, 1, 2] as const) {
    for (const range of WIDTH_DIFFERENCES[width].trim().split(/\s+/)) {
      const [first = '', last = first] = range.split('-');
      for (let c = parseInt(first, 16); c <= parseInt(last, 16); c += 1) map.set(c, width);
    }
  }
  return map;
}
