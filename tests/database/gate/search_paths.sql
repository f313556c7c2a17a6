-- Each function pins its search path, temporary tables last.
select p.oid::regprocedure::text from pg_proc p
where p.pronamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false);
-- caught:
create function agentapi.trusting() returns int language sql as 'select 1';
-- caught:
alter function agentapi.create_session set search_path = public;
