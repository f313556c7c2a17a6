-- The roles that own functions have no right of their own to more, belong to nobody who serves requests, and own no table.
select r.rolname || ' has too many rights' from pg_roles r
where r.rolname in ('agentapi_policy', 'agentapi_writer', 'agentapi_system')
  and (r.rolsuper or r.rolbypassrls or r.rolcanlogin or r.rolcreaterole or r.rolcreatedb or r.rolreplication)
union all
select m.rolname || ' may become ' || r.rolname from pg_roles r cross join pg_roles m
where r.rolname in ('agentapi_policy', 'agentapi_writer', 'agentapi_system')
  and m.rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'agentapi_policy', 'agentapi_writer', 'agentapi_system')
  and m.oid <> r.oid and pg_has_role(m.oid, r.oid, 'member')
union all
select 'the role ' || w.name || ' is missing' from (values ('agentapi_policy'), ('agentapi_writer'), ('agentapi_system')) as w (name)
where not exists (select from pg_roles r where r.rolname = w.name)
union all
select c.oid::regclass || ' belongs to ' || c.relowner::regrole from pg_class c
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and c.relkind in ('r', 'p')
  and c.relowner <> 'postgres'::regrole;
-- caught:
grant agentapi_writer to authenticated;
-- caught:
grant agentapi_policy to agentapi_writer;
-- caught:
grant create on schema agentapi to agentapi_writer; alter table agentapi.hosts owner to agentapi_writer;
-- caught:
alter role agentapi_system login;
