-- What policies and functions ask: who calls, where they have a capability, whether the control plane sent the request.

-- SHA-256 of secrets by which the control plane proves that it sent a request. Several are good at once, so that they can be changed.
create table agentapi_private.proofs (
  hash bytea primary key check (length(hash) = 32),
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);

-- The caller. PostgREST takes tokens without `exp` and without `aud`; here they are nobody's.
-- In plpgsql, as what follows: a function of SQL that is not inlined is planned at each call, which made these ten times as slow.
create function agentapi_private.caller() returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
begin
  if v_claims ? 'exp' and v_claims -> 'aud' ? 'authenticated' and v_claims ->> 'role' = 'authenticated'
    and v_claims ->> 'sub' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then
    return (v_claims ->> 'sub')::uuid;
  end if;
  return null;
end
$$;

-- Whether a job of the control plane calls, with the key of the service role.
create function agentapi_private.is_service() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role' = 'service_role', false);
end
$$;

-- The organisations in which the caller has a capability. In policies always as `= any ((select ...)::uuid[])`: asked once a
-- statement, and an index condition.
create function agentapi_private.orgs_with(p_capability text) returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
begin
  return (
    select coalesce(array_agg(m.org_id), '{}')
    from agentapi.memberships as m
    join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
    join agentapi_private.capabilities as c on c.role = m.role and c.capability = p_capability
    where m.user_id = v_caller);
end
$$;

-- The verified address of the caller.
create function agentapi_private.caller_email() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select lower(u.email) from agentapi.users as u
  where u.id = agentapi_private.caller() and u.email_verified and u.disabled_at is null
$$;

-- Whether the caller just made this organisation, so that nobody is in it yet.
create function agentapi_private.is_founding(p_org uuid) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select exists (
      select from agentapi.organizations as o
      join agentapi.users as u on u.id = o.created_by and u.disabled_at is null
      where o.id = p_org and o.created_by = agentapi_private.caller() and o.created_at = now())
    and not exists (select from agentapi.memberships as m where m.org_id = p_org)
$$;

-- Whether the caller accepted an invitation to this organisation and role in this very transaction.
create function agentapi_private.is_accepting(p_org uuid, p_role text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from agentapi.invitations as i
    where i.org_id = p_org and i.role = p_role and i.accepted_by = agentapi_private.caller() and i.accepted_at = now())
$$;

-- How many owners an organisation has.
create function agentapi_private.owners(p_org uuid) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select count(*) from agentapi.memberships as m where m.org_id = p_org and m.role = 'owner'
$$;

-- How many spawns live on a host, whoever's they are.
create function agentapi_private.host_load(p_host uuid) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select count(*) from agentapi.user_sessions as s where s.host_id = p_host and s.state not in ('exited', 'failed', 'lost')
$$;

-- Refuses what the control plane did not send. A tenant with a token of their own reaches every function that they may execute, and would
-- pass by validation and write the audit record they like.
create function agentapi_private.require_proof() returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_proof text := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-agentapi-proof';
begin
  if v_proof is null or not exists (
    select from agentapi_private.proofs as p where p.hash = sha256(convert_to(v_proof, 'UTF8')) and p.expires_at > now()
  ) then
    raise sqlstate 'PT403' using message = 'proof';
  end if;
end
$$;

-- Refuses a caller of the wrong kind, without membership (404: it does not exist for them) or without the capability (403).
create function agentapi_private.require(p_org uuid, p_capability text) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
begin
  perform agentapi_private.require_proof();
  if v_caller is null then
    raise sqlstate 'PT401' using message = 'no_caller';
  end if;
  if not coalesce(p_org = any (agentapi_private.orgs_with(p_capability)), false) then
    if p_org = any (agentapi_private.orgs_with('organization.view')) then
      raise sqlstate 'PT403' using message = 'forbidden';
    end if;
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  return v_caller;
end
$$;

-- The same for a job of the control plane.
create function agentapi_private.require_service() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_proof();
  if not agentapi_private.is_service() then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
