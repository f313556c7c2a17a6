-- What the functions of callers and of jobs share. These run with the rights of the function that calls them: no row beyond its policies.

-- A session with its spawns, as the control plane reads it.
create function agentapi_private.session_json(p_id uuid) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select to_jsonb(s) || jsonb_build_object('spawns', (
      select coalesce(jsonb_agg(to_jsonb(p) order by p.number), '[]') from agentapi.spawns as p where p.session_id = s.id))
    from agentapi.user_sessions as s where s.id = p_id);
end
$$;

-- Stores an audit record: {"entry": text, "personal": object or null}. Its text must say the same as the facts of the call.
create function agentapi_private.record(p_org uuid, p_kind text, p_actor text, p_audit jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := p_audit ->> 'entry';
  v_entry jsonb := v_text::jsonb;
  v_id uuid := (v_entry ->> 'id')::uuid;
begin
  if v_id is null or v_entry ->> 'action' is null or v_entry ->> 'channel' is null or v_entry ->> 'at' is null
    or (v_entry ->> 'org_id')::uuid is distinct from p_org
    or v_entry #>> '{actor,kind}' is distinct from p_kind or v_entry #>> '{actor,id}' is distinct from p_actor then
    raise sqlstate 'PT422' using message = 'audit_entry';
  end if;
  -- One that is there was delivered twice, and stays as it was.
  insert into agentapi.audit_logs (id, org_id, created_by, actor_kind, created_at, action, channel, session_id, host_id, entry)
  values (v_id, p_org, p_actor, p_kind, (v_entry ->> 'at')::timestamptz, v_entry ->> 'action', v_entry ->> 'channel',
    (v_entry ->> 'session_id')::uuid, (v_entry ->> 'host_id')::uuid, v_text)
  on conflict do nothing;
  if not found then
    return;
  end if;
  insert into agentapi_private.audit_queue (audit_id) values (v_id);
  if jsonb_typeof(p_audit -> 'personal') = 'object' then
    insert into agentapi.audit_personal (audit_id, org_id, created_by, data) values (v_id, p_org, p_actor, p_audit -> 'personal');
  end if;
end
$$;

-- Stores a record whose text the database itself writes: what it tells of was not known before.
create function agentapi_private.record_fact(p_org uuid, p_kind text, p_actor text, p_action text, p_session uuid, p_host uuid, p_detail jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Random and not of time: nothing but its uniqueness is asked of it.
  v_id uuid := gen_random_uuid();
  v_channel text := case p_kind when 'database' then 'database' when 'user' then 'web' else 'system' end;
begin
  insert into agentapi.audit_logs (id, org_id, created_by, actor_kind, created_at, action, channel, session_id, host_id, entry)
  values (v_id, p_org, p_actor, p_kind, now(), p_action, v_channel, p_session, p_host,
    jsonb_build_object('id', v_id, 'org_id', p_org, 'at', now(), 'action', p_action, 'channel', v_channel, 'session_id', p_session,
      'host_id', p_host, 'actor', jsonb_build_object('kind', p_kind, 'id', p_actor), 'detail', p_detail)::text);
  insert into agentapi_private.audit_queue (audit_id) values (v_id);
end
$$;

-- Takes an idempotency key of the caller, or tells what became of it: {"state": "fresh" | "done" | "in_flight" | "mismatch"}.
-- Kept for a day. Another request with the same key that is not over yet is waited for.
create function agentapi_private.begin_key(p_org uuid, p_key jsonb, p_at timestamptz) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
  v_found agentapi.idempotency_keys;
begin
  delete from agentapi.idempotency_keys as k
  where k.org_id = p_org and k.created_by = v_caller and k.route = p_key ->> 'route' and k.key = p_key ->> 'key'
    and k.created_at < p_at - interval '1 day';
  insert into agentapi.idempotency_keys (org_id, created_by, route, key, created_at, request_hash)
  values (p_org, v_caller, p_key ->> 'route', p_key ->> 'key', p_at, p_key ->> 'request_hash')
  on conflict do nothing;
  if found then
    return jsonb_build_object('state', 'fresh');
  end if;
  select * into v_found from agentapi.idempotency_keys as k
  where k.org_id = p_org and k.created_by = v_caller and k.route = p_key ->> 'route' and k.key = p_key ->> 'key';
  if not found then
    -- It was released between the two: whoever asks again gets it.
    return jsonb_build_object('state', 'in_flight');
  end if;
  if v_found.request_hash <> p_key ->> 'request_hash' then
    return jsonb_build_object('state', 'mismatch');
  end if;
  if v_found.status is null then
    return jsonb_build_object('state', 'in_flight');
  end if;
  return jsonb_build_object('state', 'done', 'status', v_found.status, 'body', v_found.body);
end
$$;

-- Writes a spawn as the control plane computed it.
create function agentapi_private.write_spawn(p_session uuid, p_spawn jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update agentapi.spawns as p set
    state = p_spawn ->> 'state',
    accepted = (p_spawn ->> 'accepted')::boolean,
    report_generation = (p_spawn ->> 'report_generation')::bigint,
    report_seq = (p_spawn ->> 'report_seq')::bigint,
    boot_id = p_spawn ->> 'boot_id',
    started_at = (p_spawn ->> 'started_at')::timestamptz,
    ended_at = (p_spawn ->> 'ended_at')::timestamptz,
    exit = nullif(p_spawn -> 'exit', 'null'),
    posture = nullif(p_spawn -> 'posture', 'null')
  where p.session_id = p_session and p.number = (p_spawn ->> 'number')::integer;
end
$$;

-- Applies a change to a session that is still at `p_revision`. What the change does not name stays.
create function agentapi_private.apply_change(p_id uuid, p_revision bigint, p_change jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spawn jsonb := nullif(p_change -> 'spawn', 'null');
  v_new jsonb := nullif(p_change -> 'new_spawn', 'null');
  v_org uuid;
  v_maker uuid;
begin
  update agentapi.user_sessions as s set
    name = case when p_change ? 'name' then p_change ->> 'name' else s.name end,
    labels = coalesce(p_change -> 'labels', s.labels),
    visibility = coalesce(p_change ->> 'visibility', s.visibility),
    cols = coalesce((p_change ->> 'cols')::integer, s.cols),
    rows = coalesce((p_change ->> 'rows')::integer, s.rows),
    host_id = coalesce((p_change ->> 'host_id')::uuid, s.host_id),
    run_command = coalesce(p_change -> 'run_command', s.run_command),
    desired = coalesce(p_change ->> 'desired', s.desired),
    generation = s.generation + (p_change ? 'desired')::integer,
    stop_grace_ms = coalesce((p_change ->> 'stop_grace_ms')::bigint, s.stop_grace_ms),
    stop_force = coalesce((p_change ->> 'stop_force')::boolean, s.stop_force),
    purging = coalesce((p_change ->> 'purging')::boolean, s.purging),
    restarting = coalesce((p_change ->> 'restarting')::boolean, s.restarting),
    revision = s.revision + 1,
    -- Of the newest spawn.
    state = case
      when v_new is not null then 'pending'
      when (v_spawn ->> 'number')::integer = (select max(p.number) from agentapi.spawns as p where p.session_id = s.id)
        then v_spawn ->> 'state'
      else s.state
    end
  where s.id = p_id and s.revision = p_revision
  returning s.org_id, s.created_by into v_org, v_maker;
  if not found then
    raise sqlstate 'PT409' using message = 'stale';
  end if;
  if v_spawn is not null then
    perform agentapi_private.write_spawn(p_id, v_spawn);
  end if;
  if v_new is not null then
    insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state)
    values (p_id, (v_new ->> 'number')::integer, v_org, v_maker, now(), 'pending');
  end if;
  return agentapi_private.session_json(p_id);
end
$$;

revoke all on function agentapi_private.session_json(uuid), agentapi_private.record(uuid, text, text, jsonb),
  agentapi_private.begin_key(uuid, jsonb, timestamptz), agentapi_private.write_spawn(uuid, jsonb),
  agentapi_private.apply_change(uuid, bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.session_json(uuid), agentapi_private.record(uuid, text, text, jsonb),
  agentapi_private.write_spawn(uuid, jsonb), agentapi_private.apply_change(uuid, bigint, jsonb) to agentapi_writer, agentapi_system;
grant execute on function agentapi_private.begin_key(uuid, jsonb, timestamptz) to agentapi_writer;
revoke all on function agentapi_private.record_fact(uuid, text, text, text, uuid, uuid, jsonb) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.record_fact(uuid, text, text, text, uuid, uuid, jsonb) to agentapi_system;
