-- What jobs of the control plane do, in nobody's name or in a host's: executable with the key of the service role alone, and, but for the
-- registration of a proof, only with the proof. `p_host`: the job acts on what that host said, and reaches what is placed on it.

-- Makes a proof good: the hash of the secret that this control plane sends. Those registered before end a while later, so that replicas
-- can change one after the other.
create function agentapi.register_proof(p_hash text, p_valid_s integer default 86400, p_others_end_s integer default 600) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hash bytea := decode(p_hash, 'hex');
begin
  if not agentapi_private.is_service() then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  delete from agentapi_private.proofs as p where p.expires_at <= now();
  update agentapi_private.proofs as p set expires_at = least(p.expires_at, now() + make_interval(secs => p_others_end_s))
  where p.hash <> v_hash;
  insert into agentapi_private.proofs (hash, expires_at) values (v_hash, now() + make_interval(secs => p_valid_s))
  on conflict (hash) do update set expires_at = excluded.expires_at;
end
$$;

-- The number up to which a host's outbox is stored; it only grows.
create function agentapi_private.record_seen(p_host uuid, p_seq bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update agentapi.hosts as h set outbox_seq = greatest(h.outbox_seq, p_seq) where h.id = p_host and p_seq is not null;
end
$$;
revoke all on function agentapi_private.record_seen(uuid, bigint) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.record_seen(uuid, bigint) to agentapi_system;

-- In whose name a job writes a record.
create function agentapi_private.record_job(p_org uuid, p_host uuid, p_audit jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_audit) = 'object' then
    perform agentapi_private.record(p_org, case when p_host is null then 'system' else 'host' end,
      coalesce(p_host::text, p_audit ->> 'job'), p_audit);
  end if;
end
$$;
revoke all on function agentapi_private.record_job(uuid, uuid, jsonb) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.record_job(uuid, uuid, jsonb) to agentapi_system;

-- Applies a change that was computed from the session at `p_revision`.
create function agentapi.job_update_session(p_host uuid, p_id uuid, p_revision bigint, p_change jsonb, p_audit jsonb, p_seen bigint)
returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
  v_changed jsonb;
begin
  perform agentapi_private.require_service();
  select s.org_id into v_org from agentapi.user_sessions as s where s.id = p_id and (p_host is null or s.host_id = p_host);
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  v_changed := agentapi_private.apply_change(p_id, p_revision, p_change);
  perform agentapi_private.record_job(v_org, p_host, p_audit);
  perform agentapi_private.record_seen(p_host, p_seen);
  return v_changed;
end
$$;

-- Removes a session. One that is gone already is removed, and leaves no record.
create function agentapi.job_purge_session(p_host uuid, p_id uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
begin
  perform agentapi_private.require_service();
  delete from agentapi.user_sessions as s where s.id = p_id and (p_host is null or s.host_id = p_host) returning s.org_id into v_org;
  if found then
    perform agentapi_private.record_job(v_org, p_host, p_audit);
  end if;
end
$$;

-- Stores a record that goes with no change here.
create function agentapi.job_record_audit(p_org uuid, p_host uuid, p_audit jsonb, p_seen bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  perform agentapi_private.record_job(p_org, p_host, p_audit);
  perform agentapi_private.record_seen(p_host, p_seen);
end
$$;

-- Stores a decision of a host's gateway about a session placed there; one that is known, or of another session, changes nothing.
create function agentapi.job_record_egress(p_host uuid, p_decision jsonb, p_seen bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi.egress_decisions (id, session_id, org_id, created_by, created_at, spawn, host, port, address, verdict, rule,
    bytes_up, bytes_down, duration_ms)
  select (p_decision ->> 'id')::uuid, s.id, s.org_id, p_host, (p_decision ->> 'at')::timestamptz, (p_decision ->> 'spawn')::integer,
    p_decision ->> 'host', (p_decision ->> 'port')::integer, p_decision ->> 'address', p_decision ->> 'verdict', p_decision ->> 'rule',
    (p_decision ->> 'bytes_up')::bigint, (p_decision ->> 'bytes_down')::bigint, (p_decision ->> 'duration_ms')::bigint
  from agentapi.user_sessions as s
  where s.id = (p_decision ->> 'session')::uuid and s.host_id = p_host
  on conflict do nothing;
  perform agentapi_private.record_seen(p_host, p_seen);
end
$$;

-- Makes a host, or changes nothing if it is there. No organisation: shared by all.
create function agentapi.job_create_host(p_host uuid, p_org uuid, p_name text, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi.hosts (id, org_id, name) values (p_host, p_org, p_name) on conflict do nothing;
  if found then
    perform agentapi_private.record_job(coalesce(p_org, '00000000-0000-0000-0000-000000000000'), null, p_audit);
  end if;
end
$$;

-- What a host said of itself when it connected.
create function agentapi.job_host_connected(p_host uuid, p_version text, p_facts jsonb, p_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
begin
  perform agentapi_private.require_service();
  update agentapi.hosts as h set version = p_version, facts = p_facts, last_seen_at = p_at
  where h.id = p_host and h.revoked_at is null returning h.org_id into v_org;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record_job(coalesce(v_org, '00000000-0000-0000-0000-000000000000'), p_host, p_audit);
end
$$;

-- When a host was last heard of.
create function agentapi.job_host_seen(p_host uuid, p_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  update agentapi.hosts as h set last_seen_at = p_at where h.id = p_host;
end
$$;

-- A host, with how many spawns live on it.
create type agentapi.host_row as (id uuid, org_id uuid, name text, version text, facts jsonb, last_seen_at timestamptz, sessions_running bigint);

-- The hosts that an organisation may use. Runs with the caller's own rights.
create function agentapi.hosts_of(p_org uuid) returns setof agentapi.host_row
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select h.id, h.org_id, h.name, h.version, h.facts, h.last_seen_at, agentapi_private.host_load(h.id)
    from agentapi.hosts as h where (h.org_id is null or h.org_id = p_org) and h.revoked_at is null order by h.id;
end
$$;

-- One host, for a job. Reads only, with the rights of the service role.
create function agentapi.job_host(p_host uuid) returns setof agentapi.host_row
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select h.id, h.org_id, h.name, h.version, h.facts, h.last_seen_at, agentapi_private.host_load(h.id)
    from agentapi.hosts as h where h.id = p_host and h.revoked_at is null;
end
$$;

-- Every session that is not settled, of a host, or placed nowhere yet (null). Reads only. Two branches, since `is not distinct from` walks no
-- index.
create function agentapi.job_unsettled(p_host uuid) returns setof agentapi.user_sessions
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_host is null then
    return query
      select * from agentapi.user_sessions as s
      where s.host_id is null and (s.state not in ('exited', 'failed', 'lost') or s.purging or s.restarting) order by s.id;
  else
    return query
      select * from agentapi.user_sessions as s
      where s.host_id = p_host and (s.state not in ('exited', 'failed', 'lost') or s.purging or s.restarting) order by s.id;
  end if;
end
$$;
revoke all on function agentapi.hosts_of(uuid), agentapi.job_host(uuid), agentapi.job_unsettled(uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi.hosts_of(uuid) to authenticated;
grant execute on function agentapi.job_host(uuid), agentapi.job_unsettled(uuid) to service_role;

call agentapi_private.publish('agentapi.register_proof', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_update_session', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_purge_session', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_record_audit', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_record_egress', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_create_host', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_host_connected', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_host_seen', 'agentapi_system', 'service_role');
