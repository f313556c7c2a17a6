-- Users who were deleted in Supabase Auth, in Studio or by its API. There is no foreign key to auth.users and no trigger on it: a delete there
-- must neither fail nor take running sessions along unseen. A job looks, takes the users' capabilities, and has their sessions stopped.

-- Which of an issuer's users are not in auth.users any more. The one function here that keeps its owner, since `postgres` may read that table
-- and cannot hand the right on: it takes no rows of a tenant's choice, gives ids of ours alone, and writes nothing.
create function agentapi_private.deleted_users(p_issuer text) returns setof uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A PostgREST without Supabase has no such table, and deletes nobody in it.
  if to_regclass('auth.users') is not null then
    return query
      select u.id from agentapi.users as u
      where u.issuer = p_issuer and u.disabled_at is null and not exists (select from auth.users as a where a.id = u.id);
  end if;
end
$$;
revoke all on function agentapi_private.deleted_users(text) from public, anon, authenticated, service_role;
grant execute on function agentapi_private.deleted_users(text) to agentapi_system;

-- Disables them and has their sessions stopped, each with a record in its organisation's trail. Gives the sessions, for the control plane to
-- tell their hosts.
create function agentapi.job_end_deleted_users(p_issuer text) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
  v_session record;
begin
  perform agentapi_private.require_service();
  for v_user in select * from agentapi_private.deleted_users(p_issuer) loop
    update agentapi.users as u set disabled_at = now() where u.id = v_user and u.disabled_at is null;
    -- Another job may have come first.
    continue when not found;
    perform agentapi_private.record_fact('00000000-0000-0000-0000-000000000000', 'system', 'deleted_users', 'user.disable', null, null,
      jsonb_build_object('user', v_user));
    for v_session in
      update agentapi.user_sessions as s
      set desired = 'stop', restarting = false, generation = s.generation + 1, revision = s.revision + 1
      where s.created_by = v_user and s.state not in ('exited', 'failed', 'lost') and (s.desired = 'run' or s.restarting)
      returning s.id, s.org_id
    loop
      perform agentapi_private.record_fact(v_session.org_id, 'system', 'deleted_users', 'session.stop', v_session.id, null,
        jsonb_build_object('user', v_user));
      return next v_session.id;
    end loop;
  end loop;
end
$$;
call agentapi_private.publish('agentapi.job_end_deleted_users', 'agentapi_system', 'service_role');

-- PostgREST learns of the new functions.
notify pgrst, 'reload schema';
