// The REST API as functions, one for each thing that the console asks for.

import { allPages, BASE, send } from './http.ts';
import type {
  ApiKey,
  AuditRecord,
  CreateApiKey,
  CreateInvitation,
  HostEnrolment,
  Invitation,
  InvitationLink,
  InvitedTo,
  Member,
  NewApiKey,
  Organization,
  UpdateOrganization,
} from './organization.ts';
import type { Agent, CreateSession, Host, LoginMethods, Me, Page, Session, Visibility } from './types.ts';

export { ApiError, onLost, sentence, type Lost } from './http.ts';

/** What an invitation's link carries. */
export interface InvitationToken {
  organization_id: string;
  token: string;
}

const id = encodeURIComponent;

/** Short lists, which come whole. */
const list = <T>(path: string): Promise<T[]> => send<Page<T>>('GET', path).then((page) => page.data);

export const api = {
  loginMethods: () => send<LoginMethods>('GET', '/login/methods'),
  login: (code: string) => send<void>('POST', '/login', { code }),
  loginByPassword: (email: string, password: string) => send<void>('POST', '/login/password', { email, password }),
  logout: () => send<void>('POST', '/logout'),
  me: () => send<Me>('GET', '/me'),

  sessions: () => allPages<Session>('/sessions'),
  hosts: () => list<Host>('/hosts'),
  agents: () => list<Agent>('/agents'),
  session: (session: string) => send<Session>('GET', `/sessions/${id(session)}`),
  create: (body: CreateSession, key: string) => send<Session>('POST', '/sessions', body, { 'idempotency-key': key }),
  rename: (session: string, name: string | null) => send<Session>('PATCH', `/sessions/${id(session)}`, { name }),
  show: (session: string, visibility: Visibility) => send<Session>('PATCH', `/sessions/${id(session)}`, { visibility }),
  restart: (session: string, stop: boolean) => send<Session>('POST', `/sessions/${id(session)}/restart`, { stop }),
  stop: (session: string, force: boolean) => send<void>('DELETE', `/sessions/${id(session)}${force ? '?force=true' : ''}`),
  purge: (session: string) => send<void>('DELETE', `/sessions/${id(session)}?purge=true`),

  organization: (organization: string) => send<Organization>('GET', `/organizations/${id(organization)}`),
  createOrganization: (name: string) => send<Organization>('POST', '/organizations', { name }),
  updateOrganization: (organization: string, body: UpdateOrganization) => send<Organization>('PATCH', `/organizations/${id(organization)}`, body),

  members: () => list<Member>('/members'),
  setRole: (user: string, role: string) => send<void>('PATCH', `/members/${id(user)}`, { role }),
  removeMember: (user: string) => send<void>('DELETE', `/members/${id(user)}`),

  invitations: () => list<Invitation>('/invitations'),
  invite: (body: CreateInvitation) => send<InvitationLink>('POST', '/invitations', body),
  revokeInvitation: (invitation: string) => send<void>('DELETE', `/invitations/${id(invitation)}`),
  lookUpInvitation: (body: InvitationToken) => send<InvitedTo>('POST', '/invitations/lookup', body),
  acceptInvitation: (body: InvitationToken) => send<void>('POST', '/invitations/accept', body),

  apiKeys: () => list<ApiKey>('/api-keys'),
  createApiKey: (body: CreateApiKey) => send<NewApiKey>('POST', '/api-keys', body),
  revokeApiKey: (key: string) => send<void>('DELETE', `/api-keys/${id(key)}`),

  enrolHost: (name: string) => send<HostEnrolment>('POST', '/host-enrolments', { name }),
  revokeHost: (host: string) => send<void>('DELETE', `/hosts/${id(host)}`),

  audit: (query: URLSearchParams) => send<Page<AuditRecord>>('GET', `/audit?${query.toString()}`),
};

/** Where a terminal's WebSocket is. The origin is the page's own: the console never talks to another server. */
export function terminalUrl(session: string, query: URLSearchParams): string {
  const url = new URL(`${BASE}/sessions/${id(session)}/terminal?${query.toString()}`, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export const EVENTS_URL = `${BASE}/events`;

/** A download; the browser writes it to disk as it comes, however long it is. */
export const AUDIT_EXPORT_URL = `${BASE}/audit/export`;

/** Where a browser goes to log in at the configured issuer. */
export const ISSUER_LOGIN_URL = `${BASE}/login/issuer`;

/** An idempotency key. Not `randomUUID`, which browsers offer in secure contexts only. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
