-- Each function of the exposed schema is for one kind of caller, and none for anon or everyone. What tenants reach in the private
-- schema is what policies ask.
select p.oid::regprocedure || ' may be called by ' || coalesce(r.rolname, 'public')
from pg_proc p
cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a left join pg_roles r on r.oid = a.grantee
join pg_roles o on o.oid = p.proowner
where p.pronamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and a.grantee <> p.proowner
  and not coalesce(case
    when p.pronamespace = 'agentapi_private'::regnamespace then
      coalesce(r.rolname like 'agentapi\_%', false)
      or (r.rolname in ('authenticated', 'service_role') and p.proname in ('caller', 'orgs_with', 'host_load'))
    when o.rolname = 'agentapi_writer' then coalesce(r.rolname = 'authenticated', false)
    when o.rolname = 'agentapi_system' then coalesce(r.rolname = 'service_role', false)
    -- With the caller's own rights.
    else not p.prosecdef and coalesce(r.rolname in ('authenticated', 'service_role'), false)
  end, false);
-- caught:
create function agentapi.open_to_all() returns int language sql set search_path = pg_catalog, pg_temp as 'select 1';
-- caught:
grant execute on function agentapi.create_session to anon;
-- caught:
grant execute on function agentapi.job_token to authenticated;
-- caught:
grant execute on function agentapi.create_session to service_role;
-- caught:
grant execute on function agentapi_private.owners to authenticated;
-- caught:
grant execute on function agentapi_private.owners to public;
