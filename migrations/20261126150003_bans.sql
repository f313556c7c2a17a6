-- Users whom Supabase Auth has banned, in Studio or by its API, for a while or for ever: they have nothing here as long as they are, and what
-- they had when they are not. Their sessions go on.

-- Who disabled a user; null: the platform, or the user is deleted, which lasts.
alter table agentapi.users add column disabled_by text check (disabled_by = 'ban');

-- Which of an issuer's users are banned now. It keeps its owner as `deleted_users` does, and for the same reason. A Supabase Auth that is too
-- old to ban anybody has no such column.
create function agentapi_private.banned_users(p_issuer text) returns setof uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pg_attribute as t where t.attrelid = to_regclass('auth.users') and t.attname = 'banned_until' and not t.attisdropped) then
    return query execute
      'select u.id from agentapi.users as u join auth.users as a on a.id = u.id where u.issuer = $1 and a.banned_until > now()' using p_issuer;
  end if;
end
$$;
revoke all on function agentapi_private.banned_users(text) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.banned_users(text) to agentapi_system;

-- As before, also of those who were banned first.
create or replace function agentapi_private.deleted_users(p_issuer text) returns setof uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A PostgREST without Supabase has no such table, and deletes nobody in it.
  if to_regclass('auth.users') is not null then
    return query
      select u.id from agentapi.users as u
      where u.issuer = p_issuer and (u.disabled_at is null or u.disabled_by = 'ban') and not exists (select from auth.users as a where a.id = u.id);
  end if;
end
$$;

-- Takes from those who are banned what they have, and gives it back to those who are not any more, each with a record in the platform's trail.
create function agentapi_private.follow_bans(p_issuer text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_banned uuid[] := array(select agentapi_private.banned_users(p_issuer));
  v_user uuid;
begin
  for v_user in
    update agentapi.users as u set disabled_at = now(), disabled_by = 'ban' where u.id = any (v_banned) and u.disabled_at is null returning u.id
  loop
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'system', 'banned_users', 'user.disable', null, null,
      jsonb_build_object('user', v_user));
  end loop;
  for v_user in
    update agentapi.users as u set disabled_at = null, disabled_by = null
    where u.issuer = p_issuer and u.disabled_by = 'ban' and not u.id = any (v_banned) returning u.id
  loop
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'system', 'banned_users', 'user.enable', null, null,
      jsonb_build_object('user', v_user));
  end loop;
end
$$;
revoke all on function agentapi_private.follow_bans(text) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.follow_bans(text) to agentapi_system;

-- As before, and it follows bans, after those who are gone for good.
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
  return query
    select s.id from agentapi.user_sessions as s join agentapi.users as u on u.id = s.created_by and u.disabled_at is not null
    where s.state not in ('exited', 'failed', 'lost') and s.desired = 'stop';
end
$$;

-- As before. What the platform disables stays disabled when a ban is over.
create or replace function agentapi_private.shut_out(p_user uuid, p_force boolean, p_action text) returns bigint
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
  update agentapi.users as u set disabled_at = coalesce(u.disabled_at, now()), disabled_by = null where u.id = p_user;
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

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126150003';
end
$$;

notify pgrst, 'reload schema';
