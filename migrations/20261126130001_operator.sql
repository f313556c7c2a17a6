-- What the platform's operator does with people: shuts them out, lets them in again, erases them. Their sessions stop, each with a record in its
-- organisation's trail; that it was done stands there too, and in the platform's.

-- Organisations with one usable owner: this one. Volatile, so that it sees what was committed while its caller waited.
create function agentapi_private.owned_alone(p_user uuid) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_agg(m.org_id order by m.org_id), '{}') from agentapi.memberships as m
    where m.user_id = p_user and m.role = 'owner' and not exists (
      select from agentapi.memberships as o join agentapi.users as u on u.id = o.user_id and u.disabled_at is null
      where o.org_id = m.org_id and o.role = 'owner' and o.user_id <> p_user));
end
$$;

-- Has what somebody runs stopped, in the name of a job. Gives the sessions.
create function agentapi_private.stop_sessions_of(p_user uuid, p_job text) returns setof uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session record;
begin
  for v_session in
    update agentapi.user_sessions as s
    set desired = 'stop', restarting = false, generation = s.generation + 1, revision = s.revision + 1
    where s.created_by = p_user and s.state not in ('exited', 'failed', 'lost') and (s.desired = 'run' or s.restarting)
    returning s.id, s.org_id
  loop
    perform agentapi_private.record_fact(v_session.org_id, 'system', p_job, 'session.stop', v_session.id, null,
      jsonb_build_object('user', p_user));
    return next v_session.id;
  end loop;
end
$$;

