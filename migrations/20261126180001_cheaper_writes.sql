-- What writes cost. To give back the rows that were written asks the policies of reading as well, and makes the whole session once more into
-- JSON; and the organisation was read twice. The control plane knows what it wrote: it is told what it could not know.

-- As before, and it gives the organisation's settings.
drop function agentapi_private.claim_session_quota(uuid);
create function agentapi_private.claim_session_quota(p_org uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_running_max integer;
  v_day_max integer;
  v_connections integer := current_setting('max_connections')::integer;
  v_lock bigint := hashtextextended('agentapi.quota:' || p_org, 0);
  v_reached text;
  v_settings jsonb;
begin
  select o.sessions_max, o.sessions_per_day_max, o.settings into v_running_max, v_day_max, v_settings from agentapi.organizations as o where o.id = p_org;
  if v_running_max is null and v_day_max is null then
    return v_settings;
  end if;
  if agentapi_private.quota_reached(p_org, v_running_max, v_day_max, v_connections) is null then
    begin
      perform pg_advisory_xact_lock_shared(v_lock);
      if agentapi_private.quota_reached(p_org, v_running_max, v_day_max, v_connections) is null then
        return v_settings;
      end if;
      -- Gives up the shared lock: of two that hold it, none could get it alone.
      raise sqlstate 'AG001';
    exception when sqlstate 'AG001' then
      null;
    end;
  end if;
  perform pg_advisory_xact_lock(v_lock);
  v_reached := agentapi_private.quota_reached(p_org, v_running_max, v_day_max, 1);
  if v_reached is not null then
    raise sqlstate 'PT429' using message = v_reached;
  end if;
  return v_settings;
end
$$;
call agentapi_private.publish('agentapi_private.claim_session_quota', 'agentapi_policy', 'agentapi_writer');

-- Makes a session. The quota comes first: it is asked with the settings.
create function agentapi.make_session(p_org uuid, p_session jsonb, p_key jsonb, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'session.create');
  v_id uuid := (p_session ->> 'id')::uuid;
  v_at timestamptz := (p_session ->> 'created_at')::timestamptz;
  v_replay jsonb;
  v_settings jsonb;
  v_policy jsonb;
begin
  if (p_audit ->> 'entry')::jsonb ->> 'action' is distinct from 'session.create' then
    -- The quota of a day counts these records.
    raise sqlstate 'PT422' using message = 'audit_entry';
  end if;
  if jsonb_typeof(p_key) = 'object' then
    v_replay := agentapi_private.begin_key(p_org, p_key, v_at);
    if v_replay ->> 'state' <> 'fresh' then
      return jsonb_build_object('replay', v_replay);
    end if;
  end if;
  v_settings := agentapi_private.claim_session_quota(p_org);
  v_policy := nullif(v_settings -> 'sandbox', 'null');
  if jsonb_typeof(v_settings -> 'agents') = 'array' and not v_settings -> 'agents' ? (p_session ->> 'agent') then
    raise sqlstate 'PT409' using message = 'agent_not_allowed';
  end if;
  if not agentapi_private.sandbox_allowed(v_policy, p_session -> 'sandbox') then
    raise sqlstate 'PT409' using message = 'sandbox_not_allowed';
  end if;
  insert into agentapi.user_sessions (id, org_id, created_by, created_at, visibility, name, labels, agent, command, args, cols, rows,
    workspace, sandbox, desired, generation, stop_grace_ms, revision, state)
  values (v_id, p_org, v_caller, v_at, coalesce(p_session ->> 'visibility', 'private'), p_session ->> 'name', p_session -> 'labels',
    p_session ->> 'agent', p_session -> 'command', p_session -> 'args', (p_session ->> 'cols')::integer, (p_session ->> 'rows')::integer,
    p_session -> 'workspace', p_session -> 'sandbox', 'run', 1, (p_session ->> 'stop_grace_ms')::bigint, 1, 'pending');
  insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state, has_env, sandbox_policy)
  values (v_id, 1, p_org, v_caller, v_at, 'pending', coalesce((p_session ->> 'has_env')::boolean, false), v_policy);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  return jsonb_build_object('made', jsonb_build_object('sandbox_policy', v_policy));
end
$$;
call agentapi_private.publish('agentapi.make_session', 'agentapi_writer', 'authenticated');

-- For a control plane of before, which runs on until each replica is the new one: it is answered the session.
create or replace function agentapi.create_session(p_org uuid, p_session jsonb, p_key jsonb, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb;
begin
  perform agentapi_private.require(p_org, 'session.create');
  v_answer := agentapi.make_session(p_org, p_session, p_key, p_audit);
  if v_answer ? 'made' then
    return jsonb_build_object('session', agentapi_private.session_json((p_session ->> 'id')::uuid));
  end if;
  return v_answer;
end
$$;

-- As before, and what waits is taken by where it ends: a list of places was looked up by reading the whole queue, with all that was taken from it
-- since it was last vacuumed.
create or replace function agentapi.job_seal_audit(p_max integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last bigint;
  v_record record;
  v_org uuid;
  v_seq bigint;
  v_hash bytea;
  v_orgs uuid[] := '{}';
  v_ids uuid[] := '{}';
  v_seqs bigint[] := '{}';
  v_hashes bytea[] := '{}';
begin
  perform agentapi_private.require_service();
  if not pg_try_advisory_xact_lock(hashtextextended('agentapi.sealer', 0)) then
    return 0;
  end if;
  select max(q.n) into v_last from (select n from agentapi_private.audit_queue order by n limit p_max) as q;
  for v_record in
    with taken as (
      delete from agentapi_private.audit_queue as q
      where q.n <= v_last returning q.n, q.audit_id)
    select a.id, a.org_id, sha256(convert_to(a.entry, 'UTF8')) as entry_hash
    from taken join agentapi.audit_logs as a on a.id = taken.audit_id
    order by a.org_id, taken.n
  loop
    if v_org is distinct from v_record.org_id then
      if v_org is not null then
        update agentapi_private.audit_heads as h set seq = v_seq, hash = v_hash where h.org_id = v_org;
      end if;
      v_org := v_record.org_id;
      insert into agentapi_private.audit_heads (org_id, seq, hash) values (v_org, 0, decode(repeat('00', 32), 'hex')) on conflict do nothing;
      select h.seq, h.hash into v_seq, v_hash from agentapi_private.audit_heads as h where h.org_id = v_org;
    end if;
    v_seq := v_seq + 1;
    v_hash := sha256(v_hash || int8send(v_seq) || uuid_send(v_org) || uuid_send(v_record.id) || v_record.entry_hash);
    v_orgs := array_append(v_orgs, v_org);
    v_ids := array_append(v_ids, v_record.id);
    v_seqs := array_append(v_seqs, v_seq);
    v_hashes := array_append(v_hashes, v_hash);
  end loop;
  if v_org is null then
    return 0;
  end if;
  update agentapi_private.audit_heads as h set seq = v_seq, hash = v_hash where h.org_id = v_org;
  insert into agentapi.audit_seals (org_id, seq, audit_id, hash)
  select * from unnest(v_orgs, v_seqs, v_ids, v_hashes);
  return cardinality(v_ids);
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126180001';
end
$$;

notify pgrst, 'reload schema';
