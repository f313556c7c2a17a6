// The bodies of the REST API that the console reads and writes, as the control plane's OpenAPI document describes them.

import type { WindowSize } from '../terminal/codec.ts';

export type SpawnState = 'pending' | 'starting' | 'running' | 'stopping' | 'exited' | 'failed' | 'lost';

export interface Exit {
  code: number | null;
  signal: string | null;
  reason: string;
  detail: string;
}

export interface Spawn {
  number: number;
  state: SpawnState;
  started: string | null;
  ended: string | null;
  exit: Exit | null;
}

export interface Workspace {
  source: 'empty' | 'path';
  path?: string;
}

/** What a session may use; what is absent has no limit. */
export interface Limits {
  memory_bytes?: number;
  pids?: number;
  cpu_percent?: number;
  disk_bytes?: number;
  io_bytes_per_second?: number;
}

/** How a spawn is isolated, as its host built it. */
export interface Posture {
  isolation: string;
  profile: string;
  network: 'off' | 'filtered' | 'host';
  limits: Limits;
  /** What is missing of the whole. */
  degraded: string[];
}

/** Who sees a session: whoever made it, or everybody in the organisation. */
export type Visibility = 'private' | 'organization';

export interface Session {
  id: string;
  /** Rises with each change. */
  revision: number;
  name: string | null;
  labels: Record<string, string>;
  agent: string;
  command: string[];
  state: SpawnState;
  state_reason: string | null;
  agent_status: { status: string; reason: string | null } | null;
  unreachable: boolean;
  size: WindowSize;
  workspace: Workspace;
  sandbox: Posture | null;
  host_id: string | null;
  spawns: Spawn[];
  created_by: string;
  visibility: Visibility;
  created_at: string;
  exit: Exit | null;
}

export interface CreateSession {
  agent: string;
  command?: string[];
  args?: string[];
  name?: string;
  labels?: Record<string, string>;
  env?: Record<string, string>;
  size?: WindowSize;
  workspace?: Workspace;
}

export interface Host {
  id: string;
  /** The name that it was enrolled with. */
  name: string | null;
  /** Whether it is the platform's and serves every organisation. */
  shared: boolean;
  connected: boolean;
  last_seen_at: string | null;
  version: string | null;
  facts: HostFacts | null;
  sessions_running: number;
}

export interface HostFacts {
  hostname: string;
  kernel: string;
  arch: string;
  cpus: number;
  memory_bytes: number;
  isolation: string;
  workspace_roots: string[];
  profiles: string[];
  /** What it lacks of the whole isolation. */
  degraded: string[];
}

export interface Agent {
  name: string;
  title: string;
  command: string[];
  installed_on: { host_id: string; version: string | null }[];
  install: string | null;
}

/** The name under which commands of one's own are among the agents. */
export const CUSTOM_AGENT = 'custom';

export interface Page<T> {
  data: T[];
  next_cursor: string | null;
}

export interface Membership {
  organization_id: string;
  organization: string;
  role: string;
}

export interface Me {
  user_id: string;
  name: string;
  organization_id: string;
  organization: string;
  role: string;
  /** Every organisation that one is in. */
  memberships: Membership[];
  version: string;
}

export interface LoginMethods {
  password: boolean;
  issuer: string | null;
  /** Whether links of `agentapi open` are taken; they are, if absent. */
  links?: boolean;
  /** `open`: whoever is in no organisation may found one. */
  sign_up?: string;
}

export interface Problem {
  title: string;
  status: number;
  code: string;
  detail: string;
  request_id: string;
  errors?: { field: string; message: string }[];
}

export type ServerEvent =
  | { event: 'hello'; resume: 'resumed' | 'gap' }
  | { event: 'session'; session: Session }
  | { event: 'session_purged' | 'session_hidden'; id: string }
  | { event: 'host'; host: Host };

export function isEnded(state: SpawnState): boolean {
  return state === 'exited' || state === 'failed' || state === 'lost';
}
