// The REST API as functions. Every failure is an `ApiError` that carries the server's problem document, so that a view can show its
// sentence where the mistake was made; a server that does not answer is a problem of the same shape. The cookie is the browser's business.

import type { Agent, CreateSession, Host, Me, Page, Problem, Session } from './types.ts';

const BASE = '/api/v1';

/** Items of one page; the most the server gives. */
const PAGE_LIMIT = 200;

/** Pages of one list: 2,000 rows are more than a person reads, and a list without an end would never be shown. */
const PAGES_MAX = 10;

export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }

  get status(): number {
    return this.problem.status;
  }

  /** What the server says of one field, such as `workspace.path`. */
  field(name: string): string | null {
    return this.problem.errors?.find((error) => error.field === name || error.field.startsWith(`${name}.`))?.message ?? null;
  }
}

/** One sentence for a person, from whatever was thrown. */
export function sentence(error: unknown): string {
  if (error instanceof ApiError) {
    const fields = error.problem.errors?.map((e) => `${e.field}: ${e.message}`).join('; ');
    return fields ? `${error.message} (${fields})` : error.message;
  }
  return error instanceof Error ? error.message : String(error);
}

export const api = {
  login: (code: string) => send<void>('POST', '/login', { code }),
  logout: () => send<void>('POST', '/logout'),
  me: () => send<Me>('GET', '/me'),
  sessions: () => allPages<Session>('/sessions'),
  // Short lists, which come whole.
  hosts: () => send<Page<Host>>('GET', '/hosts').then((page) => page.data),
  agents: () => send<Page<Agent>>('GET', '/agents').then((page) => page.data),
  session: (id: string) => send<Session>('GET', `/sessions/${encodeURIComponent(id)}`),
  create: (body: CreateSession, key: string) => send<Session>('POST', '/sessions', body, { 'idempotency-key': key }),
  rename: (id: string, name: string | null) => send<Session>('PATCH', `/sessions/${encodeURIComponent(id)}`, { name }),
  restart: (id: string, stop: boolean) => send<Session>('POST', `/sessions/${encodeURIComponent(id)}/restart`, { stop }),
  stop: (id: string, force: boolean) => send<void>('DELETE', `/sessions/${encodeURIComponent(id)}${force ? '?force=true' : ''}`),
  purge: (id: string) => send<void>('DELETE', `/sessions/${encodeURIComponent(id)}?purge=true`),
};

/** Where a terminal's WebSocket is. The origin is the page's own: the console never talks to another server. */
export function terminalUrl(id: string, query: URLSearchParams): string {
  const url = new URL(`${BASE}/sessions/${encodeURIComponent(id)}/terminal?${query.toString()}`, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export const EVENTS_URL = `${BASE}/events`;

async function allPages<T>(path: string): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const query = new URLSearchParams({ limit: String(PAGE_LIMIT) });
    if (cursor !== null) query.set('cursor', cursor);
    const { data, next_cursor }: Page<T> = await send<Page<T>>('GET', `${path}?${query.toString()}`);
    items.push(...data);
    cursor = next_cursor;
    if (cursor === null) break;
  }
  return items;
}

async function send<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  const init: RequestInit = { method, credentials: 'same-origin', headers: { accept: 'application/json', ...headers } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, 'content-type': 'application/json' };
  }
  let response: Response;
  try {
    response = await fetch(BASE + path, init);
  } catch {
    throw new ApiError(localProblem(0, 'unreachable', 'The AgentAPI server does not answer. Is it still running? `agentapi status` tells.'));
  }
  const text = await response.text();
  if (!response.ok) throw new ApiError(readProblem(response, text));
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

function readProblem(response: Response, text: string): Problem {
  if (response.headers.get('content-type')?.startsWith('application/problem+json')) {
    try {
      return JSON.parse(text) as Problem;
    } catch {
      // Falls through to the status alone: a proxy may have cut the body.
    }
  }
  return localProblem(response.status, 'unknown', `The server answered ${response.status} ${response.statusText}`.trim() + '.');
}

function localProblem(status: number, code: string, detail: string): Problem {
  return { title: detail, status, code, detail, request_id: '' };
}

/** An idempotency key. Not `randomUUID`, which browsers offer in secure contexts only. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
