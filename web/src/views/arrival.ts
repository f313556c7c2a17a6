// What a person comes with: a login code or an invitation in the address, and where they were before they had to log in. Codes and tokens are
// taken out of the address at once, so that they stay in no history; an invitation is kept for this tab until it was accepted or put aside,
// because a login at an issuer leads away from the page and back.

import type { InvitationToken } from '../api/client.ts';

const INVITATION = 'agentapi.invitation';
const PLACE = 'agentapi.return';

export function takeLoginCode(): string | null {
  const match = /^#code=(.+)$/.exec(location.hash);
  if (!match?.[1]) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decoded(match[1]);
}

/** What is no percent-encoding is passed on as it is: that it is no code is the server's to say. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Keeps the invitation that the address carries, if it carries one. */
export function takeInvitation(): void {
  if (!isInvitation(location.hash)) return;
  const fields = new URLSearchParams(location.hash.slice(1));
  history.replaceState(null, '', location.pathname + location.search);
  const invitation: InvitationToken = { token: fields.get('invitation') ?? '', organization_id: fields.get('organization') ?? '' };
  write(INVITATION, JSON.stringify(invitation));
}

/** Whether a fragment is one that `start` takes apart. */
export function isArrival(hash: string): boolean {
  return hash.startsWith('#code=') || isInvitation(hash);
}

export function invitation(): InvitationToken | null {
  const text = read(INVITATION);
  return text === null ? null : (JSON.parse(text) as InvitationToken);
}

export function dropInvitation(): void {
  write(INVITATION, null);
}

/** Keeps where the person is, for after the login. */
export function keepPlace(): void {
  if (location.hash.startsWith('#/')) write(PLACE, location.hash);
}

/** Goes back there, unless the address says something else. */
export function returnToPlace(): void {
  const place = read(PLACE);
  write(PLACE, null);
  if (place !== null && location.hash === '') history.replaceState(null, '', place);
}

/** Nobody is to be led where somebody else was. */
export function forgetPlace(): void {
  write(PLACE, null);
  history.replaceState(null, '', location.pathname);
}

function isInvitation(hash: string): boolean {
  return hash.startsWith('#invitation=');
}

/** Where storage is off, what would be kept is kept in memory: it holds until the page is left. */
const memory = new Map<string, string>();

function read(key: string): string | null {
  try {
    return sessionStorage.getItem(key) ?? memory.get(key) ?? null;
  } catch {
    return memory.get(key) ?? null;
  }
}

function write(key: string, value: string | null): void {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
    memory.delete(key);
  } catch {
    if (value === null) memory.delete(key);
    else memory.set(key, value);
  }
}
