-- Each foreign key has an index that begins with its columns, so that no delete and no join reads the whole table.
select k.conrelid::regclass || ' ' || k.conname from pg_constraint k
join pg_class c on c.oid = k.conrelid
where k.contype = 'f' and c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and not exists (
    select from pg_index i where i.indrelid = k.conrelid and i.indpred is null
      and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] <@ k.conkey);
-- caught:
drop index agentapi.spawns_by_org;
-- caught:
alter table agentapi.hosts add column parent_id uuid references agentapi.hosts (id);
