-- Who there is: organisations, people, their roles, and what they prove themselves with. Ids are UUIDv7 made by the application.

-- A person or a program of theirs. No foreign key to auth.users: rows come at the first verified login from any issuer, and a user that
-- is deleted elsewhere must take no running session along.
create table agentapi.users (
  id uuid primary key, -- of Supabase Auth: the `sub` of the token; of another issuer: made here
  kind text not null default 'person' check (kind in ('person', 'service')),
  issuer text not null check (length(issuer) between 1 and 512),
  subject text not null check (length(subject) between 1 and 512),
  name text check (length(name) <= 256),
  email text check (length(email) <= 320),
  email_verified boolean not null default false,
  created_at timestamptz not null default now(),
  disabled_at timestamptz, -- whoever is disabled has no capability anywhere
  unique (issuer, subject)
);

create table agentapi.organizations (
  id uuid primary key,
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  name text not null check (length(name) between 1 and 128),
  settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
  -- Quotas; null: no limit.
  sessions_max integer check (sessions_max >= 0),
  sessions_per_day_max integer check (sessions_per_day_max >= 0),
  revision bigint not null default 1
);
create index organizations_created_by on agentapi.organizations (created_by);

create table agentapi.memberships (
  org_id uuid not null references agentapi.organizations (id),
  user_id uuid not null references agentapi.users (id),
  role text not null check (role in ('owner', 'admin', 'member', 'viewer', 'auditor', 'service_account')),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  primary key (org_id, user_id)
);
create index memberships_by_user on agentapi.memberships (user_id, org_id) include (role);
create index memberships_created_by on agentapi.memberships (created_by);

-- A link that makes the owner of a verified address a member.
create table agentapi.invitations (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  email text not null check (email = lower(email) and length(email) between 3 and 320),
  role text not null check (role in ('owner', 'admin', 'member', 'viewer', 'auditor')),
  token_hash bytea not null unique check (length(token_hash) = 32),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  accepted_at timestamptz,
  accepted_by uuid references agentapi.users (id)
);
create index invitations_by_org on agentapi.invitations (org_id, id);
create index invitations_by_email on agentapi.invitations (email);
create index invitations_created_by on agentapi.invitations (created_by);
create index invitations_accepted_by on agentapi.invitations (accepted_by);

-- Of secrets there is a hash only.
create table agentapi.api_keys (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  user_id uuid not null references agentapi.users (id), -- in whose name it acts
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  name text not null check (length(name) between 1 and 128),
  prefix text not null check (length(prefix) <= 32),
  hash bytea not null unique check (length(hash) = 32),
  scopes text[] not null default '{}',
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz
);
create index api_keys_by_org on agentapi.api_keys (org_id, id);
create index api_keys_by_user on agentapi.api_keys (user_id);
create index api_keys_created_by on agentapi.api_keys (created_by);

create table agentapi.hosts (
  id uuid primary key,
  org_id uuid references agentapi.organizations (id), -- null: shared by all
  created_by uuid references agentapi.users (id), -- null: made by the platform
  created_at timestamptz not null default now(),
  name text check (length(name) <= 128),
  version text,
  facts jsonb,
  last_seen_at timestamptz,
  outbox_seq bigint not null default 0,
  revoked_at timestamptz
);
create index hosts_by_org on agentapi.hosts (org_id, id);
create index hosts_created_by on agentapi.hosts (created_by);

create table agentapi.host_credentials (
  hash bytea primary key check (length(hash) = 32),
  host_id uuid not null references agentapi.hosts (id),
  org_id uuid references agentapi.organizations (id),
  created_by uuid references agentapi.users (id),
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);
create index host_credentials_by_host on agentapi.host_credentials (host_id);
create index host_credentials_by_org on agentapi.host_credentials (org_id);
create index host_credentials_created_by on agentapi.host_credentials (created_by);

-- A token that a machine becomes a host with, once.
create table agentapi.host_enrolments (
  hash bytea primary key check (length(hash) = 32),
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  name text not null check (length(name) between 1 and 128),
  expires_at timestamptz not null
);
create index host_enrolments_by_org on agentapi.host_enrolments (org_id);
create index host_enrolments_created_by on agentapi.host_enrolments (created_by);
create index host_enrolments_by_expiry on agentapi.host_enrolments (expires_at);

-- A code that `agentapi open` makes, good for one login.
create table agentapi.login_codes (
  hash bytea primary key check (length(hash) = 32),
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index login_codes_by_org on agentapi.login_codes (org_id);
create index login_codes_created_by on agentapi.login_codes (created_by);
create index login_codes_by_expiry on agentapi.login_codes (expires_at);

-- A browser that is logged in. The refresh token is encrypted by the control plane, which alone has the key.
create table agentapi.logins (
  hash bytea primary key check (length(hash) = 32),
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null,
  expires_at timestamptz not null,
  auth_session text, -- `session_id` of the issuer's token
  refresh_key_id text,
  refresh_ciphertext bytea
);
create index logins_by_org on agentapi.logins (org_id);
create index logins_created_by on agentapi.logins (created_by);
create index logins_by_expiry on agentapi.logins (expires_at);
