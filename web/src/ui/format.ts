// Words for people: ages, states, ends. One place, so that the list, the header and the banner say the same thing the same way.

import { isEnded, type Exit, type Posture, type Session, type SpawnState } from '../api/types.ts';

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `now`, `5m`, `3h`, `12d`. */
export function age(iso: string, nowMs: number): string {
  const seconds = Math.max(0, (nowMs - Date.parse(iso)) / 1000);
  if (seconds < MINUTE) return 'now';
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)}m`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)}h`;
  return `${Math.floor(seconds / DAY)}d`;
}

export function clock(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

export function day(iso: string): string {
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: 'medium' });
}

/** `just now`, `5m ago`; `never` if there is no such time. */
export function ago(iso: string | null, nowMs: number): string {
  if (iso === null) return 'never';
  const text = age(iso, nowMs);
  return text === 'now' ? 'just now' : `${text} ago`;
}

/** A time from now on, to the nearest: `in 5m`, `in 3h`, `in 12d`. What was made a moment ago for 90 days ends in 90 days. */
export function ahead(iso: string, nowMs: number): string {
  const seconds = (Date.parse(iso) - nowMs) / 1000;
  if (seconds < MINUTE) return 'in less than a minute';
  if (seconds < HOUR) return `in ${Math.round(seconds / MINUTE)}m`;
  if (seconds < DAY) return `in ${Math.round(seconds / HOUR)}h`;
  return `in ${Math.round(seconds / DAY)}d`;
}

/** `bytes` as people say them, to three digits at most. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let value = count;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${value < 10 && at > 0 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export function titleOf(session: Session): string {
  return session.name ?? (session.agent === 'custom' ? session.command.join(' ') || 'custom' : session.agent);
}

/** The word beside the dot. */
export function stateWord(session: Session): string {
  if (session.unreachable && !isEnded(session.state)) return 'unreachable';
  return session.state;
}

/** The same with how it ended, unless that was well: `exited (3)`, `exited (SIGKILL)`. */
export function stateText(session: Session): string {
  const how = session.exit?.signal ?? (session.exit?.code || null);
  return how === null ? stateWord(session) : `${stateWord(session)} (${how})`;
}

/** Why a person should look, or `null`: the list marks nothing else. */
export function needsPerson(session: Session): string | null {
  if (session.unreachable && !isEnded(session.state)) return 'Its host is not connected';
  if (session.state === 'failed') return 'It failed';
  if (session.state === 'lost') return 'Its host is gone';
  switch (session.agent_status?.reason) {
    case 'needs_approval':
      return 'It waits for an approval';
    case 'needs_login':
      return 'It needs a login';
    case 'stuck':
      return 'It seems stuck';
    default:
      return null;
  }
}

/** How a spawn is isolated, for people. */
export function postureSentence(posture: Posture): string {
  const mib = (bytes: number): string => `${Math.round(bytes / 1_048_576)} MiB`;
  const { memory_bytes, pids, cpu_percent, disk_bytes, io_bytes_per_second } = posture.limits;
  const limits = [
    memory_bytes === undefined ? '' : `memory ${mib(memory_bytes)}`,
    cpu_percent === undefined ? '' : `processors ${cpu_percent / 100}`,
    pids === undefined ? '' : `processes ${pids}`,
    disk_bytes === undefined ? '' : `disk ${mib(disk_bytes)}`,
    io_bytes_per_second === undefined ? '' : `disk traffic ${mib(io_bytes_per_second)}/s`,
  ].filter((word) => word !== '');
  const missing = posture.degraded.length === 0 ? '' : ` Missing: ${posture.degraded.join(', ')}.`;
  return `Profile ${posture.profile}, isolation ${posture.isolation}, network ${posture.network}. Limits: ${limits.join(', ') || 'none'}.${missing}`;
}

/** How a session ended. The host's own sentence knows most; it comes without a capital and a full stop. */
export function exitSentence(state: SpawnState, exit: Exit | null): string {
  if (exit?.detail) return asSentence(exit.detail);
  if (exit?.signal) return `Ended by ${exit.signal}.`;
  if (exit && exit.code !== null) return `Ended with exit code ${exit.code}.`;
  return state === 'lost' ? 'Its host is gone for good.' : asSentence(state);
}

/** With a capital, unless the first word is a name such as `no-such-program:`, and a full stop, unless it ends with a command to be copied. */
export function asSentence(text: string): string {
  const trimmed = text.trim();
  const capital = /^[a-z]+[\s,.]/.test(trimmed) || /^[a-z]+$/.test(trimmed);
  const end = /(^|\s)[\w’']+$/.test(trimmed) ? '.' : '';
  return (capital ? trimmed.charAt(0).toUpperCase() + trimmed.slice(1) : trimmed) + end;
}

/** Splits a command line into words as a shell would, without any expansion: quotes and backslashes only. */
export function words(line: string): string[] {
  const out: string[] = [];
  let word: string | null = null;
  let quote = '';
  for (let i = 0; i < line.length; i += 1) {
    const c = line[i] ?? '';
    if (quote === "'") {
      if (c === "'") quote = '';
      else word = (word ?? '') + c;
    } else if (c === '\\' && i + 1 < line.length) {
      i += 1;
      const next = line[i] ?? '';
      // Within double quotes a backslash is itself unless it quotes something.
      word = (word ?? '') + (quote === '"' && !'"\\$`'.includes(next) ? `\\${next}` : next);
    } else if (quote === '"') {
      if (c === '"') quote = '';
      else word = (word ?? '') + c;
    } else if (c === "'" || c === '"') {
      quote = c;
      word ??= '';
    } else if (/\s/.test(c)) {
      if (word !== null) out.push(word);
      word = null;
    } else {
      word = (word ?? '') + c;
    }
  }
  if (quote !== '') throw new Error(`The ${quote === '"' ? 'double' : 'single'} quote is not closed.`);
  if (word !== null) out.push(word);
  return out;
}
