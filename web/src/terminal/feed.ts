// Puts output, keyframes and sizes into the screen in the order of their offsets, and says what was parsed. A resize or a keyframe is a
// barrier: everything before it must be parsed first, or text written for one width would be laid out in another. Nothing is kept here
// without bound: the server sends at most one window beyond the acknowledgements that this makes.

import { trimOutput, type KeyframeFrame, type OutputFrame, type WindowSize } from './codec.ts';
import { ACK_EVERY_BYTES } from './messages.ts';

/** What the feed needs of a terminal; xterm.js in the console, a list in the tests. */
export interface FeedScreen {
  /** Parses the bytes, then calls back; in order. */
  write(bytes: Uint8Array, parsed: () => void): void;
  reset(): void;
  resize(size: WindowSize): void;
}

export interface Position {
  readonly spawn: number;
  readonly offset: number;
}

interface Operation {
  readonly barrier: boolean;
  run(): void;
}

/** Output that does not follow what came before; the connection is of no use and resumes anew. */
export class HoleError extends Error {}

export class Feed {
  private readonly screen: FeedScreen;
  private readonly acknowledge: (position: Position) => void;
  private readonly waiting: Operation[] = [];
  private spawnNumber: number | null = null;
  /** Offset after the last byte received; where a new connection resumes. */
  private received: number | null = null;
  private acknowledged = 0;
  /** Raised where offsets begin anew: what is still being parsed from before says nothing about them. */
  private epoch = 0;
  private writing = 0;

  constructor(screen: FeedScreen, acknowledge: (position: Position) => void) {
    this.screen = screen;
    this.acknowledge = acknowledge;
  }

  /** Where output goes on: bytes before it are parsed or will be. */
  position(): Position | null {
    if (this.spawnNumber === null || this.received === null) return null;
    return { spawn: this.spawnNumber, offset: this.received };
  }

  /** Frames of this spawn follow. `offset` is `null` where a keyframe will say it. */
  begin(spawn: number, offset: number | null, size: WindowSize): void {
    const other = spawn !== this.spawnNumber;
    this.spawnNumber = spawn;
    this.received = offset;
    this.acknowledged = offset ?? 0;
    if (offset === null || other) this.epoch += 1;
    if (offset === null) return;
    this.push(true, () => {
      // Another program starts: modes that the last one left behind are not its own.
      if (other) this.screen.reset();
      this.screen.resize(size);
    });
  }

  output(frame: OutputFrame): void {
    if (frame.spawn !== this.spawnNumber || this.received === null) return;
    if (frame.offset > this.received) throw new HoleError(`output at ${frame.offset}, expected ${this.received}`);
    const fresh = trimOutput(frame, this.received);
    if (fresh === null) return;
    const end = fresh.offset + fresh.bytes.length;
    this.received = end;
    this.push(false, () => this.write(fresh.bytes, { spawn: fresh.spawn, offset: end }));
  }

  keyframe(frame: KeyframeFrame): void {
    if (frame.spawn !== this.spawnNumber) return;
    this.received = frame.offset;
    this.push(true, () => {
      this.screen.reset();
      this.screen.resize(frame.size);
      this.acknowledged = 0;
      this.write(frame.bytes, { spawn: frame.spawn, offset: frame.offset }, true);
    });
  }

  resized(spawn: number, size: WindowSize): void {
    if (spawn === this.spawnNumber) this.push(true, () => this.screen.resize(size));
  }

  private write(bytes: Uint8Array, end: Position, keyframe = false): void {
    const { epoch } = this;
    this.writing += 1;
    this.screen.write(bytes, () => {
      this.writing -= 1;
      if (epoch === this.epoch) this.parsed(end, keyframe);
      // Not at once: xterm.js calls back from within its own loop, where a reset would meet a half-walked queue.
      if (this.waiting.length > 0) queueMicrotask(() => this.drain());
    });
  }

  private parsed(end: Position, keyframe: boolean): void {
    if (!keyframe && end.offset - this.acknowledged < ACK_EVERY_BYTES) return;
    this.acknowledged = end.offset;
    this.acknowledge(end);
  }

  private push(barrier: boolean, run: () => void): void {
    this.waiting.push({ barrier, run });
    this.drain();
  }

  private drain(): void {
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      if (next.barrier && this.writing > 0) return;
      this.waiting.shift();
      next.run();
    }
  }
}
