// The bodies of the REST API that are about organisations, as the control plane's OpenAPI document describes them.

import type { Limits } from './types.ts';

/** In the order in which they are offered: from whoever may most. */
export const ROLES = ['owner', 'admin', 'member', 'viewer', 'auditor', 'service_account'] as const;
export type Role = (typeof ROLES)[number];

/** What an organisation allows of sandboxes; what is absent narrows nothing. */
export interface SandboxPolicy {
  profiles?: string[];
  /** `off`, `filtered` or `host`: the most open one. */
  network?: string;
  /** `none`, `read_only` or `writable`. */
  mounts?: string;
  limits?: Limits;
}

/** What an organisation wants of its sessions; what is absent has no limit. */
export interface OrganizationSettings {
  session_idle_seconds_max?: number;
  session_age_seconds_max?: number;
  session_retention_days?: number;
  agents?: string[];
  sandbox?: SandboxPolicy;
}

export interface Quotas {
  sessions_max: number | null;
  sessions_per_day_max: number | null;
  viewers_max: number | null;
}

export interface Organization {
  id: string;
  name: string;
  role: string;
  current: boolean;
  settings: OrganizationSettings;
  quotas: Quotas;
  revision: number;
  created_at: string;
}

export interface UpdateOrganization {
  name?: string;
  settings?: OrganizationSettings;
  revision?: number;
}

export interface Member {
  user_id: string;
  name: string | null;
  email: string | null;
  role: string;
  disabled: boolean;
  created_at: string;
}

export interface Invitation {
  id: string;
  email: string;
  role: string;
  state: 'open' | 'accepted' | 'revoked' | 'expired';
  created_by: string;
  created_at: string;
  expires_at: string;
}

export interface CreateInvitation {
  email: string;
  role: string;
  expires_in_seconds?: number;
}

export interface InvitationLink {
  invitation: Invitation;
  token: string;
  url: string;
}

/** What an invitation is to, for whoever holds its link. */
export interface InvitedTo {
  organization: string;
  role: string;
  expires_at: string;
}

export type KeyScope = 'read' | 'sessions' | 'organization';

export interface ApiKey {
  id: string;
  name: string;
  prefix: string;
  user_id: string;
  /** Empty: all that its user may. */
  scopes: KeyScope[];
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
}

export interface CreateApiKey {
  name: string;
  scopes?: KeyScope[];
  expires_in_seconds?: number;
}

export interface NewApiKey {
  api_key: ApiKey;
  key: string;
}

export interface HostEnrolment {
  token: string;
  expires_at: string;
}

export interface AuditEntry {
  id: string;
  org_id: string;
  at: string;
  action: string;
  channel: string;
  actor: { kind: string; id: string; credential?: string | null };
  session_id: string | null;
  host_id: string | null;
  request_id: string | null;
  /** Different for each action. */
  detail: unknown;
}

export interface AuditRecord {
  number: number;
  hash: string;
  entry: AuditEntry;
  personal: { name?: string | null; email?: string | null; ip?: string | null; user_agent?: string | null } | null;
}
