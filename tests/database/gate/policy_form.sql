-- What a policy asks about the caller is asked once a statement: in a sub-select of its own, never once a row. And one policy for each
-- action and role, or every one of them is asked.
with asked as (
  select p.polrelid::regclass as table_name, p.polname,
    coalesce(pg_get_expr(p.polqual, p.polrelid), '') || ' ' || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '') as expression
  from pg_policy p join pg_class c on c.oid = p.polrelid
  where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace))
select table_name || ' ' || polname from asked
where regexp_count(expression, 'agentapi_private\.(orgs_with|caller|caller_email|is_service)\(')
  <> regexp_count(expression, 'SELECT \(?agentapi_private\.(orgs_with|caller|caller_email|is_service)\(')
union all
select p.polrelid::regclass || ' has several policies for ' || r.role::regrole
from pg_policy p join pg_class c on c.oid = p.polrelid cross join lateral unnest(p.polroles) as r (role)
cross join (values ('r'::"char"), ('a'), ('w'), ('d')) as v (verb)
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and p.polcmd in (v.verb, '*')
group by p.polrelid, r.role, v.verb having count(*) > 1;
-- caught:
alter policy tenant_read on agentapi.audit_logs using (org_id = any (agentapi_private.orgs_with('audit.read')));
-- caught:
alter policy writer_read on agentapi.logins using (created_by = agentapi_private.caller());
-- caught:
create policy more on agentapi.hosts for select to authenticated using (org_id is null);
