-- People who proved who they are and are in no organisation: they may accept an invitation or, where signing up is open, found an organisation.
-- A login of theirs is of no organisation, and opens nothing else, until they are in one.

alter table agentapi.logins alter column org_id drop not null;

-- What is known of somebody who is in no organisation; null: nobody, or shut out.
create function agentapi_private.newcomer(p_user uuid) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('kind', 'newcomer', 'user_id', u.id, 'name', coalesce(u.name, u.email, ''))
    from agentapi.users as u where u.id = p_user and u.disabled_at is null);
end
$$;
revoke all on function agentapi_private.newcomer(uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.newcomer(uuid) to agentapi_system;

-- As before, and with `p_newcomer` also of somebody who is in no organisation: one such login a person, so that nobody fills the table with them.
drop function agentapi.job_begin_login(uuid, uuid, text, text, timestamptz, timestamptz, text, jsonb);
create function agentapi.job_begin_login(p_user uuid, p_org uuid, p_cookie text, p_by text, p_at timestamptz, p_expires_at timestamptz,
  p_auth_session text, p_refresh jsonb, p_newcomer boolean default false) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
  v_holder jsonb;
begin
  perform agentapi_private.require_service();
  select m.org_id into v_org
  from agentapi.memberships as m join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
  where m.user_id = p_user and (p_org is null or m.org_id = p_org)
  order by m.created_at, m.org_id limit 1;
  if found then
    v_holder := agentapi_private.holder(v_org, p_user);
  elsif p_newcomer and p_org is null then
    v_holder := agentapi_private.newcomer(p_user);
    delete from agentapi.logins as l where l.created_by = p_user and l.org_id is null;
  end if;
  if v_holder is null then
    return null;
  end if;
  insert into agentapi.logins (hash, org_id, created_by, created_at, expires_at, auth_session, refresh_key_id, refresh_ciphertext)
  values (decode(p_cookie, 'hex'), v_org, p_user, p_at, p_expires_at, p_auth_session, p_refresh ->> 'key_id',
    decode(p_refresh ->> 'ciphertext', 'hex'));
  perform agentapi_private.record_fact(coalesce(v_org, '00000000-0000-0000-0000-000000000000'), 'user', p_user::text, 'login', null, null,
    jsonb_build_object('by', p_by));
  return v_holder;
end
$$;

-- Ends a login of somebody who is in no organisation.
create function agentapi.job_end_newcomer_login(p_hash text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
begin
  perform agentapi_private.require_service();
  delete from agentapi.logins as l where l.hash = decode(p_hash, 'hex') and l.org_id is null returning l.created_by into v_user;
  if found then
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'user', v_user::text, 'logout', null, null, '{}');
  end if;
end
$$;

-- A member, as policy needs them; null if they are none (any more). For the control plane, which looks whether those who have a live terminal
-- are what they were when they opened it.
create function agentapi.job_member(p_org uuid, p_user uuid) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return agentapi_private.holder(p_org, p_user);
end
$$;

-- Makes an organisation with the caller as its owner. By what right (`p_by`): as an owner already, by signing up where that is open (with a
-- verified address, and in no organisation), or for the platform's operator. Which of them holds is the control plane's to say.
drop function agentapi.create_organization(uuid, text, jsonb);
create function agentapi.create_organization(p_org uuid, p_name text, p_audit jsonb, p_by text default 'owner') returns void
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
  if not coalesce(case p_by
    when 'owner' then agentapi_private.orgs_with('owner.grant') <> '{}'::uuid[]
    when 'sign_up' then agentapi_private.orgs_with('organization.view') = '{}'::uuid[]
    when 'operator' then true end, false) then
    raise sqlstate 'PT403' using message = 'forbidden';
  end if;
  insert into agentapi.organizations (id, created_by, name) values (p_org, v_caller, p_name);
  insert into agentapi.memberships (org_id, user_id, role, created_by) values (p_org, v_caller, 'owner', v_caller);
  update agentapi.logins as l set org_id = p_org where l.created_by = v_caller and l.org_id is null;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- A login of no organisation becomes one of the first that its user comes to: it ends with the membership, like others.
grant update (org_id) on agentapi.logins to agentapi_writer;
create policy writer_update on agentapi.logins for update to agentapi_writer
  using (created_by = (select agentapi_private.caller()) and org_id is null)
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));

call agentapi_private.publish('agentapi.job_begin_login', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_end_newcomer_login', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_member', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.create_organization', 'agentapi_writer', 'authenticated');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126150001';
end
$$;

notify pgrst, 'reload schema';
