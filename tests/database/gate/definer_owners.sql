-- A security definer function belongs to a role without BYPASSRLS that cannot log in: row level security decides for it too. Two read a
-- table that only `postgres` may read, and can be called by functions alone.
select p.oid::regprocedure || ' belongs to ' || o.rolname
from pg_proc p join pg_roles o on o.oid = p.proowner
where p.pronamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and p.prosecdef
  and (o.rolbypassrls or o.rolsuper or o.rolcanlogin)
  and p.oid not in ('agentapi_private.deleted_users(text)'::regprocedure, 'agentapi_private.banned_users(text)'::regprocedure);
-- caught:
create function agentapi.forgets() returns int language sql security definer set search_path = pg_catalog, pg_temp as 'select 1';
-- caught:
alter function agentapi.purge_session owner to postgres;
