-- Row level security. Tenants read; agentapi_writer writes in a caller's name; agentapi_system writes for jobs. What no policy names is
-- refused, and tenants have no right but SELECT, so that policies for writing are those of the two roles that own functions.

do $$
declare
  v_table regclass;
begin
  for v_table in
    select c.oid from pg_catalog.pg_class as c
    where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and c.relkind in ('r', 'p')
  loop
    execute pg_catalog.format('alter table %s enable row level security', v_table);
    execute pg_catalog.format('alter table %s force row level security', v_table);
  end loop;
end
$$;

-- Whatever a project grants by default on what is new.
revoke all on all tables in schema agentapi, agentapi_private from public, anon, authenticated, service_role;
revoke all on all sequences in schema agentapi, agentapi_private from public, anon, authenticated, service_role;

-- Tenants: SELECT, and never a secret's hash. A list of columns where some are not theirs.
grant select on agentapi.organizations, agentapi.memberships, agentapi.user_sessions, agentapi.spawns, agentapi.egress_decisions,
  agentapi.mcp_configs, agentapi.system_prompts, agentapi.audit_logs, agentapi.audit_seals, agentapi.audit_personal
  to authenticated, service_role;
grant select (id, kind, name, email, created_at, disabled_at) on agentapi.users to authenticated, service_role;
grant select (id, org_id, created_by, created_at, email, role, expires_at, revoked_at, accepted_at, accepted_by)
  on agentapi.invitations to authenticated, service_role;
grant select (id, org_id, user_id, created_by, created_at, name, prefix, scopes, expires_at, revoked_at, last_used_at)
  on agentapi.api_keys to authenticated, service_role;
grant select (id, org_id, created_by, created_at, name, version, facts, last_seen_at, revoked_at)
  on agentapi.hosts to authenticated;
grant select on agentapi.hosts to service_role;

-- agentapi_policy: reads what its functions ask.
create policy policy_read on agentapi.memberships for select to agentapi_policy using (true);
create policy policy_read on agentapi.users for select to agentapi_policy using (true);
create policy policy_read on agentapi.organizations for select to agentapi_policy using (true);
create policy policy_read on agentapi.invitations for select to agentapi_policy using (true);
create policy policy_read on agentapi.user_sessions for select to agentapi_policy using (true);
create policy policy_read on agentapi.audit_logs for select to agentapi_policy using (true);
create policy policy_read on agentapi_private.capabilities for select to agentapi_policy using (true);
create policy policy_read on agentapi_private.proofs for select to agentapi_policy using (true);

-- Reading, for tenants and for functions in their name.
create policy tenant_read on agentapi.organizations for select to authenticated, agentapi_writer
  using (id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));
create policy tenant_read on agentapi.memberships for select to authenticated, agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('member.view'))::uuid[]));
create policy tenant_read on agentapi.users for select to authenticated, agentapi_writer
  using (id = (select agentapi_private.caller())
    or id in (select m.user_id from agentapi.memberships as m
      where m.org_id = any ((select agentapi_private.orgs_with('member.view'))::uuid[])));
create policy tenant_read on agentapi.invitations for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[]));
create policy writer_read on agentapi.invitations for select to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])
    or email = (select agentapi_private.caller_email()));
create policy tenant_read on agentapi.api_keys for select to authenticated, agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('api_key.manage'))::uuid[])
    or (user_id = (select agentapi_private.caller())
      and org_id = any ((select agentapi_private.orgs_with('api_key.create'))::uuid[])));
create policy tenant_read on agentapi.hosts for select to authenticated, agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('host.view'))::uuid[])
    or (org_id is null and (select agentapi_private.orgs_with('host.view')) <> '{}'::uuid[]));
create policy tenant_read on agentapi.user_sessions for select to authenticated, agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('session.view_all'))::uuid[])
    or (created_by = (select agentapi_private.caller())
      and org_id = any ((select agentapi_private.orgs_with('session.view_own'))::uuid[]))
    or (visibility = 'organization' and org_id = any ((select agentapi_private.orgs_with('session.view_shared'))::uuid[])));
-- What belongs to a session is seen by whoever sees the session.
create policy tenant_read on agentapi.spawns for select to authenticated, agentapi_writer
  using (exists (select from agentapi.user_sessions as s where s.id = session_id));
create policy tenant_read on agentapi.egress_decisions for select to authenticated
  using (exists (select from agentapi.user_sessions as s where s.id = session_id));
create policy tenant_read on agentapi.mcp_configs for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('mcp.view'))::uuid[])
    and (user_id is null or user_id = (select agentapi_private.caller())));
