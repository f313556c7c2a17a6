// One request of the REST API. Every failure is an `ApiError` that carries the server's problem document, so that a view can show its
// sentence where the mistake was made; a server that does not answer is a problem of the same shape. The cookie is the browser's business.

import { organizationHeader } from './place.ts';
import type { Page, Problem } from './types.ts';

export const BASE = '/api/v1';

/** Items of one page; the most the server gives. */
const PAGE_LIMIT = 200;

/** Pages of one list: 2,000 rows are more than a person reads, and a list without an end would never be shown. */
const PAGES_MAX = 10;

export class ApiError extends Error {
  readonly problem: Problem;
  /** After how many seconds another try may go through, if the server says so. */
  readonly retryAfterS: number | null;

  constructor(problem: Problem, retryAfterS: number | null = null) {
    super(problem.detail || problem.title);
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }

  get status(): number {
    return this.problem.status;
  }

  get code(): string {
    return this.problem.code;
  }

  /** What the server says of one field, such as `workspace.path`, and of what is in it, such as `agents[1]`. */
  field(name: string): string | null {
    const of = (field: string): boolean => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`);
    const found = this.problem.errors?.find((error) => of(error.field));
    if (!found) return null;
    // Of a part of it, which part.
    return found.field.startsWith(`${name}.`) ? `${found.field.slice(name.length + 1)}: ${found.message}` : found.message;
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

/** Why nothing more can be asked as things are: nobody is logged in, or whoever is is not in this organisation any more. */
export type Lost = 'login' | 'organization';

let lost: (why: Lost) => void = () => undefined;

/** Who is told when a request finds that out; one listener, the page as a whole. */
export function onLost(listener: (why: Lost) => void): void {
  lost = listener;
}

/** Requests that find nobody logged in on purpose, or say so of a credential that was just typed. */
const ASKED_BY_ANYBODY = /^\/(login|me$)/;

export async function send<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  const init: RequestInit = { method, credentials: 'same-origin', headers: { accept: 'application/json', ...organizationHeader(), ...headers } };
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
  if (!response.ok) throw refused(path, new ApiError(readProblem(response, text), readSeconds(response)));
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

export async function allPages<T>(path: string): Promise<T[]> {
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

function refused(path: string, error: ApiError): ApiError {
  if (ASKED_BY_ANYBODY.test(path)) return error;
  if (error.status === 401) lost('login');
  else if (error.code === 'organization_not_found' || error.code === 'no_organization') lost('organization');
  return error;
}

function readSeconds(response: Response): number | null {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  return Number.isFinite(seconds) && seconds > 0 ? seconds : null;
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
