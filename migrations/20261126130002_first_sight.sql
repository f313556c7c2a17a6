-- Logins at the issuer that are shown here as tokens and not as cookies: each is recorded once, whichever replica sees it first.

-- SHA-256 of issuer and session. A row goes ninety days after it was last of use.
create table agentapi_private.seen_sessions (
  hash bytea primary key check (length(hash) = 32),
  user_id uuid not null,
  seen_at timestamptz not null
);
create index seen_sessions_by_time on agentapi_private.seen_sessions (seen_at);
alter table agentapi_private.seen_sessions enable row level security;
alter table agentapi_private.seen_sessions force row level security;
revoke all on agentapi_private.seen_sessions from public, anon, authenticated, service_role;
grant select, insert, update, delete on agentapi_private.seen_sessions to agentapi_system;
create policy system_all on agentapi_private.seen_sessions for all to agentapi_system using ((select agentapi_private.is_service()));

-- Records a login that was never seen before. True: this was the first sight.
create function agentapi.job_see_session(p_hash text, p_org uuid, p_user uuid, p_at timestamptz, p_audit jsonb) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi_private.seen_sessions (hash, user_id, seen_at) values (decode(p_hash, 'hex'), p_user, p_at) on conflict do nothing;
  if found then
    perform agentapi_private.record(p_org, 'user', p_user::text, p_audit);
    delete from agentapi_private.seen_sessions as s where s.seen_at < p_at - interval '90 days';
    return true;
  end if;
  update agentapi_private.seen_sessions as s set seen_at = p_at where s.hash = decode(p_hash, 'hex') and s.seen_at < p_at - interval '1 day';
  return false;
end
$$;
call agentapi_private.publish('agentapi.job_see_session', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126130002';
end
$$;

notify pgrst, 'reload schema';
