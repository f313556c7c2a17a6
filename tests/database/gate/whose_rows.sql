-- Each table says whose its rows are. Users belong to no organisation, an organisation to itself; the chain is made by one job.
select c.oid::regclass || ' has no ' || w.name
from pg_class c cross join (values ('org_id'), ('created_by')) as w (name)
where c.relnamespace = 'agentapi'::regnamespace and c.relkind in ('r', 'p')
  and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = w.name and not a.attisdropped)
  and (c.relname::text, w.name) not in (('users', 'org_id'), ('users', 'created_by'), ('organizations', 'org_id'), ('audit_seals', 'created_by'));
-- caught:
create table agentapi.nobodys (id uuid primary key);
