// The binary frames of `agentapi.terminal.v1`: a fixed header of 14 bytes, little endian, then the payload. Nothing here touches the
// network or the screen, so that every byte of the protocol can be tested alone. Offsets are JavaScript numbers: exact up to 2^53 bytes.

export const HEADER_BYTES = 14;

/** Input of one frame; the server refuses more, and a long paste in pieces lets a Ctrl-C overtake the rest. */
export const INPUT_BYTES_MAX = 64 * 1024;

export const FRAME_OUTPUT = 1;
export const FRAME_KEYFRAME = 2;
export const FRAME_INPUT = 4;

/** On a KEYFRAME: output before it was skipped for this viewer. */
export const FLAG_SKIPPED = 2;

export interface WindowSize {
  readonly cols: number;
  readonly rows: number;
}

export const SIZE_LIMITS = { colsMin: 2, rowsMin: 1, colsMax: 500, rowsMax: 500 } as const;

export interface OutputFrame {
  readonly kind: 'output';
  readonly spawn: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface KeyframeFrame {
  readonly kind: 'keyframe';
  readonly spawn: number;
  readonly offset: number;
  readonly skipped: boolean;
  readonly size: WindowSize;
  readonly bytes: Uint8Array;
}

export type ServerFrame = OutputFrame | KeyframeFrame;

/** A frame that cannot be read: the connection it came on is of no use any more. */
export class FrameError extends Error {}

/** Reads a frame of the server. Types reserved for later give `null`: a viewer that does not know them ignores them. */
export function parseFrame(data: ArrayBuffer): ServerFrame | null {
  if (data.byteLength < HEADER_BYTES) throw new FrameError(`frame of ${data.byteLength} bytes`);
  const view = new DataView(data);
  const type = view.getUint8(0);
  const flags = view.getUint8(1);
  const spawn = view.getUint32(2, true);
  const offset = readU64(view, 6);
  const payload = new Uint8Array(data, HEADER_BYTES);
  if (type === FRAME_OUTPUT) {
    if (flags !== 0) throw new FrameError(`output with flags ${flags}`);
    return { kind: 'output', spawn, offset, bytes: payload };
  }
  if (type !== FRAME_KEYFRAME) return null;
  if ((flags & ~FLAG_SKIPPED) !== 0) throw new FrameError(`keyframe with flags ${flags}`);
  if (payload.length < 4) throw new FrameError('keyframe without a size');
  const size = { cols: view.getUint16(HEADER_BYTES, true), rows: view.getUint16(HEADER_BYTES + 2, true) };
  if (!isPossible(size)) throw new FrameError(`keyframe of ${size.cols}x${size.rows}`);
  return { kind: 'keyframe', spawn, offset, skipped: flags === FLAG_SKIPPED, size, bytes: payload.subarray(4) };
}

/** The INPUT frame with this sequence number. */
export function inputFrame(spawn: number, seq: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(HEADER_BYTES + bytes.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, FRAME_INPUT);
  view.setUint32(2, spawn, true);
  view.setBigUint64(6, BigInt(seq), true);
  frame.set(bytes, HEADER_BYTES);
  return frame;
}

/** Cuts input into pieces that fit a frame, never inside a character, so that a piece the program reads alone is still text. */
export function inputPieces(bytes: Uint8Array, max = INPUT_BYTES_MAX): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let start = 0;
  while (bytes.length - start > max) {
    let end = start + max;
    // A continuation byte (10xxxxxx) belongs to the character before it.
    while (end > start + 1 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
    pieces.push(bytes.subarray(start, end));
    start = end;
  }
  if (start < bytes.length) pieces.push(bytes.subarray(start));
  return pieces;
}

/** What is left of output that starts before the offset a viewer is at; `null` if all of it is known. */
export function trimOutput(frame: OutputFrame, next: number): OutputFrame | null {
  if (frame.offset >= next) return frame;
  const known = next - frame.offset;
  if (known >= frame.bytes.length) return null;
  return { ...frame, offset: next, bytes: frame.bytes.subarray(known) };
}

export function isPossible(size: WindowSize): boolean {
  const { colsMin, colsMax, rowsMin, rowsMax } = SIZE_LIMITS;
  return size.cols >= colsMin && size.cols <= colsMax && size.rows >= rowsMin && size.rows <= rowsMax;
}

export function clampSize(cols: number, rows: number): WindowSize {
  const { colsMin, colsMax, rowsMin, rowsMax } = SIZE_LIMITS;
  return {
    cols: Math.min(colsMax, Math.max(colsMin, Math.floor(cols))),
    rows: Math.min(rowsMax, Math.max(rowsMin, Math.floor(rows))),
  };
}

function readU64(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new FrameError('offset beyond 2^53');
  return Number(value);
}
