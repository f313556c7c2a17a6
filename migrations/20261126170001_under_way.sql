-- What was under way as somebody was shut out, and policies that are not what they should be.

-- As before, and what is in a policy that should not be allows nothing.
create or replace function agentapi_private.sandbox_allowed(p_policy jsonb, p_request jsonb) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  c_networks constant text[] := array['off', 'filtered', 'host'];
  v_mounts jsonb := coalesce(p_request -> 'mounts', '[]');
  v_most jsonb := coalesce(p_policy -> 'limits', '{}');
begin
  if p_policy is null or jsonb_typeof(p_policy) = 'null' then
    return true;
  end if;
  if jsonb_typeof(p_policy) <> 'object' or jsonb_typeof(v_most) <> 'object' or p_policy - '{profiles,network,mounts,limits}'::text[] <> '{}' then
    return false;
  end if;
  return (not p_policy ? 'profiles' or jsonb_typeof(p_policy -> 'profiles') = 'array' and p_policy -> 'profiles' ? coalesce(p_request ->> 'profile', 'dev'))
    and (not p_policy ? 'network' or p_policy ->> 'network' = any (c_networks))
    and (not p_policy ? 'network' or not p_request ? 'network'
      or coalesce(array_position(c_networks, p_request ->> 'network') <= array_position(c_networks, p_policy ->> 'network'), false))
    and case p_policy ->> 'mounts'
      when 'writable' then true
      when 'read_only' then not v_mounts @> '[{"writable": true}]'
      when 'none' then v_mounts = '[]'
      else not p_policy ? 'mounts'
    end
    and not exists (select from jsonb_each(v_most) as most where jsonb_typeof(most.value) <> 'number')
    and not exists (
      select from jsonb_each(v_most) as most join jsonb_each(coalesce(p_request -> 'limits', '{}')) as asked on asked.key = most.key
      where asked.value > most.value);
end
$$;

-- As before, and it stops what somebody who was shut out made in that moment: a session that was not committed yet was not seen there. Whoever
-- is banned keeps what runs, until somebody decides.
create or replace function agentapi.job_end_deleted_users(p_issuer text) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
begin
  perform agentapi_private.require_service();
  for v_user in select * from agentapi_private.deleted_users(p_issuer) loop
    update agentapi.users as u set disabled_at = coalesce(u.disabled_at, now()), disabled_by = null
    where u.id = v_user and (u.disabled_at is null or u.disabled_by = 'ban');
    -- Another job may have come first.
    continue when not found;
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'system', 'deleted_users', 'user.disable', null, null,
      jsonb_build_object('user', v_user));
    perform agentapi_private.stop_sessions_of(v_user, 'deleted_users');
  end loop;
  perform agentapi_private.follow_bans(p_issuer);
  for v_user in
    select distinct s.created_by from agentapi.user_sessions as s
      join agentapi.users as u on u.id = s.created_by and u.disabled_at is not null and u.disabled_by is distinct from 'ban'
    where s.state not in ('exited', 'failed', 'lost') and (s.desired = 'run' or s.restarting)
  loop
    perform agentapi_private.stop_sessions_of(v_user, 'deleted_users');
  end loop;
  return query
    select s.id from agentapi.user_sessions as s join agentapi.users as u on u.id = s.created_by and u.disabled_at is not null
    where s.state not in ('exited', 'failed', 'lost') and s.desired = 'stop';
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126170001';
end
$$;

notify pgrst, 'reload schema';
