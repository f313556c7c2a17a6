// The text frames of `agentapi.terminal.v1`. Types only; a `type` that is not listed here is ignored, as the protocol asks.

import type { Exit, SpawnState } from '../api/types.ts';
import type { WindowSize } from './codec.ts';

export const SUBPROTOCOL = 'agentapi.terminal.v1';

/** How often, in parsed bytes, a viewer acknowledges. */
export const ACK_EVERY_BYTES = 32 * 1024;

export const CLOSE = {
  goingAway: 1001,
  malformed: 4400,
  unauthorized: 4401,
  sessionGone: 4404,
  violation: 4409,
  replaced: 4410,
} as const;

export type ViewerMode = 'rw' | 'ro';
export type Resume = 'fresh' | 'resumed' | 'gap';

export type ServerMessage =
  | { type: 'hello'; session: string; viewer: number; mode: ViewerMode; catchup: string; window: number; id?: string }
  | { type: 'spawn'; spawn: number; state: SpawnState; size: WindowSize; resume: Resume; offset: number }
  | { type: 'resized'; spawn: number; offset: number; size: WindowSize }
  | { type: 'size_owner'; viewer: number | null }
  | { type: 'state'; spawn: number; state: SpawnState; reachable: boolean }
  | { type: 'ended'; spawn: number; offset: number; exit: Exit }
  | { type: 'input_ack'; seq: number }
  | { type: 'input_refused'; seq: number; code: string; detail: string };

export type ClientMessage =
  | { type: 'ack'; spawn: number; offset: number }
  | { type: 'resize'; size: WindowSize }
  | { type: 'take_size' };

const TYPES: ReadonlySet<string> = new Set<ServerMessage['type']>([
  'hello',
  'spawn',
  'resized',
  'size_owner',
  'state',
  'ended',
  'input_ack',
  'input_refused',
]);

/** Reads a text frame; `null` for a type of a later version. */
export function parseMessage(text: string): ServerMessage | null {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null || !('type' in value)) throw new Error('message without a type');
  return typeof value.type === 'string' && TYPES.has(value.type) ? (value as ServerMessage) : null;
}
