-- What people found by themselves: as many organisations as one person may, each with the quotas that the platform gives such ones.
--
-- Both are the control plane's to say, and null is no limit; one that does not say them yet founds as before.

-- How many organisations somebody is the founder of, whoever made them for them. Volatile: it is asked behind a lock, and sees what was committed before.
create function agentapi_private.founded(p_user uuid) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select count(*) from agentapi.organizations as o where o.created_by = p_user);
end
$$;
call agentapi_private.publish('agentapi_private.founded', 'agentapi_policy', 'agentapi_writer');

-- As before, and no more than `p_founded_max` of one person, with quotas. Exact: foundings of one person come one after the other.
drop function agentapi.create_organization(uuid, text, jsonb, text);
create function agentapi.create_organization(p_org uuid, p_name text, p_audit jsonb, p_by text default 'owner', p_founded_max integer default null,
  p_sessions_max integer default null, p_sessions_per_day_max integer default null, p_viewers_max integer default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
begin
  perform agentapi_private.require_proof();
  if not exists (select from agentapi.users as u where u.id = v_caller and u.disabled_at is null) then
    raise sqlstate 'PT401' using message = 'no_caller';
  end if;
  if p_by = 'sign_up' and agentapi_private.caller_email() is null then
    raise sqlstate 'PT403' using message = 'address_not_confirmed';
  end if;
  -- Before the caller's organisations are looked at: of two that sign up at once, one is in none.
  perform pg_advisory_xact_lock(hashtextextended('agentapi.founding:' || v_caller, 0));
  if not coalesce(case p_by
    when 'owner' then agentapi_private.orgs_with('owner.grant') <> '{}'::uuid[]
    when 'sign_up' then agentapi_private.orgs_with('organization.view') = '{}'::uuid[]
    when 'operator' then true end, false) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  if p_by <> 'operator' and agentapi_private.founded(v_caller) >= p_founded_max then
    raise sqlstate 'PT429' using message = 'quota_organizations';
  end if;
  insert into agentapi.organizations (id, created_by, name, sessions_max, sessions_per_day_max, viewers_max)
  values (p_org, v_caller, p_name, p_sessions_max, p_sessions_per_day_max, p_viewers_max);
  insert into agentapi.memberships (org_id, user_id, role, created_by) values (p_org, v_caller, 'owner', v_caller);
  update agentapi.logins as l set org_id = p_org where l.created_by = v_caller and l.org_id is null;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;
call agentapi_private.publish('agentapi.create_organization', 'agentapi_writer', 'authenticated');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126190001';
end
$$;

notify pgrst, 'reload schema';
