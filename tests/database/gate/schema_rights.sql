-- Only the role of the migrations makes things in our schemas; anon and everyone do not enter.
select n.nspname || ' ' || a.privilege_type || ' to ' || coalesce(r.rolname, 'public')
from pg_namespace n cross join lateral aclexplode(n.nspacl) a left join pg_roles r on r.oid = a.grantee
where n.nspname in ('agentapi', 'agentapi_private')
  and not (coalesce(r.rolname, '') = 'postgres' or (a.privilege_type = 'USAGE' and coalesce(r.rolname, '') in
    ('authenticated', 'service_role', 'agentapi_policy', 'agentapi_writer', 'agentapi_system')));
-- caught:
grant usage on schema agentapi to anon;
-- caught:
grant create on schema agentapi to agentapi_writer;
-- caught:
grant usage on schema agentapi_private to public;