-- Ends what somebody is logged in with, stops their sessions, and tells their organisations. Refuses to leave one without a usable owner unless
-- that is meant. Gives how many sessions are stopped.
create function agentapi_private.shut_out(p_user uuid, p_force boolean, p_action text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
  v_alone uuid[];
begin
  -- Who changes an organisation's members waits for whoever does so at the same time.
  for v_org in select m.org_id from agentapi.memberships as m where m.user_id = p_user order by m.org_id loop
    perform pg_advisory_xact_lock(hashtextextended('agentapi.members:' || v_org, 0));
  end loop;
  v_alone := agentapi_private.owned_alone(p_user);
  if v_alone <> '{}'::uuid[] and not p_force
    and exists (select from agentapi.users as u where u.id = p_user and u.disabled_at is null) then
    raise sqlstate 'PT409' using message = 'last_owner';
  end if;
  update agentapi.users as u set disabled_at = coalesce(u.disabled_at, now()) where u.id = p_user;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  delete from agentapi.logins as l where l.created_by = p_user;
  delete from agentapi.login_codes as c where c.created_by = p_user;
  delete from agentapi.host_enrolments as e where e.created_by = p_user;
  for v_org in select m.org_id from agentapi.memberships as m where m.user_id = p_user order by m.org_id loop
    perform agentapi_private.record_fact(v_org, 'system', 'operator', p_action, null, null,
      jsonb_build_object('user', p_user, 'no_owner_left', v_org = any (v_alone)));
  end loop;
  return (select count(*) from agentapi_private.stop_sessions_of(p_user, 'operator'));
end
$$;

revoke all on function agentapi_private.owned_alone(uuid), agentapi_private.stop_sessions_of(uuid, text),
  agentapi_private.shut_out(uuid, boolean, text) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.owned_alone(uuid), agentapi_private.stop_sessions_of(uuid, text),
  agentapi_private.shut_out(uuid, boolean, text) to agentapi_system;

-- Addresses stand in invitations too.
grant select (id, email, accepted_by, accepted_at, revoked_at) on agentapi.invitations to agentapi_system;
grant update (email, revoked_at) on agentapi.invitations to agentapi_system;
create policy system_all on agentapi.invitations for all to agentapi_system using ((select agentapi_private.is_service()));

-- A user loses every capability, or has them again. Keys are good for nothing as long as their user is shut out. Gives how many sessions are
-- stopped.
drop function agentapi.job_disable_user(uuid, boolean, jsonb);
create function agentapi.job_disable_user(p_user uuid, p_disabled boolean, p_force boolean, p_audit jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sessions bigint := 0;
  v_org uuid;
begin
  perform agentapi_private.require_service();
  if p_disabled then
    v_sessions := agentapi_private.shut_out(p_user, p_force, 'user.disable');
  else
    update agentapi.users as u set disabled_at = null where u.id = p_user and u.subject <> 'erased:' || u.id;
    if not found then
      if exists (select from agentapi.users as u where u.id = p_user) then
        raise sqlstate 'PT409' using message = 'erased';
      end if;
      raise sqlstate 'PT404' using message = 'not_found';
    end if;
    for v_org in select m.org_id from agentapi.memberships as m where m.user_id = p_user order by m.org_id loop
      perform agentapi_private.record_fact(v_org, 'system', 'operator', 'user.enable', null, null, jsonb_build_object('user', p_user));
    end loop;
  end if;
  perform agentapi_private.record_job('00000000-0000-0000-0000-000000000000', null, p_audit);
  return v_sessions;
end
$$;

-- Removes what is personal of a user, here and beside the audit trail, whose hashes stay as they are, and shuts them out for good. Gives how many
-- records were concerned and how many sessions are stopped: {"records", "sessions"}.
drop function agentapi.job_erase_person(uuid, jsonb);
create function agentapi.job_erase_person(p_user uuid, p_force boolean, p_audit jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sessions bigint;
  v_records bigint;
  v_email text;
begin
  perform agentapi_private.require_service();
  v_sessions := agentapi_private.shut_out(p_user, p_force, 'user.erase');
  select lower(u.email) into v_email from agentapi.users as u where u.id = p_user and u.email_verified;
  update agentapi.invitations as i
  set email = 'erased@erased.invalid', revoked_at = case when i.accepted_at is null then coalesce(i.revoked_at, now()) else i.revoked_at end
  where i.accepted_by = p_user or i.email = v_email;
  update agentapi.users as u set name = null, email = null, email_verified = false, subject = 'erased:' || u.id where u.id = p_user;
  update agentapi.api_keys as k set revoked_at = now() where k.user_id = p_user and k.revoked_at is null;
  delete from agentapi.idempotency_keys as k where k.created_by = p_user;
  delete from agentapi.audit_personal as p where p.created_by = p_user::text;
  get diagnostics v_records = row_count;
  perform agentapi_private.record_job('00000000-0000-0000-0000-000000000000', null, p_audit);
  return jsonb_build_object('records', v_records, 'sessions', v_sessions);
end
$$;

-- As before, and what somebody who was shut out still runs is given until it has ended: whoever shut them out may have had no way to the hosts.
create or replace function agentapi.job_end_deleted_users(p_issuer text) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
begin
  perform agentapi_private.require_service();
  for v_user in select * from agentapi_private.deleted_users(p_issuer) loop
    update agentapi.users as u set disabled_at = now() where u.id = v_user and u.disabled_at is null;
    -- Another job may have come first.
    continue when not found;
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'system', 'deleted_users', 'user.disable', null, null,
      jsonb_build_object('user', v_user));
    perform agentapi_private.stop_sessions_of(v_user, 'deleted_users');
  end loop;
  return query
    select s.id from agentapi.user_sessions as s join agentapi.users as u on u.id = s.created_by and u.disabled_at is not null
    where s.state not in ('exited', 'failed', 'lost') and s.desired = 'stop';
end
$$;

-- As before, and whoever was erased stays so: their id is that of their issuer, who may vouch for them again.
create or replace function agentapi.job_login(p_user uuid, p_kind text, p_issuer text, p_subject text, p_name text, p_email text,
  p_email_verified boolean) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user agentapi.users;
begin
  perform agentapi_private.require_service();
  select * into v_user from agentapi.users as u where u.id = p_user and u.subject = 'erased:' || p_user;
  if found then
    return to_jsonb(v_user);
  end if;
  insert into agentapi.users (id, kind, issuer, subject, name, email, email_verified)
  values (p_user, p_kind, p_issuer, p_subject, p_name, p_email, p_email_verified)
  on conflict (issuer, subject) do update
    set name = excluded.name, email = excluded.email, email_verified = excluded.email_verified
  returning * into v_user;
  return to_jsonb(v_user);
end
$$;

-- Who has an id or an address: each with their organisations, and which of those has no other usable owner.
create function agentapi.job_people(p_user uuid, p_email text) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return (
    select coalesce(jsonb_agg(jsonb_build_object('id', u.id, 'issuer', u.issuer, 'name', u.name, 'email', u.email,
      'disabled', u.disabled_at is not null, 'erased', u.subject = 'erased:' || u.id,
      'organizations', (
        select coalesce(jsonb_agg(jsonb_build_object('id', o.id, 'name', o.name, 'role', m.role,
          'alone', o.id = any (agentapi_private.owned_alone(u.id))) order by o.id), '[]')
        from agentapi.memberships as m join agentapi.organizations as o on o.id = m.org_id where m.user_id = u.id)) order by u.id), '[]')
    from agentapi.users as u where u.id = p_user or lower(u.email) = lower(p_email));
end
$$;

-- Every organisation, as the operator sees them: whose it is, what it may have and what it has. No tenant's data.
create function agentapi.job_organizations() returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return (
    select coalesce(jsonb_agg(jsonb_build_object('id', o.id, 'name', o.name, 'created_at', o.created_at,
      'quotas', jsonb_build_object('sessions_max', o.sessions_max, 'sessions_per_day_max', o.sessions_per_day_max,
        'viewers_max', o.viewers_max),
      'owners', (
        select coalesce(jsonb_agg(jsonb_build_object('id', u.id, 'name', u.name, 'email', u.email, 'disabled', u.disabled_at is not null)
          order by u.id), '[]')
        from agentapi.memberships as m join agentapi.users as u on u.id = m.user_id where m.org_id = o.id and m.role = 'owner'),
      'members', (select count(*) from agentapi.memberships as m where m.org_id = o.id),
      'hosts', (select count(*) from agentapi.hosts as h where h.org_id = o.id and h.revoked_at is null),
      'sessions_running', (
        select count(*) from agentapi.user_sessions as s where s.org_id = o.id and s.state not in ('exited', 'failed', 'lost')),
      'sessions_today', (
        select count(*) from agentapi.audit_logs as a
        where a.org_id = o.id and a.action = 'session.create' and a.recorded_at >= date_trunc('day', now(), 'UTC'))) order by o.id), '[]')
    from agentapi.organizations as o);
end
$$;

-- The platform's chain is nobody's organisation.
alter table agentapi.organizations add constraint organizations_not_platform check (id <> '00000000-0000-0000-0000-000000000000');

call agentapi_private.publish('agentapi.job_disable_user', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_erase_person', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_people', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_organizations', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126130001';
end
$$;

notify pgrst, 'reload schema';
