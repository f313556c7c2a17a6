-- What the control plane's store asks beyond the tables: which version the schema has, egress decisions that stand for several connections, and
-- that no session fills the database with them.

-- The version of the newest migration. Each migration from here on replaces it, last of all: whoever starts on an older schema is told.
create function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126060001';
end
$$;
revoke all on function agentapi.job_schema_version() from public, anon, authenticated, service_role;
grant execute on function agentapi.job_schema_version() to service_role;

-- How many connections a decision stands for: more than one if a refusal came again before the first was sent from its host.
alter table agentapi.egress_decisions add column times bigint not null default 1 check (times > 0);
grant delete on agentapi.egress_decisions to agentapi_system;

-- Stores a decision of a host's gateway about a session placed there; one that is known, or of another session, changes nothing. Of a session
-- the newest 10,000 are kept, and at times some hundred more: finding the oldest walks over all of them, which is too much for each.
create or replace function agentapi.job_record_egress(p_host uuid, p_decision jsonb, p_seen bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi.egress_decisions (id, session_id, org_id, created_by, created_at, spawn, host, port, address, verdict, rule,
    bytes_up, bytes_down, duration_ms, times)
  select (p_decision ->> 'id')::uuid, s.id, s.org_id, p_host, (p_decision ->> 'at')::timestamptz, (p_decision ->> 'spawn')::integer,
    p_decision ->> 'host', (p_decision ->> 'port')::integer, p_decision ->> 'address', p_decision ->> 'verdict', p_decision ->> 'rule',
    (p_decision ->> 'bytes_up')::bigint, (p_decision ->> 'bytes_down')::bigint, (p_decision ->> 'duration_ms')::bigint,
    coalesce((p_decision ->> 'times')::bigint, 1)
  from agentapi.user_sessions as s
  where s.id = (p_decision ->> 'session')::uuid and s.host_id = p_host
  on conflict do nothing;
  if found and random() < 0.01 then
    delete from agentapi.egress_decisions as e
    where e.session_id = (p_decision ->> 'session')::uuid and e.id <= (
      select o.id from agentapi.egress_decisions as o
      where o.session_id = (p_decision ->> 'session')::uuid order by o.id desc offset 10000 limit 1);
  end if;
  perform agentapi_private.record_seen(p_host, p_seen);
end
$$;

notify pgrst, 'reload schema';
