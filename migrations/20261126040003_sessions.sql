-- What runs: sessions, their spawns, what their egress gateways decided, requests that must have one effect; and what agents are given.

create table agentapi.user_sessions (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null,
  visibility text not null default 'private' check (visibility in ('private', 'organization')),
  name text,
  labels jsonb not null check (jsonb_typeof(labels) = 'object'),
  agent text not null,
  command jsonb not null, -- as asked for
  args jsonb not null,
  run_command jsonb, -- as the host ran it
  cols integer not null,
  rows integer not null,
  workspace jsonb not null,
  sandbox jsonb not null,
  host_id uuid references agentapi.hosts (id),
  desired text not null check (desired in ('run', 'stop')),
  generation bigint not null,
  stop_grace_ms bigint not null,
  stop_force boolean not null default false,
  purging boolean not null default false,
  restarting boolean not null default false, -- a new spawn is wanted as soon as the living one ended
  revision bigint not null, -- grows with each change, so that a late change is known to be late
  state text not null check (state in ('pending', 'starting', 'running', 'stopping', 'exited', 'failed', 'lost'))
);
-- Pages: of an organisation, of one person in it, of what is shared in it. Ids grow with time, so they are the order.
create index user_sessions_by_org on agentapi.user_sessions (org_id, id);
create index user_sessions_by_maker on agentapi.user_sessions (org_id, created_by, id);
create index user_sessions_shared on agentapi.user_sessions (org_id, id) where visibility = 'organization';
create index user_sessions_created_by on agentapi.user_sessions (created_by);
create index user_sessions_by_host on agentapi.user_sessions (host_id, state);
-- Few of many: what the control plane has to settle, and what counts against a quota.
create index user_sessions_unsettled on agentapi.user_sessions (host_id, id)
  where state not in ('exited', 'failed', 'lost') or purging or restarting;
create index user_sessions_living on agentapi.user_sessions (org_id) where state not in ('exited', 'failed', 'lost');

create table agentapi.spawns (
  session_id uuid not null references agentapi.user_sessions (id) on delete cascade,
  number integer not null check (number > 0),
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null,
  state text not null check (state in ('pending', 'starting', 'running', 'stopping', 'exited', 'failed', 'lost')),
  accepted boolean not null default false, -- a host said that it has it
  has_env boolean not null default false, -- its environment came with the request and lives in memory until accepted
  report_generation bigint not null default 0,
  report_seq bigint not null default 0,
  boot_id text,
  started_at timestamptz,
  ended_at timestamptz,
  exit jsonb,
  posture jsonb,
  primary key (session_id, number)
);
create index spawns_by_org on agentapi.spawns (org_id);
create index spawns_created_by on agentapi.spawns (created_by);

-- One row per connection out of a session; goes with its session. Written by the host that the session is placed on.
create table agentapi.egress_decisions (
  id uuid primary key,
  session_id uuid not null references agentapi.user_sessions (id) on delete cascade,
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.hosts (id),
  created_at timestamptz not null,
  spawn integer not null,
  host text not null,
  port integer not null check (port between 0 and 65535),
  address text,
  verdict text not null,
  rule text not null,
  bytes_up bigint not null,
  bytes_down bigint not null,
  duration_ms bigint not null
);
create index egress_decisions_by_session on agentapi.egress_decisions (session_id, id);
create index egress_decisions_by_verdict on agentapi.egress_decisions (session_id, verdict, id);
create index egress_decisions_by_org on agentapi.egress_decisions (org_id);
create index egress_decisions_created_by on agentapi.egress_decisions (created_by);

create table agentapi.idempotency_keys (
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id),
  route text not null,
  key text not null check (length(key) between 1 and 255),
  created_at timestamptz not null,
  request_hash text not null,
  status integer, -- null: the first request is still at work, or its outcome was lost
  body text,
  primary key (org_id, created_by, route, key)
);
create index idempotency_keys_created_by on agentapi.idempotency_keys (created_by);
create index idempotency_keys_by_age on agentapi.idempotency_keys (created_at);

create table agentapi.mcp_configs (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  user_id uuid references agentapi.users (id), -- null: of the whole organisation
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  name text not null check (length(name) between 1 and 128),
  spec jsonb not null,
  enabled boolean not null default true,
  revision bigint not null default 1,
  unique nulls not distinct (org_id, user_id, name)
);
create index mcp_configs_by_user on agentapi.mcp_configs (user_id);
create index mcp_configs_created_by on agentapi.mcp_configs (created_by);

create table agentapi.system_prompts (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  user_id uuid references agentapi.users (id), -- null: of the whole organisation
  created_by uuid not null references agentapi.users (id),
  created_at timestamptz not null default now(),
  name text not null check (length(name) between 1 and 128),
  body text not null,
  revision bigint not null default 1,
  unique nulls not distinct (org_id, user_id, name)
);
create index system_prompts_by_user on agentapi.system_prompts (user_id);
create index system_prompts_created_by on agentapi.system_prompts (created_by);
