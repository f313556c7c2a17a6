// What the console knows: sessions, hosts and agents, kept current by the event stream. Lists are fetched when the stream says that there
// was a gap (its first event does), never on a timer. Views read the maps and are told when something changed.

import { api, ApiError, EVENTS_URL } from './client.ts';
import type { Agent, Host, Me, ServerEvent, Session } from './types.ts';

/** Milliseconds before a closed event stream is opened again; a browser does the usual retries itself. */
const REOPEN_MS = 2000;

export type Live = 'connecting' | 'live' | 'lost';

export class Store {
  readonly sessions = new Map<string, Session>();
  readonly hosts = new Map<string, Host>();
  agents: Agent[] = [];
  live: Live = 'connecting';
  /** Whether the lists were fetched once: an empty list before that is not an empty system. */
  loaded = false;
  loadError: string | null = null;

  private readonly me: Me;
  private readonly onUnauthorized: () => void;
  /** The caller is something else here than they were. */
  private readonly onChanged: () => void;
  private readonly listeners = new Set<() => void>();
  private source: EventSource | null = null;
  private timer: number | undefined;
  /** While lists are being fetched: what events said meanwhile, which is newer than the answer. */
  private touched: Set<string> | null = null;
  private scheduled = false;

  constructor(me: Me, onUnauthorized: () => void, onChanged: () => void) {
    this.me = me;
    this.onUnauthorized = onUnauthorized;
    this.onChanged = onChanged;
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  start(): void {
    const source = new EventSource(EVENTS_URL);
    this.source = source;
    for (const name of ['hello', 'session', 'session_purged', 'session_hidden', 'host']) {
      source.addEventListener(name, (event) => this.receive(JSON.parse((event as MessageEvent<string>).data) as ServerEvent));
    }
    source.onerror = () => {
      this.setLive('lost');
      // The browser gave up, as it does after a refusal: find out why.
      if (source.readyState === EventSource.CLOSED) this.reopen();
    };
  }

  stop(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /** Takes what a request answered, without waiting for its event. An event may have overtaken the answer: the newer one stays. */
  put(session: Session): void {
    if (session.revision < (this.sessions.get(session.id)?.revision ?? 0)) return;
    this.sessions.set(session.id, session);
    this.touched?.add(session.id);
    this.changed();
  }

  /** Its end has no event. */
  forgetHost(id: string): void {
    this.hosts.delete(id);
    this.changed();
  }

  hostName(id: string | null): string {
    if (id === null) return 'not placed yet';
    const host = this.hosts.get(id);
    return host?.name ?? host?.facts?.hostname ?? id.slice(0, 8);
  }

  async refresh(): Promise<void> {
    const touched = new Set<string>();
    this.touched = touched;
    try {
      const [sessions, hosts, agents] = await Promise.all([api.sessions(), api.hosts(), api.agents()]);
      if (this.touched !== touched) return; // A later refresh runs.
      const listed = new Set(sessions.map((session) => session.id));
      for (const id of this.sessions.keys()) if (!listed.has(id) && !touched.has(id)) this.sessions.delete(id);
      for (const session of sessions) if (!touched.has(session.id)) this.sessions.set(session.id, session);
      this.hosts.clear();
      for (const host of hosts) this.hosts.set(host.id, host);
      this.agents = agents;
      this.loaded = true;
      this.loadError = null;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return this.onUnauthorized();
      this.loadError = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.touched === touched) this.touched = null;
    }
    this.changed();
  }

  private receive(event: ServerEvent): void {
    switch (event.event) {
      case 'hello':
        this.setLive('live');
        if (this.loaded) this.lookAtMe();
        if (event.resume === 'gap' || !this.loaded) void this.refresh();
        break;
      case 'session':
        this.put(event.session);
        break;
      case 'session_purged':
      case 'session_hidden':
        this.sessions.delete(event.id);
        this.touched?.add(event.id);
        break;
      case 'host':
        this.hosts.set(event.host.id, event.host);
        this.agentsMayHaveChanged(event.host);
        break;
      default:
    }
    this.changed();
  }

  /** A stream that had to be opened again may have ended because one has another role now. */
  private lookAtMe(): void {
    api.me().then(
      (me) => (me.role !== this.me.role || me.organization_id !== this.me.organization_id) && this.onChanged(),
      (error: unknown) => isOut(error) && this.onChanged(),
    );
  }

  /** A host that connects brings its agents; the list of agents has no events of its own. */
  private agentsMayHaveChanged(host: Host): void {
    if (!host.connected) return;
    api.agents().then(
      (agents) => {
        this.agents = agents;
        this.changed();
      },
      () => undefined, // Shown as it was; the next hello fetches it again.
    );
  }

  private reopen(): void {
    this.source?.close();
    this.source = null;
    api.me().then(
      () => this.later(),
      (error: unknown) => {
        if (error instanceof ApiError && error.status === 401) this.onUnauthorized();
        else if (isOut(error)) this.onChanged();
        else this.later();
      },
    );
  }

  private later(): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.start(), REOPEN_MS / 2 + Math.random() * (REOPEN_MS / 2));
  }

  private setLive(live: Live): void {
    this.live = live;
    this.changed();
  }

  /** One call of the views for any number of events in a row. */
  private changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      for (const listener of this.listeners) listener();
    });
  }
}

/** The caller is not in this organisation any more, or in none. */
function isOut(error: unknown): boolean {
  return error instanceof ApiError && (error.code === 'organization_not_found' || error.code === 'no_organization');
}
