-- The audit trail. A record is written in the transaction of the change that it tells of; a chain over the records is made afterwards, in
-- batches, into a second table: a chain inside the write would hold one lock per organisation across every commit.

-- `entry` is the exact text that is hashed. The other columns repeat parts of it for filters, and are checked against it when written.
-- It names people by id only; what is personal stands in audit_personal. No foreign keys: a record outlives what it tells of.
create table agentapi.audit_logs (
  id uuid primary key,
  org_id uuid not null, -- all zeros: of no organisation, the platform's own chain
  created_by text not null, -- a user's or host's id, a job of the control plane, or a role of the database
  actor_kind text not null check (actor_kind in ('user', 'host', 'system', 'database')),
  created_at timestamptz not null, -- when it happened, as its writer says
  recorded_at timestamptz not null default now(),
  action text not null,
  channel text not null,
  session_id uuid,
  host_id uuid,
  entry text not null check (octet_length(entry) <= 65536)
);
create index audit_logs_by_org on agentapi.audit_logs (org_id, id);
create index audit_logs_by_session on agentapi.audit_logs (session_id, id);
-- Counted by the quota of sessions a day: a purge removes the session, never this.
create index audit_logs_creates on agentapi.audit_logs (org_id, recorded_at) where action = 'session.create';

-- hash = sha256(previous hash || seq as 8 bytes || org_id as 16 bytes || record's id as 16 bytes || sha256(entry)); the first previous is
-- 32 zero bytes.
create table agentapi.audit_seals (
  org_id uuid not null,
  seq bigint not null check (seq > 0),
  audit_id uuid not null unique references agentapi.audit_logs (id),
  hash bytea not null,
  sealed_at timestamptz not null default now(),
  primary key (org_id, seq)
);

-- Names, addresses and the like of a record's actor: erased without breaking a hash.
create table agentapi.audit_personal (
  audit_id uuid primary key references agentapi.audit_logs (id),
  org_id uuid not null,
  created_by text not null,
  data jsonb not null check (octet_length(data::text) <= 16384)
);
create index audit_personal_by_org on agentapi.audit_personal (org_id);
create index audit_personal_by_actor on agentapi.audit_personal (created_by);

-- Where each chain ends.
create table agentapi_private.audit_heads (
  org_id uuid primary key,
  seq bigint not null,
  hash bytea not null
);

-- Records without a seal. A queue and not a watermark: a transaction with an early number may commit late.
create table agentapi_private.audit_queue (
  n bigint generated always as identity primary key,
  audit_id uuid not null
);

create function agentapi_private.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise sqlstate 'PT405' using message = 'append_only';
end
$$;
revoke all on function agentapi_private.refuse_change() from public, anon, authenticated, service_role;
create trigger append_only before update or delete on agentapi.audit_logs for each row execute function agentapi_private.refuse_change();
create trigger no_truncate before truncate on agentapi.audit_logs for each statement execute function agentapi_private.refuse_change();
create trigger append_only before update or delete on agentapi.audit_seals for each row execute function agentapi_private.refuse_change();
create trigger no_truncate before truncate on agentapi.audit_seals for each statement execute function agentapi_private.refuse_change();
