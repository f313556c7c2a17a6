-- Whatever is lost on its way or done twice, the credential that a host holds stays good; and an organisation keeps an owner who can act.

-- How many owners an organisation has who can act as such: whoever is shut out or erased keeps the role, and is of no use.
create or replace function agentapi_private.owners(p_org uuid) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select count(*) from agentapi.memberships as m
  join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
  where m.org_id = p_org and m.role = 'owner'
$$;

-- As before. Only a change of an owner can take the last one away: where none is left already, everybody else may still change and leave.
create or replace function agentapi.set_member_role(p_org uuid, p_user uuid, p_role text, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'member.manage');
  v_role text;
begin
  perform pg_advisory_xact_lock(hashtextextended('agentapi.members:' || p_org, 0));
  select m.role into v_role from agentapi.memberships as m where m.org_id = p_org and m.user_id = p_user;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  if 'owner' in (v_role, p_role) and not p_org = any (agentapi_private.orgs_with('owner.grant')) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  update agentapi.memberships as m set role = p_role where m.org_id = p_org and m.user_id = p_user;
  if v_role = 'owner' then
    perform agentapi_private.keep_an_owner(p_org);
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

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
  perform agentapi_private.end_credentials(p_org, p_user);
  -- Before the row goes: whoever leaves may write of it for the last time.
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  delete from agentapi.memberships as m where m.org_id = p_org and m.user_id = p_user;
  if v_role = 'owner' then
    perform agentapi_private.keep_an_owner(p_org);
  end if;
end
$$;

-- A host used the credential that it was given: it is good, whatever another one said of it, and those of the host that were made before it
-- end at `p_others_end_at`. One that was made after it may be on its way. Said again it changes nothing.
create or replace function agentapi.job_confirm_host_credential(p_credential text, p_others_end_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_shown agentapi.host_credentials;
begin
  perform agentapi_private.require_service();
  -- Most links come with one that was confirmed long ago, and wait for nobody. Of those of one host each waits for the one before.
  select c.* into v_shown from agentapi.host_credentials as c where c.hash = decode(p_credential, 'hex') and c.pending;
  if not found then
    return;
  end if;
  perform from agentapi.hosts as h where h.id = v_shown.host_id for no key update;
  update agentapi.host_credentials as c set pending = false, revoked_at = null
  where c.hash = decode(p_credential, 'hex') and c.pending and (c.revoked_at is null or c.revoked_at > now()) returning * into v_shown;
  if found then
    update agentapi.host_credentials as c set revoked_at = least(c.revoked_at, p_others_end_at)
    where c.host_id = v_shown.host_id and (c.created_at, c.hash) < (v_shown.created_at, v_shown.hash);
  end if;
end
$$;

-- Gives a host a new credential. With the one that it asks with, `p_shown`: whoever shows it has it, so it is confirmed, and the new one waits
-- for its own confirmation. Without it and without a time those before are good until the new one is confirmed. Others that nobody
-- confirmed within ten minutes were lost on their way; and two at most wait.
drop function agentapi.job_rotate_host_credential(uuid, text, timestamptz, jsonb);
create function agentapi.job_rotate_host_credential(p_host uuid, p_credential text, p_others_end_at timestamptz, p_audit jsonb,
  p_shown text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
begin
  perform agentapi_private.require_service();
  -- One rotation of a host after the other: what each counts and orders is what is there.
  select h.org_id into v_org from agentapi.hosts as h where h.id = p_host and h.revoked_at is null for no key update;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  if p_shown is not null then
    perform agentapi.job_confirm_host_credential(p_shown, p_others_end_at);
  end if;
  delete from agentapi.host_credentials as c
  where c.host_id = p_host and c.pending and (c.created_at < now() - interval '10 minutes' or c.hash <> (
    select n.hash from agentapi.host_credentials as n where n.host_id = p_host and n.pending order by n.created_at desc, n.hash desc limit 1));
  if p_shown is null and p_others_end_at is not null then
    update agentapi.host_credentials as c set revoked_at = least(c.revoked_at, p_others_end_at) where c.host_id = p_host;
  end if;
  -- The newest of the host, whatever the clocks of those that made the others said.
  insert into agentapi.host_credentials (hash, host_id, org_id, created_at, pending)
  select decode(p_credential, 'hex'), p_host, v_org, greatest(clock_timestamp(), max(c.created_at) + interval '1 microsecond'),
    p_shown is not null or p_others_end_at is null
  from agentapi.host_credentials as c where c.host_id = p_host;
  perform agentapi_private.record_job(coalesce(v_org, '00000000-0000-0000-0000-000000000000'), p_host, p_audit);
end
$$;
call agentapi_private.publish('agentapi.job_rotate_host_credential', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126160001';
end
$$;

notify pgrst, 'reload schema';
