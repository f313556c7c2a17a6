-- Each policy names its roles; anon has none, and those of tenants are for reading.
select p.polrelid::regclass || ' ' || p.polname
from pg_policy p join pg_class c on c.oid = p.polrelid
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and (0 = any (p.polroles) or 'anon'::regrole::oid = any (p.polroles) or not p.polpermissive
    or (p.polroles && array['authenticated'::regrole::oid, 'service_role'::regrole::oid] and p.polcmd <> 'r'));
-- caught:
create policy everyone on agentapi.hosts for select using (true);
-- caught:
create policy visitors on agentapi.organizations for select to anon using (true);
-- caught:
create policy own on agentapi.user_sessions for insert to authenticated with check (true);
