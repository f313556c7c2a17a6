// One viewer's WebSocket and its returns: after a loss it connects again, with jittered backoff, asking for the offset it had reached.
// Input carries a sequence number; what was sent and never acknowledged when the connection broke is reported, never sent twice.

import { api, ApiError, terminalUrl } from '../api/client.ts';
import { Backoff } from './backoff.ts';
import { inputFrame, inputPieces, parseFrame, type ServerFrame, type WindowSize } from './codec.ts';
import type { Position } from './feed.ts';
import { CLOSE, parseMessage, SUBPROTOCOL, type ClientMessage, type ServerMessage, type ViewerMode } from './messages.ts';

/** What a browser is not told, when everything else is as it should be. */
const REFUSED = 'The terminal could not be opened: as many as your organisation may have may be attached already.';

export type ConnectionStatus =
  | { kind: 'connecting'; again: boolean }
  | { kind: 'open' }
  | { kind: 'waiting'; retryMs: number; why: string }
  | { kind: 'closed'; why: 'gone' | 'unauthorized' | 'done' };

export interface ConnectionHandlers {
  message(message: ServerMessage): void;
  frame(frame: ServerFrame): void;
  status(status: ConnectionStatus): void;
  /** Input that may not have reached the program. */
  inputLost(bytes: number, why: string): void;
  /** Where to resume, asked at every connection. */
  position(): Position | null;
}

export class TerminalConnection {
  private readonly session: string;
  private readonly handlers: ConnectionHandlers;
  private mode: ViewerMode;
  private socket: WebSocket | null = null;
  private timer: number | undefined;
  private readonly backoff = new Backoff();
  private tried = false;
  private ready = false;
  private done = false;
  private seq = 0;
  private spawn: number | null = null;
  /** The newest connection's own name: the next one takes its place, should the server not have noticed yet that it broke. */
  private id: string | undefined;
  private readonly unacknowledged = new Map<number, number>();
  private readonly wake = () => this.retryNow();

  constructor(session: string, mode: ViewerMode, handlers: ConnectionHandlers) {
    this.session = session;
    this.mode = mode;
    this.handlers = handlers;
    addEventListener('online', this.wake);
    document.addEventListener('visibilitychange', this.wake);
  }

  connect(): void {
    if (this.done) return;
    const query = new URLSearchParams({ mode: this.mode });
    const position = this.handlers.position();
    if (position) query.set('from', `${position.spawn}:${position.offset}`);
    if (this.id !== undefined) query.set('replaces', this.id);
    this.handlers.status({ kind: 'connecting', again: this.tried });
    this.tried = true;
    const socket = new WebSocket(terminalUrl(this.session, query), SUBPROTOCOL);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    socket.onopen = () => {
      this.backoff.opened(performance.now());
      this.handlers.status({ kind: 'open' });
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer | string>) => this.receive(socket, event.data);
    socket.onclose = (event) => this.lost(socket, event.code);
  }

  /** Ends for good. */
  close(): void {
    this.done = true;
    clearTimeout(this.timer);
    removeEventListener('online', this.wake);
    document.removeEventListener('visibilitychange', this.wake);
    this.socket?.close(1000);
    this.socket = null;
  }

  /** Goes on as a viewer of the other kind, from the same offset. */
  setMode(mode: ViewerMode): void {
    if (mode === this.mode) return;
    this.mode = mode;
    this.restart();
  }

  /** Whether input would be sent now. */
  canType(): boolean {
    return this.ready && this.mode === 'rw' && this.spawn !== null;
  }

  send(message: ClientMessage): void {
    if (this.ready && this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  type(bytes: Uint8Array): void {
    const { socket, spawn } = this;
    if (!socket || spawn === null || !this.canType()) {
      this.handlers.inputLost(bytes.length, this.mode === 'ro' ? 'read_only' : 'not_connected');
      return;
    }
    for (const piece of inputPieces(bytes)) {
      this.seq += 1;
      this.unacknowledged.set(this.seq, piece.length);
      socket.send(inputFrame(spawn, this.seq, piece));
    }
  }

  /** Drops this connection and resumes on another, for a stream that makes no sense. */
  restart(): void {
    const { socket } = this;
    if (!socket || this.done) return;
    socket.onclose = null;
    socket.close(1000);
    this.forget('reconnected');
    this.backoff.reset();
    this.connect();
  }

  retryNow(): void {
    if (this.timer === undefined || this.done || document.visibilityState === 'hidden') return;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.connect();
  }

  private receive(socket: WebSocket, data: ArrayBuffer | string): void {
    if (socket !== this.socket) return;
    try {
      if (typeof data !== 'string') {
        const frame = parseFrame(data);
        if (frame) this.handlers.frame(frame);
        return;
      }
      const message = parseMessage(data);
      if (!message) return;
      this.note(message);
      this.handlers.message(message);
    } catch (error) {
      // Neither guessed nor skipped: what cannot be read is asked for again.
      console.error('terminal stream', error);
      this.lostWith(socket, 'The stream could not be read.');
    }
  }

  private note(message: ServerMessage): void {
    switch (message.type) {
      case 'hello':
        this.id = message.id;
        break;
      case 'spawn':
        this.spawn = message.spawn;
        this.ready = true;
        break;
      case 'input_ack':
        this.unacknowledged.delete(message.seq);
        break;
      case 'input_refused': {
        const bytes = this.unacknowledged.get(message.seq) ?? 0;
        this.unacknowledged.delete(message.seq);
        this.handlers.inputLost(bytes, message.detail);
        break;
      }
      default:
    }
  }

  private lostWith(socket: WebSocket, why: string): void {
    socket.onclose = null;
    socket.close(1000);
    this.forget(why);
    this.wait(why);
  }

  private lost(socket: WebSocket, code: number): void {
    if (socket !== this.socket || this.done) return;
    const opened = this.ready;
    this.forget('connection lost');
    if (code === CLOSE.sessionGone) return this.end('gone');
    if (code === CLOSE.unauthorized) return this.end('unauthorized');
    if (opened) return this.wait(code === CLOSE.goingAway ? 'The server is restarting.' : 'The connection was lost.');
    // A refused upgrade has no reason in a browser: the session itself tells whether waiting makes sense.
    api.session(this.session).then(
      (session) => this.wait(session.unreachable ? 'The host is not connected.' : REFUSED),
      (error: unknown) => {
        if (error instanceof ApiError && error.status === 401) this.end('unauthorized');
        else if (error instanceof ApiError && error.status === 404) this.end('gone');
        else this.wait('The server does not answer.');
      },
    );
  }

  private forget(why: string): void {
    this.socket = null;
    this.ready = false;
    const lost = [...this.unacknowledged.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.unacknowledged.clear();
    if (lost > 0) this.handlers.inputLost(lost, why);
  }

  private end(why: 'gone' | 'unauthorized'): void {
    this.close();
    this.handlers.status({ kind: 'closed', why });
  }

  private wait(why: string): void {
    if (this.done) return;
    const retryMs = this.backoff.wait(performance.now(), Math.random());
    this.handlers.status({ kind: 'waiting', retryMs, why });
    this.timer = window.setTimeout(() => {
      this.timer = undefined;
      this.connect();
    }, retryMs);
  }

  /** What this viewer's window would hold; applied by the server if this viewer owns the size. */
  wantSize(size: WindowSize): void {
    this.send({ type: 'resize', size });
  }
}