end
$$;

-- Which quota has no room for `p_more` sessions; null: each has. Volatile, so that each count sees what was committed before it. Nothing
-- beyond a limit is counted.
create function agentapi_private.quota_reached(p_org uuid, p_running_max integer, p_day_max integer, p_more integer) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint;
begin
  if p_running_max is not null then
    select count(*) into v_found from (
      select from agentapi.user_sessions as s
      where s.org_id = p_org and s.state not in ('exited', 'failed', 'lost') limit p_running_max) as found;
    if v_found + p_more > p_running_max then
      return 'quota_sessions';
    end if;
  end if;
  if p_day_max is not null then
    select count(*) into v_found from (
      select from agentapi.audit_logs as a
      where a.org_id = p_org and a.action = 'session.create' and a.recorded_at >= date_trunc('day', now(), 'UTC')
      limit p_day_max) as found;
    if v_found + p_more > p_day_max then
      return 'quota_sessions_per_day';
    end if;
  end if;
  return null;
end
$$;

-- Refuses a session that would be one too many. Exact. As long as a limit is far, creates do not wait for each other: each transaction adds
-- one session at most, and there are never more of them than connections. Near a limit they do, one after the other.
create function agentapi_private.claim_session_quota(p_org uuid) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_running_max integer;
  v_day_max integer;
  v_connections integer := current_setting('max_connections')::integer;
  v_lock bigint := hashtextextended('agentapi.quota:' || p_org, 0);
  v_reached text;
begin
  select o.sessions_max, o.sessions_per_day_max into v_running_max, v_day_max from agentapi.organizations as o where o.id = p_org;
  if v_running_max is null and v_day_max is null then
    return;
  end if;
  if agentapi_private.quota_reached(p_org, v_running_max, v_day_max, v_connections) is null then
    begin
      perform pg_advisory_xact_lock_shared(v_lock);
      if agentapi_private.quota_reached(p_org, v_running_max, v_day_max, v_connections) is null then
        return;
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
end
$$;

-- The policy role reads what these ask, and nothing else.
grant select on agentapi.memberships, agentapi.users, agentapi.organizations, agentapi.invitations, agentapi.user_sessions,
  agentapi.audit_logs, agentapi_private.capabilities, agentapi_private.proofs to agentapi_policy;

-- These need no rights of their own: whoever asks a policy has to be able to ask them.
revoke all on function agentapi_private.caller(), agentapi_private.is_service(), agentapi_private.require(uuid, text),
  agentapi_private.require_service() from public, anon, authenticated, service_role;
grant execute on function agentapi_private.caller() to authenticated, service_role, agentapi_policy, agentapi_writer, agentapi_system;
grant execute on function agentapi_private.is_service() to agentapi_system;
grant execute on function agentapi_private.require(uuid, text) to agentapi_writer;
grant execute on function agentapi_private.require_service() to agentapi_system;

call agentapi_private.publish('agentapi_private.orgs_with', 'agentapi_policy', 'authenticated, agentapi_writer, agentapi_system');
call agentapi_private.publish('agentapi_private.caller_email', 'agentapi_policy', 'agentapi_writer');
call agentapi_private.publish('agentapi_private.is_founding', 'agentapi_policy', 'agentapi_writer');
call agentapi_private.publish('agentapi_private.is_accepting', 'agentapi_policy', 'agentapi_writer');
call agentapi_private.publish('agentapi_private.owners', 'agentapi_policy', 'agentapi_writer');
call agentapi_private.publish('agentapi_private.host_load', 'agentapi_policy', 'authenticated, service_role');
call agentapi_private.publish('agentapi_private.require_proof', 'agentapi_policy', 'agentapi_writer, agentapi_system');
call agentapi_private.publish('agentapi_private.quota_reached', 'agentapi_policy', 'agentapi_policy');
call agentapi_private.publish('agentapi_private.claim_session_quota', 'agentapi_policy', 'agentapi_writer');
