// Keeps this viewer silent. Programs ask their terminal questions (what are you, where is the cursor, what is your background); the host
// answers each of them once, from its own screen. An answer from xterm.js as well would arrive as keystrokes that nobody typed, once for
// every open browser. So every query is taken out of the stream here, before xterm.js sees it.

import type { IDisposable, IFunctionIdentifier, IParser } from '@xterm/xterm';

/** CSI sequences that are questions and nothing else. */
const CSI_QUERIES: readonly IFunctionIdentifier[] = [
  { final: 'c' }, // DA1
  { prefix: '>', final: 'c' }, // DA2
  { prefix: '=', final: 'c' }, // DA3
  { final: 'n' }, // DSR, CPR
  { prefix: '?', final: 'n' }, // DECXCPR and the colour scheme, keyboard, printer reports
  { prefix: '>', final: 'q' }, // XTVERSION
  { intermediates: '$', final: 'p' }, // DECRQM, ANSI modes
  { prefix: '?', intermediates: '$', final: 'p' }, // DECRQM, private modes
  { final: 'x' }, // DECREQTPARM
  { prefix: '?', final: 'u' }, // kitty keyboard flags
  { prefix: '?', final: 'm' }, // XTQMODKEYS
  { prefix: '?', final: 'S' }, // XTSMGRAPHICS
  { intermediates: '*', final: 'y' }, // DECRQCRA
  { intermediates: '&', final: 'u' }, // DECRQUPSS
  { intermediates: '$', final: 'w' }, // DECRQPSR
  { intermediates: '+', final: 'x' }, // DECRQPKFM
];

/** Window operations (`CSI Ps t`) that are reports; the others change nothing here or are the title stack. */
const WINDOW_REPORTS: ReadonlySet<number> = new Set([11, 13, 14, 15, 16, 18, 19, 20, 21]);

/** DCS requests: DECRQSS, XTGETTCAP, DECRQTSR. */
const DCS_QUERIES: readonly IFunctionIdentifier[] = [
  { intermediates: '$', final: 'q' },
  { intermediates: '+', final: 'q' },
  { intermediates: '$', final: 'u' },
];

/** OSC colours, which are set by a value and asked for by `?`. */
const OSC_COLOURS: readonly number[] = [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21];

/** OSC questions of agents and kitty, which have no other meaning for a viewer. */
const OSC_QUERIES: readonly number[] = [99, 7501];

export function silence(parser: IParser): IDisposable[] {
  return [
    ...CSI_QUERIES.map((id) => parser.registerCsiHandler(id, () => true)),
    ...DCS_QUERIES.map((id) => parser.registerDcsHandler(id, () => true)),
    ...OSC_COLOURS.map((id) => parser.registerOscHandler(id, isQuery)),
    ...OSC_QUERIES.map((id) => parser.registerOscHandler(id, () => true)),
    parser.registerCsiHandler({ final: 't' }, (params) => typeof params[0] === 'number' && WINDOW_REPORTS.has(params[0])),
  ];
}

/** Whether one of the values of an OSC is a question mark. */
export function isQuery(data: string): boolean {
  return data.split(';').includes('?');
}
