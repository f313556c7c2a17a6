// The bytes of the protocol: frames as the document prints them, and everything that is refused.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameError, inputFrame, inputPieces, parseFrame, trimOutput, type OutputFrame } from '../src/terminal/codec.ts';
import { parseMessage } from '../src/terminal/messages.ts';

const hex = (text: string): ArrayBuffer => Uint8Array.from(text.match(/[0-9a-f]{2}/g) ?? [], (byte) => parseInt(byte, 16)).buffer;
const toHex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
const ascii = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

test('an output frame of the document is read', () => {
  const frame = parseFrame(hex('01 00 01000000 e803000000000000 68 69 0d 0a'));
  assert.equal(frame?.kind, 'output');
  assert.deepEqual([frame?.spawn, frame?.offset, ascii(frame?.bytes ?? new Uint8Array())], [1, 1000, 'hi\r\n']);
});

test('a keyframe of the document is read', () => {
  const frame = parseFrame(hex('02 02 02000000 0010000000000000 7800 2800 1b5b48'));
  assert.ok(frame?.kind === 'keyframe');
  assert.deepEqual([frame.spawn, frame.offset, frame.skipped, frame.size], [2, 4096, true, { cols: 120, rows: 40 }]);
  assert.equal(ascii(frame.bytes), '\x1b[H');
});

test('an input frame of the document is written', () => {
  assert.equal(toHex(inputFrame(1, 7, Uint8Array.of(0x6c, 0x73, 0x0d))), '04 00 01 00 00 00 07 00 00 00 00 00 00 00 6c 73 0d');
});

test('offsets above 32 bits stay exact', () => {
  const frame = parseFrame(hex('01 00 01000000 0100000001000000'));
  assert.equal(frame?.offset, 2 ** 32 + 1);
});

test('malformed frames are refused, reserved types ignored', () => {
  for (const bad of ['01 00 01000000 e8030000000000', '01 01 01000000 0000000000000000', '02 00 01000000 0000000000000000 7800 28', '02 00 01000000 0000000000000000 0100 2800', '01 00 01000000 ffffffffffffffff']) {
    assert.throws(() => parseFrame(hex(bad)), FrameError, bad);
  }
  assert.equal(parseFrame(hex('11 00 01000000 0000000000000000')), null);
});

test('a paste is cut between characters and loses nothing', () => {
  const bytes = new TextEncoder().encode('a€'.repeat(1000));
  for (const max of [1, 4, 7, 64, 1000, 4000]) {
    const pieces = inputPieces(bytes, max);
    assert.deepEqual(pieces.flatMap((piece) => [...piece]), [...bytes], `max ${max}`);
    if (max >= 4) for (const piece of pieces) assert.doesNotThrow(() => new TextDecoder('utf-8', { fatal: true }).decode(piece));
    assert.ok(pieces.every((piece) => piece.length <= max && piece.length > 0));
  }
  assert.deepEqual(inputPieces(new Uint8Array()), []);
});

test('known bytes are trimmed', () => {
  const frame: OutputFrame = { kind: 'output', spawn: 1, offset: 10, bytes: new TextEncoder().encode('abcdef') };
  assert.equal(trimOutput(frame, 10), frame);
  assert.equal(ascii(trimOutput(frame, 13)?.bytes ?? new Uint8Array()), 'def');
  assert.equal(trimOutput(frame, 16), null);
});

test('messages of a later version are ignored', () => {
  assert.equal(parseMessage('{"type":"applause"}'), null);
  assert.equal(parseMessage('{"type":"input_ack","seq":3}')?.type, 'input_ack');
  assert.throws(() => parseMessage('[]'));
});
