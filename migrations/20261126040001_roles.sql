-- Two schemas and three roles of our own; nothing else of the project is touched.
--
-- `agentapi` is exposed through PostgREST, `agentapi_private` is not. Tables belong to the role that applies migrations (`postgres`).
-- Functions belong to roles that cannot log in and have no BYPASSRLS, so that row level security decides for them too: a function that
-- forgets its check still fails.
--   agentapi_policy  reads what a policy has to know (memberships, proofs, counts); writes nothing
--   agentapi_writer  writes in the name of the caller of a request; its policies are the caller's capabilities
--   agentapi_system  writes for named jobs of the control plane; its policies hold for tokens of the service role alone

do $$
declare
  v_role text;
begin
  foreach v_role in array array['agentapi_policy', 'agentapi_writer', 'agentapi_system'] loop
    -- Roles are shared by every database of a cluster: another one may have made them.
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute pg_catalog.format('create role %I nologin noinherit', v_role);
    end if;
    -- Who hands functions over to a role has to be a member of it.
    execute pg_catalog.format('grant %I to %I', v_role, current_user);
  end loop;
end
$$;

create schema agentapi;
create schema agentapi_private;
revoke all on schema agentapi, agentapi_private from public, anon, authenticated, service_role;
grant usage on schema agentapi to authenticated, service_role, agentapi_policy, agentapi_writer, agentapi_system;
grant usage on schema agentapi_private to agentapi_policy, agentapi_writer, agentapi_system;

-- Gives a function its owner and its one kind of caller. Functions start out executable by everyone, whatever a schema's default
-- privileges say, so each one passes through here; the right to create in a schema is lent for that moment only.
create procedure agentapi_private.publish(p_function regproc, p_owner text, p_callers text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := p_function::oid::regprocedure::text;
  v_schema text := (select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_function::oid);
begin
  execute format('revoke all on function %s from public, anon, authenticated, service_role', v_name);
  execute format('grant execute on function %s to %s', v_name, p_callers);
  execute format('grant create on schema %I to %I', v_schema, p_owner);
  execute format('alter function %s owner to %I', v_name, p_owner);
  execute format('revoke create on schema %I from %I', v_schema, p_owner);
end
$$;
revoke all on procedure agentapi_private.publish(regproc, text, text) from public, anon, authenticated, service_role;
