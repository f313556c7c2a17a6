-- What a project has outside of our schemas, as text: the same before and after the migrations.
select kind || ': ' || what from (
  select 'schema' as kind, n.nspname || ' ' || coalesce(n.nspacl::text, '') as what from pg_namespace n
    where n.nspname not like 'pg\_%' and n.nspname not in ('agentapi', 'agentapi_private', 'information_schema')
  union all
  select 'default privilege', concat_ws(' ', d.defaclrole::regrole, d.defaclnamespace, d.defaclobjtype, d.defaclacl) from pg_default_acl d
  union all
  select 'publication', p.pubname || ' ' || p.puballtables from pg_publication p
  union all
  select 'published', p.prrelid::regclass::text from pg_publication_rel p
  union all
  select 'trigger', t.tgrelid::regclass || ' ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace not in (select oid from pg_namespace where nspname in ('agentapi', 'agentapi_private'))
  union all
  select 'event trigger', e.evtname from pg_event_trigger e
  union all
  select 'extension', e.extname || ' ' || e.extversion from pg_extension e
  union all
  select 'relation', c.oid::regclass || ' ' || coalesce(c.relacl::text, '') || ' ' || c.relrowsecurity from pg_class c
    where c.relnamespace in (select oid from pg_namespace where nspname in ('public', 'auth', 'extensions', 'api')) and c.relkind in ('r', 'v', 'm', 'S', 'f')
  union all
  select 'function', p.oid::regprocedure || ' ' || coalesce(p.proacl::text, '') from pg_proc p
    where p.pronamespace in (select oid from pg_namespace where nspname in ('public', 'auth', 'api'))
  union all
  select 'role', concat_ws(' ', r.rolname, r.rolsuper, r.rolbypassrls, r.rolcanlogin, r.rolinherit, r.rolconfig) from pg_roles r
    where r.rolname not like 'pg\_%' and r.rolname not like 'agentapi\_%'
  union all
  select 'membership', m.member::regrole || ' in ' || m.roleid::regrole from pg_auth_members m
    where m.roleid::regrole::text not like 'agentapi\_%'
  union all
  select 'setting', s.setdatabase || ' ' || s.setrole || ' ' || s.setconfig::text from pg_db_role_setting s
) as found order by 1;
-- caught:
alter default privileges revoke execute on functions from public;
-- caught:
create function public.follow() returns trigger language plpgsql as $$ begin return new; end $$;
-- caught:
create table public.agentapi_leftover (id int);
-- caught:
create publication everything;
-- caught:
grant usage on schema public to agentapi_writer;
