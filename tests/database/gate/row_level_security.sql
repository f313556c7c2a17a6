-- Every table has row level security, for its owner too.
select c.oid::regclass::text from pg_class c
where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and c.relkind in ('r', 'p')
  and not (c.relrowsecurity and c.relforcerowsecurity);
-- caught:
create table agentapi.forgotten (id uuid primary key);
-- caught:
alter table agentapi.user_sessions disable row level security;
-- caught:
alter table agentapi_private.proofs no force row level security;
