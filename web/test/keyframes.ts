// Keyframes in xterm.js: what a viewer sees after a keyframe is what it would see had it been there from the start, and stays so. Reads cases
// from standard input, one JSON object a line, as `keyframe_cases` of the shim prints them; the terminals are set up as the console's is.
// Left out, because xterm.js does not know it, or not as the console sets it up: the title stack, keyboard flags, reverse video.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { Terminal as HeadlessTerminal } from '@xterm/headless';
import type { Terminal as BrowserTerminal } from '@xterm/xterm';
import { silence } from '../src/terminal/queries.ts';
import { useHostWidths } from '../src/terminal/width.ts';
import { followColours, readState, type State } from './xterm-state.ts';

const { Terminal } = createRequire(import.meta.url)('@xterm/headless') as typeof import('@xterm/headless');

interface Case {
  readonly name: string;
  readonly cols: number;
  readonly rows: number;
  /** Output in base64: of the program before the keyframe, the keyframe, and what the program did next. */
  readonly before: string;
  readonly keyframe: string;
  readonly after: string;
}

/** What shows state that no cell shows: scroll region, saved cursors, tab stops, character sets, the screen behind the alternate one. */
const PROBES = ['q\tq\tq', '\n\n\n\n\n\nscrolled', '\x1b8restored', '\x1b[?6l\x1b[H\x1bMtop', '\x1b[?1049lleft\x1b8back'];

/** What a viewer may have had on its screen when the keyframe comes. */
const DIRTY = '\x1b[31;7mold\x1b[?1049h\x1b[2;3r\x1b[?6h\x1b[4h\x1b[?7l\x1b(0\x1b[3g\x1b[?1003;1006;2004h\x1b[?12h\x1b]0;old\x07' +
  '\x1b]4;1;#ffffff;7;#123456\x07\x1b]10;#111111;#222222;#333333\x07\x1b]4;8;#44';

class Viewer {
  readonly terminal: HeadlessTerminal;
  private readonly colours: ReadonlyMap<string, string>;
  private title = '';

  constructor({ cols, rows }: Case) {
    this.terminal = new Terminal({ cols, rows, allowProposedApi: true, scrollback: 1000 });
    useHostWidths(this.terminal as unknown as BrowserTerminal);
    silence(this.terminal.parser);
    this.colours = followColours(this.terminal);
    this.terminal.onTitleChange((title) => {
      this.title = title;
    });
  }

  async feed(bytes: string | Buffer): Promise<State> {
    await new Promise<void>((parsed) => this.terminal.write(bytes, parsed));
    return { ...readState(this.terminal), title: this.title, colours: [...this.colours].sort() };
  }
}

const cases = (await text(process.stdin)).split('\n').filter(Boolean).map((line) => JSON.parse(line) as Case);

test('there are cases', () => assert.ok(cases.length >= 15, `${cases.length} cases`));

for (const one of cases) {
  const [before, keyframe, after] = [one.before, one.keyframe, one.after].map((part) => Buffer.from(part, 'base64'));
  assert.ok(before && keyframe && after);
  test(`${one.name}: in a new terminal`, () => compare(one, before, keyframe, after, ''));
  test(`${one.name}: over another screen`, () => compare(one, before, keyframe, after, DIRTY));
}

async function compare(one: Case, before: Buffer, keyframe: Buffer, after: Buffer, shown: string): Promise<void> {
  const [original, restored] = [new Viewer(one), new Viewer(one)];
  await restored.feed(shown);
  assert.deepEqual(await restored.feed(keyframe), await original.feed(before), 'restored');
  // Byte by byte: what is shown for a moment has to be right as well.
  const bytes = Array.from(after, (byte) => Buffer.of(byte));
  for (const next of [...bytes, ...PROBES]) {
    assert.deepEqual(await restored.feed(next), await original.feed(next), `after ${JSON.stringify(next.toString())}`);
  }
}