create policy tenant_read on agentapi.system_prompts for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('prompt.view'))::uuid[])
    and (user_id is null or user_id = (select agentapi_private.caller())));
create policy tenant_read on agentapi.audit_logs for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('audit.read'))::uuid[]));
create policy tenant_read on agentapi.audit_seals for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('audit.read'))::uuid[]));
create policy tenant_read on agentapi.audit_personal for select to authenticated
  using (org_id = any ((select agentapi_private.orgs_with('audit.read'))::uuid[]));

-- Writing in a caller's name.
grant select, insert on agentapi.organizations to agentapi_writer;
grant update (name, settings, revision) on agentapi.organizations to agentapi_writer;
create policy writer_insert on agentapi.organizations for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller()));
create policy writer_update on agentapi.organizations for update to agentapi_writer
  using (id = any ((select agentapi_private.orgs_with('organization.manage'))::uuid[]));

grant select, insert, delete on agentapi.memberships to agentapi_writer;
grant update (role) on agentapi.memberships to agentapi_writer;
create policy writer_insert on agentapi.memberships for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller()) and user_id = (select agentapi_private.caller())
    and ((role = 'owner' and agentapi_private.is_founding(org_id)) or agentapi_private.is_accepting(org_id, role)));
create policy writer_update on agentapi.memberships for update to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])
    and (role <> 'owner' or org_id = any ((select agentapi_private.orgs_with('owner.grant'))::uuid[])));
create policy writer_delete on agentapi.memberships for delete to agentapi_writer
  using (user_id = (select agentapi_private.caller())
    or (org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])
      and (role <> 'owner' or org_id = any ((select agentapi_private.orgs_with('owner.grant'))::uuid[]))));

grant select (id, name, email, disabled_at) on agentapi.users to agentapi_writer;

grant select, insert on agentapi.invitations to agentapi_writer;
grant update (accepted_at, accepted_by, revoked_at) on agentapi.invitations to agentapi_writer;
create policy writer_insert on agentapi.invitations for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])
    and (role <> 'owner' or org_id = any ((select agentapi_private.orgs_with('owner.grant'))::uuid[])));
create policy writer_update on agentapi.invitations for update to agentapi_writer
  using (accepted_at is null and revoked_at is null
    and (org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])
      or (email = (select agentapi_private.caller_email()) and expires_at > now())))
  with check (accepted_by = (select agentapi_private.caller())
    or (accepted_by is null and org_id = any ((select agentapi_private.orgs_with('member.manage'))::uuid[])));

grant select, insert on agentapi.api_keys to agentapi_writer;
grant update (revoked_at) on agentapi.api_keys to agentapi_writer;
create policy writer_insert on agentapi.api_keys for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller()) and user_id = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('api_key.create'))::uuid[]));
create policy writer_update on agentapi.api_keys for update to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('api_key.manage'))::uuid[])
    or (user_id = (select agentapi_private.caller())
      and org_id = any ((select agentapi_private.orgs_with('api_key.create'))::uuid[])));

grant select on agentapi.hosts to agentapi_writer;
grant update (name, revoked_at) on agentapi.hosts to agentapi_writer;
create policy writer_update on agentapi.hosts for update to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('host.manage'))::uuid[]));
grant insert on agentapi.host_enrolments to agentapi_writer;
create policy writer_insert on agentapi.host_enrolments for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('host.manage'))::uuid[]));

grant select, insert, update, delete on agentapi.user_sessions to agentapi_writer;
create policy writer_insert on agentapi.user_sessions for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('session.create'))::uuid[]) and host_id is null);
create policy writer_update on agentapi.user_sessions for update to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('session.manage_all'))::uuid[])
    or (created_by = (select agentapi_private.caller())
      and org_id = any ((select agentapi_private.orgs_with('session.manage_own'))::uuid[])))
  with check ((org_id = any ((select agentapi_private.orgs_with('session.manage_all'))::uuid[])
      or (created_by = (select agentapi_private.caller())
        and org_id = any ((select agentapi_private.orgs_with('session.manage_own'))::uuid[])))
    and (host_id is null or exists (
      select from agentapi.hosts as h where h.id = host_id and (h.org_id is null or h.org_id = user_sessions.org_id))));
create policy writer_delete on agentapi.user_sessions for delete to agentapi_writer
  using (org_id = any ((select agentapi_private.orgs_with('session.manage_all'))::uuid[])
    or (created_by = (select agentapi_private.caller())
      and org_id = any ((select agentapi_private.orgs_with('session.manage_own'))::uuid[])));

