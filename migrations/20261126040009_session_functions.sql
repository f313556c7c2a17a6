-- What callers do with sessions. Each function is one transaction: proof of the control plane, capability, idempotency key, quota, write,
-- audit record. Validation of contents is the control plane's; that is why its proof is asked for.

-- Makes a session with its first spawn: {"session": ...}, or {"replay": ...} if the idempotency key was seen before.
create function agentapi.create_session(p_org uuid, p_session jsonb, p_key jsonb, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'session.create');
  v_id uuid := (p_session ->> 'id')::uuid;
  v_at timestamptz := (p_session ->> 'created_at')::timestamptz;
  v_replay jsonb;
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
  perform agentapi_private.claim_session_quota(p_org);
  insert into agentapi.user_sessions (id, org_id, created_by, created_at, visibility, name, labels, agent, command, args, cols, rows,
    workspace, sandbox, desired, generation, stop_grace_ms, revision, state)
  values (v_id, p_org, v_caller, v_at, coalesce(p_session ->> 'visibility', 'private'), p_session ->> 'name', p_session -> 'labels',
    p_session ->> 'agent', p_session -> 'command', p_session -> 'args', (p_session ->> 'cols')::integer, (p_session ->> 'rows')::integer,
    p_session -> 'workspace', p_session -> 'sandbox', 'run', 1, (p_session ->> 'stop_grace_ms')::bigint, 1, 'pending');
  insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state, has_env)
  values (v_id, 1, p_org, v_caller, v_at, 'pending', coalesce((p_session ->> 'has_env')::boolean, false));
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  return jsonb_build_object('session', agentapi_private.session_json(v_id));
end
$$;

-- Whether the caller may change a session: one they cannot see does not exist.
create function agentapi_private.require_session(p_org uuid, p_id uuid) returns agentapi.user_sessions
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
  v_session agentapi.user_sessions;
begin
  select * into v_session from agentapi.user_sessions as s where s.id = p_id and s.org_id = p_org;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  if not (p_org = any (agentapi_private.orgs_with('session.manage_all'))
    or (v_session.created_by = v_caller and p_org = any (agentapi_private.orgs_with('session.manage_own')))) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  return v_session;
end
$$;
revoke all on function agentapi_private.require_session(uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.require_session(uuid, uuid) to agentapi_writer;

-- Applies a change that was computed from the session at `p_revision`.
create function agentapi.update_session(p_org uuid, p_id uuid, p_revision bigint, p_change jsonb, p_audit jsonb) returns jsonb
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
  -- A session that starts again counts again.
  if jsonb_typeof(p_change -> 'new_spawn') = 'object' and v_session.state in ('exited', 'failed', 'lost') then
    perform agentapi_private.claim_session_quota(p_org);
  end if;
  v_changed := agentapi_private.apply_change(p_id, p_revision, p_change);
  perform agentapi_private.record(p_org, 'user', agentapi_private.caller()::text, p_audit);
  return v_changed;
end
$$;

-- Removes a session with all that is its own. One that is gone already is removed, and leaves no record.
create function agentapi.purge_session(p_org uuid, p_id uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require(p_org, 'organization.view');
  if not exists (select from agentapi.user_sessions as s where s.id = p_id and s.org_id = p_org) then
    return;
  end if;
  perform agentapi_private.require_session(p_org, p_id);
  delete from agentapi.user_sessions as s where s.id = p_id and s.org_id = p_org;
  perform agentapi_private.record(p_org, 'user', agentapi_private.caller()::text, p_audit);
end
$$;

-- Takes an idempotency key, or tells what became of it.
create function agentapi.begin_idempotent(p_org uuid, p_key jsonb, p_at timestamptz) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require(p_org, 'organization.view');
  return agentapi_private.begin_key(p_org, p_key, p_at);
end
$$;

-- Stores the answer of a request.
create function agentapi.finish_idempotent(p_org uuid, p_key jsonb, p_status integer, p_body text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  update agentapi.idempotency_keys as k set status = p_status, body = p_body
  where k.org_id = p_org and k.created_by = v_caller and k.route = p_key ->> 'route' and k.key = p_key ->> 'key';
end
$$;

-- Frees a key whose request had no effect.
create function agentapi.release_idempotent(p_org uuid, p_key jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  delete from agentapi.idempotency_keys as k
  where k.org_id = p_org and k.created_by = v_caller and k.route = p_key ->> 'route' and k.key = p_key ->> 'key';
end
$$;

-- Stores a record of something that changes nothing here, such as an attachment, before it is done.
create function agentapi.record_audit(p_org uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  if (p_audit ->> 'entry')::jsonb ->> 'action' = 'session.create' then
    raise sqlstate 'PT422' using message = 'audit_entry';
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- A page of the sessions that the caller sees, newest first: those made before `p_before`. Runs with the caller's own rights. One branch for
-- each index: a condition over all three would read every row of the organisation to find the ten of one member. Planned anew each time: the
-- plan that fits a large organisation walks the index of all of them, and would read them all for a small one.
create function agentapi.sessions_page(p_org uuid, p_limit integer, p_before uuid default null, p_state text default null,
  p_agent text default null, p_host uuid default null, p_labels jsonb default '{}')
returns setof agentapi.user_sessions
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_caller uuid := agentapi_private.caller();
  v_before uuid := coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  v_limit integer := least(greatest(p_limit, 0), 1000);
begin
  if p_org = any (agentapi_private.orgs_with('session.view_all')) then
    return query
      select * from agentapi.user_sessions as s
      where s.org_id = p_org and s.id < v_before and (p_state is null or s.state = p_state) and (p_agent is null or s.agent = p_agent)
        and (p_host is null or s.host_id = p_host) and s.labels @> p_labels
      order by s.id desc limit v_limit;
  else
    return query
      select * from (
        (select * from agentapi.user_sessions as s
          where s.org_id = p_org and s.created_by = v_caller and s.id < v_before
            and (p_state is null or s.state = p_state) and (p_agent is null or s.agent = p_agent)
            and (p_host is null or s.host_id = p_host) and s.labels @> p_labels
          order by s.id desc limit v_limit)
        union all
        (select * from agentapi.user_sessions as s
          where s.org_id = p_org and s.visibility = 'organization' and s.created_by <> v_caller and s.id < v_before
            and (p_state is null or s.state = p_state) and (p_agent is null or s.agent = p_agent)
            and (p_host is null or s.host_id = p_host) and s.labels @> p_labels
          order by s.id desc limit v_limit)
      ) as page
      order by page.id desc limit v_limit;
  end if;
end
$$;
revoke all on function agentapi.sessions_page(uuid, integer, uuid, text, text, uuid, jsonb) from public, anon, authenticated, service_role;
grant execute on function agentapi.sessions_page(uuid, integer, uuid, text, text, uuid, jsonb) to authenticated;
-- It runs with the caller's rights, so they need the schema's name; what is in it they may execute is what policies ask, and no more.
grant usage on schema agentapi_private to authenticated, service_role;

call agentapi_private.publish('agentapi.create_session', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.update_session', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.purge_session', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.begin_idempotent', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.finish_idempotent', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.release_idempotent', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.record_audit', 'agentapi_writer', 'authenticated');
