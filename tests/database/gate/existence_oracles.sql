-- A unique name across organisations would tell one of them what another one has: unique text stands beside its organisation, or in a
-- table of one's own.
select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace = 'agentapi'::regnamespace and i.indisunique and c.relname <> 'users'
  and exists (select from unnest(i.indkey::int2[]) k join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k
    where a.atttypid in ('text'::regtype, 'varchar'::regtype))
  and not exists (select from unnest(i.indkey::int2[]) k join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k
    where a.attname = 'org_id');
-- caught:
alter table agentapi.organizations add column slug text unique;
