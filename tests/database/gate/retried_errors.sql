-- PostgREST before 16 repeats a transaction that raises serialization_failure for ever.
select p.oid::regprocedure::text from pg_proc p
where p.pronamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and p.prosrc ~* '\y(40001|40P01|40003)\y|serialization_failure|repeatable read|serializable';
-- caught:
create function agentapi.again() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $$ begin raise sqlstate '40001'; end $$;
