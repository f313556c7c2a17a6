-- Tenants and the service role hold SELECT on tables and columns, and nothing in the private schema; anon and everyone hold nothing.
select c.oid::regclass || ' ' || a.privilege_type || ' to ' || coalesce(r.rolname, 'public')
from pg_class c
join lateral (
  select * from aclexplode(c.relacl)
  union all select x.* from pg_attribute t, aclexplode(t.attacl) x where t.attrelid = c.oid) a on true
left join pg_roles r on r.oid = a.grantee
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and coalesce(r.rolname, 'public') not in ('postgres', 'agentapi_policy', 'agentapi_writer', 'agentapi_system')
  and not (coalesce(r.rolname, 'public') in ('authenticated', 'service_role') and a.privilege_type = 'SELECT'
    and c.relnamespace = 'agentapi'::regnamespace);
-- caught:
grant insert on agentapi.user_sessions to authenticated;
-- caught:
grant update (name) on agentapi.organizations to authenticated;
-- caught:
grant delete on agentapi.audit_logs to service_role;
-- caught:
grant select on agentapi.organizations to anon;
-- caught:
grant select on agentapi_private.proofs to service_role;
