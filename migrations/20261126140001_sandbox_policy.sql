-- What an organisation allows of its sessions' sandboxes: written down with each spawn, for its host, which narrows the profile by it too.

alter table agentapi.spawns add column sandbox_policy jsonb;

-- Whether a policy allows a request. Parts of a policy that are not what they should be allow nothing, as in the control plane.
create function agentapi_private.sandbox_allowed(p_policy jsonb, p_request jsonb) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  c_networks constant text[] := array['off', 'filtered', 'host'];
  v_mounts jsonb := coalesce(p_request -> 'mounts', '[]');
begin
  if p_policy is null or jsonb_typeof(p_policy) = 'null' then
    return true;
  end if;
  return jsonb_typeof(p_policy) = 'object'
    and (not p_policy ? 'profiles' or p_policy -> 'profiles' ? coalesce(p_request ->> 'profile', 'dev'))
    and (not p_policy ? 'network' or not p_request ? 'network'
      or coalesce(array_position(c_networks, p_request ->> 'network') <= array_position(c_networks, p_policy ->> 'network'), false))
    and case p_policy ->> 'mounts'
      when 'writable' then true
      when 'read_only' then not v_mounts @> '[{"writable": true}]'
      when 'none' then v_mounts = '[]'
      else not p_policy ? 'mounts'
    end
    and not exists (
      select from jsonb_each(coalesce(p_policy -> 'limits', '{}')) as most
        join jsonb_each(coalesce(p_request -> 'limits', '{}')) as asked on asked.key = most.key
      where asked.value > most.value);
end
$$;
revoke all on function agentapi_private.sandbox_allowed(jsonb, jsonb) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.sandbox_allowed(jsonb, jsonb) to agentapi_writer, agentapi_system;

-- As before, and only a sandbox that the organisation allows. What was written is answered as it was written, without reading it again.
create or replace function agentapi.create_session(p_org uuid, p_session jsonb, p_key jsonb, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'session.create');
  v_id uuid := (p_session ->> 'id')::uuid;
  v_at timestamptz := (p_session ->> 'created_at')::timestamptz;
  v_replay jsonb;
  v_settings jsonb;
  v_session jsonb;
  v_spawn jsonb;
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
  select o.settings into v_settings from agentapi.organizations as o where o.id = p_org;
  if jsonb_typeof(v_settings -> 'agents') = 'array' and not v_settings -> 'agents' ? (p_session ->> 'agent') then
    raise sqlstate 'PT409' using message = 'agent_not_allowed';
  end if;
  if not agentapi_private.sandbox_allowed(v_settings -> 'sandbox', p_session -> 'sandbox') then
    raise sqlstate 'PT409' using message = 'sandbox_not_allowed';
  end if;
  perform agentapi_private.claim_session_quota(p_org);
  insert into agentapi.user_sessions as s (id, org_id, created_by, created_at, visibility, name, labels, agent, command, args, cols, rows,
    workspace, sandbox, desired, generation, stop_grace_ms, revision, state)
  values (v_id, p_org, v_caller, v_at, coalesce(p_session ->> 'visibility', 'private'), p_session ->> 'name', p_session -> 'labels',
    p_session ->> 'agent', p_session -> 'command', p_session -> 'args', (p_session ->> 'cols')::integer, (p_session ->> 'rows')::integer,
    p_session -> 'workspace', p_session -> 'sandbox', 'run', 1, (p_session ->> 'stop_grace_ms')::bigint, 1, 'pending')
  returning to_jsonb(s) into v_session;
  insert into agentapi.spawns as p (session_id, number, org_id, created_by, created_at, state, has_env, sandbox_policy)
  values (v_id, 1, p_org, v_caller, v_at, 'pending', coalesce((p_session ->> 'has_env')::boolean, false), nullif(v_settings -> 'sandbox', 'null'))
  returning to_jsonb(p) into v_spawn;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  return jsonb_build_object('session', v_session || jsonb_build_object('spawns', jsonb_build_array(v_spawn)));
end
$$;

-- As before, and a new spawn has with it what the organisation allows. A restart that waited for the end of a spawn is not refused here: its
-- host does, in the session's own record.
create or replace function agentapi_private.apply_change(p_id uuid, p_revision bigint, p_change jsonb) returns jsonb
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
    insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state, sandbox_policy)
    values (p_id, (v_new ->> 'number')::integer, v_org, v_maker, now(), 'pending',
      (select nullif(o.settings -> 'sandbox', 'null') from agentapi.organizations as o where o.id = v_org));
  end if;
  return agentapi_private.session_json(p_id);
end
$$;

-- As before, and a session is started again only as its organisation allows.
create or replace function agentapi.update_session(p_org uuid, p_id uuid, p_revision bigint, p_change jsonb, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session agentapi.user_sessions := agentapi_private.require_session(p_org, p_id);
  v_changed jsonb;
begin
  if v_session.revision <> p_revision then
    raise sqlstate 'PT409' using message = 'stale';
  end if;
  -- A session that starts again counts again, under what its organisation allows now.
  if jsonb_typeof(p_change -> 'new_spawn') = 'object' and v_session.state in ('exited', 'failed', 'lost') then
    if not agentapi_private.sandbox_allowed(
      (select o.settings -> 'sandbox' from agentapi.organizations as o where o.id = p_org), v_session.sandbox) then
      raise sqlstate 'PT409' using message = 'sandbox_not_allowed';
    end if;
    perform agentapi_private.claim_session_quota(p_org);
  end if;
  v_changed := agentapi_private.apply_change(p_id, p_revision, p_change);
  perform agentapi_private.record(p_org, 'user', agentapi_private.caller()::text, p_audit);
  return v_changed;
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126140001';
end
$$;

notify pgrst, 'reload schema';
