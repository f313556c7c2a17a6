-- What ends with what: everything that a member has in an organisation with the membership, for good; everything that was made with an API key
-- with the key.

-- The key that something was made with, at whatever remove; null: a person made it.
alter table agentapi.api_keys add column made_by_key uuid references agentapi.api_keys (id);
create index api_keys_made_by_key on agentapi.api_keys (made_by_key);
alter table agentapi.login_codes add column made_by_key uuid references agentapi.api_keys (id);
create index login_codes_made_by_key on agentapi.login_codes (made_by_key);
alter table agentapi.logins add column made_by_key uuid references agentapi.api_keys (id);
create index logins_made_by_key on agentapi.logins (made_by_key);
alter table agentapi.host_enrolments add column made_by_key uuid references agentapi.api_keys (id);
create index host_enrolments_made_by_key on agentapi.host_enrolments (made_by_key);

-- Whoever sees a key sees which one it ends with.
grant select (made_by_key) on agentapi.api_keys to authenticated, service_role;

-- Of those who are members no longer: they have no use, and must have none when their makers come back.
delete from agentapi.logins as l
where not exists (select from agentapi.memberships as m where m.org_id = l.org_id and m.user_id = l.created_by);
delete from agentapi.login_codes as c
where not exists (select from agentapi.memberships as m where m.org_id = c.org_id and m.user_id = c.created_by);
delete from agentapi.host_enrolments as e
where not exists (select from agentapi.memberships as m where m.org_id = e.org_id and m.user_id = e.created_by);
update agentapi.api_keys as k set revoked_at = now()
where k.revoked_at is null and not exists (select from agentapi.memberships as m where m.org_id = k.org_id and m.user_id = k.user_id);

-- Whoever removes members or revokes keys ends what goes with them; everybody ends what is their own.
grant select, delete on agentapi.login_codes, agentapi.host_enrolments to agentapi_writer;
drop policy writer_read on agentapi.logins;
drop policy writer_delete on agentapi.logins;
do $$
declare
  v_table text;
