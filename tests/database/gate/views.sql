-- A view has its owner's rights unless it says otherwise; a materialized view and a foreign table have no row level security at all.
select c.oid::regclass::text from pg_class c
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and (c.relkind in ('m', 'f') or (c.relkind = 'v' and not coalesce('security_invoker=true' = any (c.reloptions), false)));
-- caught:
create view agentapi.everything as select * from agentapi.user_sessions;
-- caught:
create materialized view agentapi.totals as select count(*) from agentapi.user_sessions;
