-- Logins of browsers with an issuer behind them. What keeps one alive is encrypted by the control plane, which alone has the key; it is good for
-- one use, and using it twice ends the login at its issuer, so one replica at a time takes it.

alter table agentapi.logins add column refresh_taken_until timestamptz;

-- Makes a login of somebody whom an issuer vouched for, in an organisation of theirs: the one that is named, or the first they came to. Gives the
-- member; null: they are in none. The record is the database's own, in the user's name.
create function agentapi.job_begin_login(p_user uuid, p_org uuid, p_cookie text, p_by text, p_at timestamptz, p_expires_at timestamptz,
  p_auth_session text, p_refresh jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
begin
  perform agentapi_private.require_service();
  select m.org_id into v_org
  from agentapi.memberships as m join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
  where m.user_id = p_user and (p_org is null or m.org_id = p_org)
  order by m.created_at, m.org_id limit 1;
  if not found then
    return null;
  end if;
  insert into agentapi.logins (hash, org_id, created_by, created_at, expires_at, auth_session, refresh_key_id, refresh_ciphertext)
  values (decode(p_cookie, 'hex'), v_org, p_user, p_at, p_expires_at, p_auth_session, p_refresh ->> 'key_id',
    decode(p_refresh ->> 'ciphertext', 'hex'));
  perform agentapi_private.record_fact(v_org, 'user', p_user::text, 'login', null, null, jsonb_build_object('by', p_by));
  return agentapi_private.holder(v_org, p_user);
end
$$;

-- Takes what keeps a login alive for one use, until then: {"state": "taken", "key_id", "ciphertext"}, "busy" while somebody else has it, "gone" if
-- there is none. Whoever takes it and dies keeps nobody waiting longer.
create function agentapi.job_take_refresh(p_login text, p_now timestamptz, p_until timestamptz) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_login agentapi.logins;
begin
  perform agentapi_private.require_service();
  select * into v_login from agentapi.logins as l
  where l.hash = decode(p_login, 'hex') and l.expires_at > p_now and l.refresh_ciphertext is not null
  for update;
  if not found then
    return jsonb_build_object('state', 'gone');
  end if;
  if v_login.refresh_taken_until > p_now then
    return jsonb_build_object('state', 'busy');
  end if;
  update agentapi.logins as l set refresh_taken_until = p_until where l.hash = v_login.hash;
  return jsonb_build_object('state', 'taken', 'key_id', v_login.refresh_key_id, 'ciphertext', encode(v_login.refresh_ciphertext, 'hex'));
end
$$;

-- Ends the taking that was until then, with what came of the use; null: it was not used. False: it is somebody else's by now, or the login is
-- over.
create function agentapi.job_put_refresh(p_login text, p_until timestamptz, p_refresh jsonb) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  update agentapi.logins as l
  set refresh_taken_until = null, refresh_key_id = coalesce(p_refresh ->> 'key_id', l.refresh_key_id),
    refresh_ciphertext = coalesce(decode(p_refresh ->> 'ciphertext', 'hex'), l.refresh_ciphertext)
  where l.hash = decode(p_login, 'hex') and l.refresh_taken_until = p_until;
  return found;
end
$$;

call agentapi_private.publish('agentapi.job_begin_login', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_take_refresh', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_put_refresh', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126090001';
end
$$;

notify pgrst, 'reload schema';