grant select, insert, update on agentapi.spawns to agentapi_writer;
create policy writer_insert on agentapi.spawns for insert to agentapi_writer
  with check (exists (select from agentapi.user_sessions as s
    where s.id = session_id and s.org_id = spawns.org_id
      and (s.org_id = any ((select agentapi_private.orgs_with('session.manage_all'))::uuid[])
        or (s.created_by = (select agentapi_private.caller())
          and s.org_id = any ((select agentapi_private.orgs_with('session.manage_own'))::uuid[])))));
create policy writer_update on agentapi.spawns for update to agentapi_writer
  using (exists (select from agentapi.user_sessions as s
    where s.id = session_id and s.org_id = spawns.org_id
      and (s.org_id = any ((select agentapi_private.orgs_with('session.manage_all'))::uuid[])
        or (s.created_by = (select agentapi_private.caller())
          and s.org_id = any ((select agentapi_private.orgs_with('session.manage_own'))::uuid[])))));

grant select, insert, update, delete on agentapi.idempotency_keys to agentapi_writer;
create policy writer_all on agentapi.idempotency_keys for all to agentapi_writer
  using (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));

grant select, insert on agentapi.login_codes to agentapi_writer;
create policy writer_insert on agentapi.login_codes for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));
grant select, delete on agentapi.logins to agentapi_writer;
create policy writer_read on agentapi.logins for select to agentapi_writer using (created_by = (select agentapi_private.caller()));
create policy writer_delete on agentapi.logins for delete to agentapi_writer using (created_by = (select agentapi_private.caller()));

grant insert on agentapi.audit_logs, agentapi.audit_personal, agentapi_private.audit_queue to agentapi_writer;
create policy writer_insert on agentapi.audit_logs for insert to agentapi_writer
  with check (actor_kind = 'user' and created_by = (select agentapi_private.caller())::text
    and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));
create policy writer_insert on agentapi.audit_personal for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())::text
    and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));
create policy writer_insert on agentapi_private.audit_queue for insert to agentapi_writer with check (true);

-- Writing for jobs of the control plane: tokens of the service role alone, whoever may execute the function.
grant select, insert, update on agentapi.users, agentapi.organizations, agentapi.hosts, agentapi.host_credentials, agentapi.api_keys,
  agentapi.spawns to agentapi_system;
grant select on agentapi.memberships to agentapi_system;
grant select, insert on agentapi.egress_decisions to agentapi_system;
grant select, update, delete on agentapi.user_sessions to agentapi_system;
grant select, insert, update, delete on agentapi.logins to agentapi_system;
grant select, delete on agentapi.login_codes, agentapi.idempotency_keys, agentapi.host_enrolments to agentapi_system;
grant select, insert, update on agentapi_private.audit_heads to agentapi_system;
grant select, insert, delete on agentapi_private.audit_queue to agentapi_system;
grant select, insert, update, delete on agentapi_private.proofs to agentapi_system;
grant select, insert on agentapi.audit_logs, agentapi.audit_seals to agentapi_system;
grant select, insert, delete on agentapi.audit_personal to agentapi_system;
do $$
declare
  v_table text;
begin
  foreach v_table in array array['users', 'organizations', 'hosts', 'host_credentials', 'api_keys', 'spawns', 'memberships',
    'egress_decisions', 'logins', 'login_codes', 'idempotency_keys', 'host_enrolments', 'audit_seals', 'audit_personal'] loop
    execute pg_catalog.format('create policy system_all on agentapi.%I for all to agentapi_system
      using ((select agentapi_private.is_service()))', v_table);
  end loop;
end
$$;
-- A session never lands on another organisation's host.
create policy system_all on agentapi.user_sessions for all to agentapi_system
  using ((select agentapi_private.is_service()))
  with check ((select agentapi_private.is_service()) and (host_id is null or exists (
    select from agentapi.hosts as h where h.id = host_id and (h.org_id is null or h.org_id = user_sessions.org_id))));
create policy system_all on agentapi_private.audit_heads for all to agentapi_system using ((select agentapi_private.is_service()));
create policy system_all on agentapi_private.proofs for all to agentapi_system using ((select agentapi_private.is_service()));
-- Triggers record what others change, whoever that is, in the name of the role that logged in and of nobody else.
create policy system_insert on agentapi.audit_logs for insert to agentapi_system
  with check ((select agentapi_private.is_service()) or (actor_kind = 'database' and created_by = session_user));
create policy system_read on agentapi.audit_logs for select to agentapi_system using ((select agentapi_private.is_service()));
create policy system_insert on agentapi_private.audit_queue for insert to agentapi_system with check (true);
create policy system_take on agentapi_private.audit_queue for delete to agentapi_system using ((select agentapi_private.is_service()));
create policy system_read on agentapi_private.audit_queue for select to agentapi_system using ((select agentapi_private.is_service()));
