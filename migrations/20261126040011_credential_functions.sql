-- Identities and what proves them. Hashes come and are compared as hexadecimal text; no function gives one out.

-- A verified login of an identity: makes its row at the first, and keeps name and address up to date. Gives the user.
create function agentapi.job_login(p_user uuid, p_kind text, p_issuer text, p_subject text, p_name text, p_email text,
  p_email_verified boolean) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user agentapi.users;
begin
  perform agentapi_private.require_service();
  insert into agentapi.users (id, kind, issuer, subject, name, email, email_verified)
  values (p_user, p_kind, p_issuer, p_subject, p_name, p_email, p_email_verified)
  on conflict (issuer, subject) do update
    set name = excluded.name, email = excluded.email, email_verified = excluded.email_verified
  returning * into v_user;
  return to_jsonb(v_user);
end
$$;

-- A user loses every capability, or has them again.
create function agentapi.job_disable_user(p_user uuid, p_disabled boolean, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  update agentapi.users as u set disabled_at = case when p_disabled then coalesce(u.disabled_at, now()) end where u.id = p_user;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record_job('00000000-0000-0000-0000-000000000000', null, p_audit);
end
$$;

-- Makes a token good for a user in an organisation. Knowing it already changes nothing.
create function agentapi.job_register_token(p_hash text, p_id uuid, p_org uuid, p_user uuid, p_name text, p_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi.api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash)
  values (p_id, p_org, p_user, p_user, p_at, p_name, '', decode(p_hash, 'hex'))
  on conflict do nothing;
end
$$;

-- Makes a token good for a host.
create function agentapi.job_register_host_token(p_hash text, p_host uuid, p_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  insert into agentapi.host_credentials (hash, host_id, org_id, created_at)
  select decode(p_hash, 'hex'), h.id, h.org_id, p_at from agentapi.hosts as h where h.id = p_host
  on conflict do nothing;
end
$$;

-- A member, as policy needs them; null if they are none (any more).
create function agentapi_private.holder(p_org uuid, p_user uuid) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('kind', 'user', 'user_id', u.id, 'org_id', o.id, 'name', u.name, 'organization', o.name, 'role', m.role)
    from agentapi.memberships as m
    join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
    join agentapi.organizations as o on o.id = m.org_id
    where m.org_id = p_org and m.user_id = p_user);
end
$$;
revoke all on function agentapi_private.holder(uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.holder(uuid, uuid) to agentapi_system;

-- Whose a token is; null: nobody's, or no longer good. Notes when it was used, to the minute: a write for each request would be too many.
create function agentapi.job_token(p_hash text) returns jsonb
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
  return agentapi_private.holder(v_key.org_id, v_key.user_id) || jsonb_build_object('key_id', v_key.id, 'scopes', v_key.scopes);
end
$$;

-- Stores a code for one login of the caller.
create function agentapi.create_login_code(p_org uuid, p_hash text, p_expires_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  insert into agentapi.login_codes (hash, org_id, created_by, created_at, expires_at)
  values (decode(p_hash, 'hex'), p_org, v_caller, (((p_audit ->> 'entry')::jsonb) ->> 'at')::timestamptz, p_expires_at);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Takes a code and makes a login of it. Null if the code is unknown, used or over; of two who try at once, one gets it. The record is the
-- database's own, in the user's name: whoever asks does not know them before.
create function agentapi.job_redeem_login_code(p_code text, p_cookie text, p_at timestamptz, p_expires_at timestamptz)
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
  insert into agentapi.logins (hash, org_id, created_by, created_at, expires_at)
  values (decode(p_cookie, 'hex'), v_code.org_id, v_code.created_by, p_at, p_expires_at);
  perform agentapi_private.record_fact(v_code.org_id, 'user', v_code.created_by::text, 'login', null, null, jsonb_build_object('by', 'code'));
  return v_holder;
end
$$;

-- A login that is not over.
create function agentapi.job_browser_session(p_hash text, p_now timestamptz) returns jsonb
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
  return agentapi_private.holder(v_login.org_id, v_login.created_by) || jsonb_build_object('expires_at', v_login.expires_at);
end
$$;

-- Ends a login of the caller.
create function agentapi.end_browser_session(p_org uuid, p_hash text, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  delete from agentapi.logins as l where l.hash = decode(p_hash, 'hex') and l.created_by = v_caller;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Removes what is over: logins, codes, idempotency keys, enrolments. Gives how many rows went.
create function agentapi.job_sweep(p_now timestamptz) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_total bigint := 0;
  v_count bigint;
begin
  perform agentapi_private.require_service();
  delete from agentapi.logins as l where l.expires_at <= p_now;
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.login_codes as c where c.expires_at <= p_now;
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.idempotency_keys as k where k.created_at < p_now - interval '1 day';
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.host_enrolments as e where e.expires_at <= p_now;
  get diagnostics v_count = row_count;
  return v_total + v_count;
end
$$;

call agentapi_private.publish('agentapi.job_login', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_disable_user', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_register_token', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_register_host_token', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_token', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.create_login_code', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.job_redeem_login_code', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_browser_session', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.end_browser_session', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.job_sweep', 'agentapi_system', 'service_role');
