-- What organisations want of their sessions: allowed agents, and times after which sessions are stopped or purged. Keys: at most two live ones of
-- a name, so that one can take the place of the other; none outlives the membership.

-- A setting that is a number; null: none, or something else that somebody wrote by hand.
create function agentapi_private.number_setting(p_settings jsonb, p_name text) returns bigint
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case when jsonb_typeof(p_settings -> p_name) = 'number' then trunc((p_settings ->> p_name)::numeric)::bigint end;
end
$$;
revoke all on function agentapi_private.number_setting(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.number_setting(jsonb, text) to agentapi_system;

-- Which sessions' time is over, and when to look again: {"due": [{"id", "why": "idle" | "age" | "retention"}], "next": time or null}. Who had to
-- do with a session last is in the audit trail; what its host says is nobody's doing.
create function agentapi.job_expiry(p_now timestamptz) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return (
    with orgs as (
      select o.id, make_interval(secs => least(agentapi_private.number_setting(o.settings, 'session_idle_seconds_max'), 31622400)) as idle,
        make_interval(secs => least(agentapi_private.number_setting(o.settings, 'session_age_seconds_max'), 31622400)) as age,
        make_interval(days => least(agentapi_private.number_setting(o.settings, 'session_retention_days'), 3660)::integer) as kept
      from agentapi.organizations as o where o.settings <> '{}'),
    living as (
      select s.id, o.idle, o.age,
        (select p.created_at from agentapi.spawns as p where p.session_id = s.id order by p.number desc limit 1) as began,
        (select a.created_at from agentapi.audit_logs as a where a.session_id = s.id and a.actor_kind = 'user'
          order by a.id desc limit 1) as touched
      from orgs as o join agentapi.user_sessions as s on s.org_id = o.id
      where (o.idle is not null or o.age is not null) and s.state not in ('exited', 'failed', 'lost') and s.desired = 'run'),
    ends as (
      select l.id, greatest(l.began, l.touched) + l.idle as idle_end, l.began + l.age as age_end from living as l),
    -- Ids grow with time, so the oldest come first. The rest is due at the next look.
    old as (
      select s.id from orgs as o cross join lateral (
        select u.id from agentapi.user_sessions as u
        where u.org_id = o.id and u.created_at <= p_now - o.kept and u.state in ('exited', 'failed', 'lost') and not u.purging
          and (select coalesce(p.ended_at, p.created_at) from agentapi.spawns as p where p.session_id = u.id
            order by p.number desc limit 1) <= p_now - o.kept
        order by u.id limit 100) as s
      where o.kept is not null),
    due as (
      select e.id, case when e.idle_end <= coalesce(e.age_end, e.idle_end) then 'idle' else 'age' end as why
      from ends as e where least(e.idle_end, e.age_end) <= p_now
      union all select r.id, 'retention' from old as r)
    select jsonb_build_object(
      'due', (select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'why', d.why)), '[]') from due as d),
      'next', least(
        (select min(least(e.idle_end, e.age_end)) from ends as e where least(e.idle_end, e.age_end) > p_now),
        -- Whatever begins from here on is not due before.
        (select min(p_now + least(o.idle, o.age, least(o.kept, interval '1 hour'))) from orgs as o))));
end
$$;
call agentapi_private.publish('agentapi.job_expiry', 'agentapi_system', 'service_role');

-- As before, and only an agent that the organisation allows.
create or replace function agentapi.create_session(p_org uuid, p_session jsonb, p_key jsonb, p_audit jsonb) returns jsonb
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
  if exists (
    select from agentapi.organizations as o
    where o.id = p_org and jsonb_typeof(o.settings -> 'agents') = 'array' and not o.settings -> 'agents' ? (p_session ->> 'agent')
  ) then
    raise sqlstate 'PT409' using message = 'agent_not_allowed';
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

-- As before, and no third live one of a name.
create or replace function agentapi.create_api_key(p_org uuid, p_id uuid, p_name text, p_prefix text, p_hash text, p_scopes text[],
  p_expires_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'api_key.create');
begin
  perform pg_advisory_xact_lock(hashtextextended('agentapi.keys:' || p_org || v_caller, 0));
  if (select count(*) from agentapi.api_keys as k
    where k.org_id = p_org and k.user_id = v_caller and k.name = p_name and k.revoked_at is null
      and (k.expires_at is null or k.expires_at > now())) >= 2 then
    raise sqlstate 'PT409' using message = 'api_key_rotation';
  end if;
  insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash, scopes, expires_at)
  values (p_id, p_org, v_caller, v_caller, p_name, p_prefix, decode(p_hash, 'hex'), p_scopes, p_expires_at);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- As before, and their keys end: whoever comes back one day comes without what they had.
create or replace function agentapi.remove_member(p_org uuid, p_user uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, case when p_user = agentapi_private.caller() then 'organization.view' else 'member.manage' end);
  v_role text;
begin
  perform pg_advisory_xact_lock(hashtextextended('agentapi.members:' || p_org, 0));
  select m.role into v_role from agentapi.memberships as m where m.org_id = p_org and m.user_id = p_user;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  if v_role = 'owner' and not p_org = any (agentapi_private.orgs_with('owner.grant')) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  update agentapi.api_keys as k set revoked_at = now() where k.org_id = p_org and k.user_id = p_user and k.revoked_at is null;
  -- Before the row goes: whoever leaves may write of it for the last time.
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  delete from agentapi.memberships as m where m.org_id = p_org and m.user_id = p_user;
  perform agentapi_private.keep_an_owner(p_org);
end
$$;

-- As before, and until when a key is good: what was opened with it ends then.
create or replace function agentapi.job_token(p_hash text) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key agentapi.api_keys;
  v_host uuid;
begin
  perform agentapi_private.require_service();
  select c.host_id into v_host
  from agentapi.host_credentials as c join agentapi.hosts as h on h.id = c.host_id and h.revoked_at is null
  where c.hash = decode(p_hash, 'hex') and (c.revoked_at is null or c.revoked_at > now());
  if found then
    return jsonb_build_object('kind', 'host', 'host_id', v_host);
  end if;
  select * into v_key from agentapi.api_keys as k
  where k.hash = decode(p_hash, 'hex') and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
  if not found then
    return null;
  end if;
  if v_key.last_used_at is null or v_key.last_used_at < now() - interval '1 minute' then
    update agentapi.api_keys as k set last_used_at = now() where k.id = v_key.id;
  end if;
  return agentapi_private.holder(v_key.org_id, v_key.user_id)
    || jsonb_build_object('key_id', v_key.id, 'scopes', v_key.scopes, 'key_expires_at', v_key.expires_at);
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126080001';
end
$$;

notify pgrst, 'reload schema';