begin
  foreach v_table in array array['logins', 'login_codes', 'host_enrolments'] loop
    execute pg_catalog.format('create policy writer_read on agentapi.%I for select to agentapi_writer
      using (created_by = (select agentapi_private.caller())
        or org_id = any ((select agentapi_private.orgs_with(''member.manage''))::uuid[])
        or org_id = any ((select agentapi_private.orgs_with(''api_key.manage''))::uuid[]))', v_table);
    execute pg_catalog.format('create policy writer_delete on agentapi.%I for delete to agentapi_writer
      using (created_by = (select agentapi_private.caller())
        or org_id = any ((select agentapi_private.orgs_with(''member.manage''))::uuid[])
        or org_id = any ((select agentapi_private.orgs_with(''api_key.manage''))::uuid[]))', v_table);
  end loop;
end
$$;
-- One's own keys end in any role: whoever made one as a member may leave as a viewer.
alter policy tenant_read on agentapi.api_keys to authenticated;
create policy writer_read on agentapi.api_keys for select to agentapi_writer
  using (user_id = (select agentapi_private.caller())
    or org_id = any ((select agentapi_private.orgs_with('api_key.manage'))::uuid[]));
drop policy writer_update on agentapi.api_keys;
create policy writer_update on agentapi.api_keys for update to agentapi_writer
  using (user_id = (select agentapi_private.caller())
    or org_id = any ((select agentapi_private.orgs_with('api_key.manage'))::uuid[]));

-- Ends what a user has in an organisation.
create function agentapi_private.end_credentials(p_org uuid, p_user uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update agentapi.api_keys as k set revoked_at = now() where k.org_id = p_org and k.user_id = p_user and k.revoked_at is null;
  delete from agentapi.logins as l where l.org_id = p_org and l.created_by = p_user;
  delete from agentapi.login_codes as c where c.org_id = p_org and c.created_by = p_user;
  delete from agentapi.host_enrolments as e where e.org_id = p_org and e.created_by = p_user;
end
$$;
revoke all on function agentapi_private.end_credentials(uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.end_credentials(uuid, uuid) to agentapi_writer;

-- As before, and everything of theirs ends: whoever comes back one day comes without what they had.
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
  perform agentapi_private.keep_an_owner(p_org);
end
$$;

-- As before. Whoever was removed by hand, in Studio, comes back without what they had as well. An address that is not shown to be the
-- caller's is told to them alone.
create or replace function agentapi.accept_invitation(p_org uuid, p_token_hash text, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.caller();
  v_role text;
begin
  perform agentapi_private.require_proof();
  if not exists (select from agentapi.users as u where u.id = v_caller and u.disabled_at is null) then
    raise sqlstate 'PT401' using message = 'no_caller';
  end if;
  if agentapi_private.caller_email() is null then
    raise sqlstate 'PT403' using message = 'address_not_confirmed';
  end if;
  update agentapi.invitations as i set accepted_at = now(), accepted_by = v_caller
  where i.org_id = p_org and i.token_hash = decode(p_token_hash, 'hex') and i.email = agentapi_private.caller_email()
    and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
  returning i.role into v_role;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  insert into agentapi.memberships (org_id, user_id, role, created_by) values (p_org, v_caller, v_role, v_caller);
  perform agentapi_private.end_credentials(p_org, v_caller);
  update agentapi.logins as l set org_id = p_org where l.created_by = v_caller and l.org_id is null;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Refuses what is made with a key that ended meanwhile, and keeps it from ending until this is done: what is made ends with it.
create function agentapi_private.require_key(p_org uuid, p_caller uuid, p_key uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_key is not null then
    perform from agentapi.api_keys as k
      where k.id = p_key and k.user_id = p_caller and k.revoked_at is null for share;
    if not found then
      raise sqlstate 'PT401' using message = 'no_caller';
    end if;
  end if;
end
$$;
revoke all on function agentapi_private.require_key(uuid, uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.require_key(uuid, uuid, uuid) to agentapi_writer;

drop function agentapi.create_api_key(uuid, uuid, text, text, text, text[], timestamptz, jsonb);
create function agentapi.create_api_key(p_org uuid, p_id uuid, p_name text, p_prefix text, p_hash text, p_scopes text[],
  p_expires_at timestamptz, p_audit jsonb, p_made_by uuid default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'api_key.create');
begin
  perform agentapi_private.require_key(p_org, v_caller, p_made_by);
  perform pg_advisory_xact_lock(hashtextextended('agentapi.keys:' || p_org || v_caller, 0));
  if (select count(*) from agentapi.api_keys as k
    where k.org_id = p_org and k.user_id = v_caller and k.name = p_name and k.revoked_at is null
      and (k.expires_at is null or k.expires_at > now())) >= 2 then
    raise sqlstate 'PT409' using message = 'api_key_rotation';
  end if;
  insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash, scopes, expires_at, made_by_key)
  values (p_id, p_org, v_caller, v_caller, p_name, p_prefix, decode(p_hash, 'hex'), p_scopes, p_expires_at, p_made_by);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Keys that end with another one are not known before, so their records are the database's own.
grant execute on function agentapi_private.record_fact(uuid, text, text, text, uuid, uuid, jsonb) to agentapi_writer;

-- Ends an API key: one's own, or any with `api_key.manage`. With it, unless `p_made` is `keep`, the keys that were made with it, each with a record, and
-- logins, codes and enrolments; hosts stay.
drop function agentapi.revoke_api_key(uuid, uuid, jsonb);
create function agentapi.revoke_api_key(p_org uuid, p_id uuid, p_audit jsonb, p_made text default 'end') returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
  v_all uuid[];
  v_made uuid;
begin
  if not p_org = any (agentapi_private.orgs_with('api_key.create') || agentapi_private.orgs_with('api_key.manage')) then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  update agentapi.api_keys as k set revoked_at = now() where k.org_id = p_org and k.id = p_id and k.revoked_at is null;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  if p_made is distinct from 'keep' then
    with recursive made as (
      select k.id from agentapi.api_keys as k where k.id = p_id
      union select k.id from agentapi.api_keys as k join made as m on k.made_by_key = m.id)
    select array_agg(m.id) into v_all from made as m;
    delete from agentapi.logins as l where l.made_by_key = any (v_all);
    delete from agentapi.login_codes as c where c.made_by_key = any (v_all);
    delete from agentapi.host_enrolments as e where e.made_by_key = any (v_all);
    for v_made in
      update agentapi.api_keys as k set revoked_at = now() where k.id = any (v_all) and k.revoked_at is null returning k.id
    loop
      perform agentapi_private.record_fact(p_org, 'user', v_caller::text, 'api_key.revoke', null, null,
        jsonb_build_object('api_key', v_made, 'made_by', p_id));
    end loop;
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

drop function agentapi.create_login_code(uuid, text, timestamptz, jsonb);
create function agentapi.create_login_code(p_org uuid, p_hash text, p_expires_at timestamptz, p_audit jsonb, p_made_by uuid default null)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  perform agentapi_private.require_key(p_org, v_caller, p_made_by);
  insert into agentapi.login_codes (hash, org_id, created_by, created_at, expires_at, made_by_key)
  values (decode(p_hash, 'hex'), p_org, v_caller, (((p_audit ->> 'entry')::jsonb) ->> 'at')::timestamptz, p_expires_at, p_made_by);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

drop function agentapi.create_host_enrolment(uuid, text, text, timestamptz, jsonb);
create function agentapi.create_host_enrolment(p_org uuid, p_hash text, p_name text, p_expires_at timestamptz, p_audit jsonb,
  p_made_by uuid default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'host.manage');
begin
  perform agentapi_private.require_key(p_org, v_caller, p_made_by);
  insert into agentapi.host_enrolments (hash, org_id, created_by, name, expires_at, made_by_key)
  values (decode(p_hash, 'hex'), p_org, v_caller, p_name, p_expires_at, p_made_by);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

call agentapi_private.publish('agentapi.create_api_key', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.revoke_api_key', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.create_login_code', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.create_host_enrolment', 'agentapi_writer', 'authenticated');

-- As before, and the login ends with the key that the code was made with.
create or replace function agentapi.job_redeem_login_code(p_code text, p_cookie text, p_at timestamptz, p_expires_at timestamptz)
returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_code agentapi.login_codes;
  v_holder jsonb;
begin
  perform agentapi_private.require_service();
  delete from agentapi.login_codes as c where c.hash = decode(p_code, 'hex') returning * into v_code;
  if not found or v_code.expires_at <= p_at then
    return null;
  end if;
  v_holder := agentapi_private.holder(v_code.org_id, v_code.created_by);
  if v_holder is null then
    return null;
  end if;
  insert into agentapi.logins (hash, org_id, created_by, created_at, expires_at, made_by_key)
  values (decode(p_cookie, 'hex'), v_code.org_id, v_code.created_by, p_at, p_expires_at, v_code.made_by_key);
  perform agentapi_private.record_fact(v_code.org_id, 'user', v_code.created_by::text, 'login', null, null, jsonb_build_object('by', 'code'));
  return v_holder;
end
$$;

-- As before, also of somebody who is in no organisation, and with the key that the login was made with.
create or replace function agentapi.job_browser_session(p_hash text, p_now timestamptz) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_login agentapi.logins;
begin
  perform agentapi_private.require_service();
  select * into v_login from agentapi.logins as l where l.hash = decode(p_hash, 'hex') and l.expires_at > p_now;
  if not found then
    return null;
  end if;
  return case when v_login.org_id is null then agentapi_private.newcomer(v_login.created_by)
    else agentapi_private.holder(v_login.org_id, v_login.created_by) end
    || jsonb_build_object('expires_at', v_login.expires_at, 'made_by_key', v_login.made_by_key);
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126150002';
end
$$;

notify pgrst, 'reload schema';
