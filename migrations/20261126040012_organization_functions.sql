-- Organisations, their members, invitations and API keys.

-- Makes an organisation with the caller as its owner.
create function agentapi.create_organization(p_org uuid, p_name text, p_audit jsonb) returns void
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
  insert into agentapi.organizations (id, created_by, name) values (p_org, v_caller, p_name);
  insert into agentapi.memberships (org_id, user_id, role, created_by) values (p_org, v_caller, 'owner', v_caller);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Changes name and settings of an organisation that is still at `p_revision`.
create function agentapi.update_organization(p_org uuid, p_revision bigint, p_name text, p_settings jsonb, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.manage');
begin
  update agentapi.organizations as o
  set name = coalesce(p_name, o.name), settings = coalesce(p_settings, o.settings), revision = o.revision + 1
  where o.id = p_org and o.revision = p_revision;
  if not found then
    raise sqlstate 'PT409' using message = 'stale';
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Sets the quotas of an organisation; null: no limit. The platform's to decide, not the tenant's.
create function agentapi.job_set_quotas(p_org uuid, p_sessions_max integer, p_sessions_per_day_max integer, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  update agentapi.organizations as o set sessions_max = p_sessions_max, sessions_per_day_max = p_sessions_per_day_max where o.id = p_org;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record_job(p_org, null, p_audit);
end
$$;

-- Refuses to leave an organisation without an owner. Who changes its members waits for whoever does so at the same time.
create function agentapi_private.keep_an_owner(p_org uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if agentapi_private.owners(p_org) = 0 then
    raise sqlstate 'PT409' using message = 'last_owner';
  end if;
end
$$;
revoke all on function agentapi_private.keep_an_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.keep_an_owner(uuid) to agentapi_writer;

-- Gives a member another role. Owners are made and unmade by owners alone.
create function agentapi.set_member_role(p_org uuid, p_user uuid, p_role text, p_audit jsonb) returns void
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
  perform agentapi_private.keep_an_owner(p_org);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Removes a member; anyone may leave.
create function agentapi.remove_member(p_org uuid, p_user uuid, p_audit jsonb) returns void
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
  -- Before the row goes: whoever leaves may write of it for the last time.
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  delete from agentapi.memberships as m where m.org_id = p_org and m.user_id = p_user;
  perform agentapi_private.keep_an_owner(p_org);
end
$$;

-- Invites the owner of an address.
create function agentapi.create_invitation(p_org uuid, p_id uuid, p_email text, p_role text, p_token_hash text, p_expires_at timestamptz,
  p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'member.manage');
begin
  if p_role = 'owner' and not p_org = any (agentapi_private.orgs_with('owner.grant')) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  insert into agentapi.invitations (id, org_id, created_by, email, role, token_hash, expires_at)
  values (p_id, p_org, v_caller, lower(p_email), p_role, decode(p_token_hash, 'hex'), p_expires_at);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Takes an invitation back.
create function agentapi.revoke_invitation(p_org uuid, p_id uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'member.manage');
begin
  update agentapi.invitations as i set revoked_at = now()
  where i.org_id = p_org and i.id = p_id and i.accepted_at is null and i.revoked_at is null;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Makes the caller a member by an invitation to their verified address. Unknown, over, used and meant for somebody else look the same.
create function agentapi.accept_invitation(p_org uuid, p_token_hash text, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
  v_role text;
begin
  perform agentapi_private.require_proof();
  update agentapi.invitations as i set accepted_at = now(), accepted_by = v_caller
  where i.org_id = p_org and i.token_hash = decode(p_token_hash, 'hex') and i.email = agentapi_private.caller_email()
    and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
  returning i.role into v_role;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  insert into agentapi.memberships (org_id, user_id, role, created_by) values (p_org, v_caller, v_role, v_caller);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Makes an API key that acts in the caller's name.
create function agentapi.create_api_key(p_org uuid, p_id uuid, p_name text, p_prefix text, p_hash text, p_scopes text[],
  p_expires_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'api_key.create');
begin
  insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash, scopes, expires_at)
  values (p_id, p_org, v_caller, v_caller, p_name, p_prefix, decode(p_hash, 'hex'), p_scopes, p_expires_at);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Ends an API key: one's own, or any with `api_key.manage`.
create function agentapi.revoke_api_key(p_org uuid, p_id uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  update agentapi.api_keys as k set revoked_at = now() where k.org_id = p_org and k.id = p_id and k.revoked_at is null;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

call agentapi_private.publish('agentapi.create_organization', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.update_organization', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.job_set_quotas', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.set_member_role', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.remove_member', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.create_invitation', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.revoke_invitation', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.accept_invitation', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.create_api_key', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.revoke_api_key', 'agentapi_writer', 'authenticated');
