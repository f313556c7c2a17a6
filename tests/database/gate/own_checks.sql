-- Each security definer function that can be called over REST asks for the proof first. One is there to bring the proof.
select p.oid::regprocedure::text from pg_proc p
where p.pronamespace = 'agentapi'::regnamespace and p.prosecdef and p.proname <> 'register_proof'
  and p.prosrc !~ 'agentapi_private\.require(_proof|_service|_session)?\(';
-- caught:
create function agentapi.unasked() returns int language sql security definer set search_path = pg_catalog, pg_temp as 'select 1';
