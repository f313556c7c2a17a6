// What a role is for, so that nobody is offered what the server would refuse. It decides nothing: the server does, at every request. A test
// compares the table with the server's own, `shared/policy/capabilities.toml`.

import type { Me, Session } from './types.ts';

const OWNER_ADMIN = ['owner', 'admin'];
const WORKERS = ['owner', 'admin', 'member', 'service_account'];

export const CAPABILITIES = {
  'session.create': WORKERS,
  'session.manage_own': WORKERS,
  'session.manage_all': OWNER_ADMIN,
  'terminal.view': [...WORKERS, 'viewer'],
  'terminal.type': WORKERS,
  'organization.manage': OWNER_ADMIN,
  'member.manage': OWNER_ADMIN,
  'owner.grant': ['owner'],
  'api_key.create': WORKERS,
  'api_key.manage': OWNER_ADMIN,
  'host.manage': OWNER_ADMIN,
  'audit.read': [...OWNER_ADMIN, 'auditor'],
} as const satisfies Record<string, readonly string[]>;

export type Capability = keyof typeof CAPABILITIES;

export class Rights {
  private readonly me: Me;

  constructor(me: Me) {
    this.me = me;
  }

  may(capability: Capability): boolean {
    return (CAPABILITIES[capability] as readonly string[]).includes(this.me.role);
  }

  /** Whether the caller may stop, restart, rename and purge it. */
  manages(session: Session): boolean {
    return this.may('session.manage_all') || (this.may('session.manage_own') && session.created_by === this.me.user_id);
  }

  /** Owners are made and unmade by owners alone. */
  managesMember(role: string): boolean {
    return this.may('member.manage') && (role !== 'owner' || this.may('owner.grant'));
  }
}
