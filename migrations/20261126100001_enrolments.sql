-- A token for a machine is good as long as whoever made it may still manage hosts.

grant select on agentapi_private.capabilities to agentapi_system;
create policy system_read on agentapi_private.capabilities for select to agentapi_system using (true);

create or replace function agentapi.job_redeem_host_enrolment(p_hash text, p_host uuid, p_credential text, p_at timestamptz) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_enrolment agentapi.host_enrolments;
begin
  perform agentapi_private.require_service();
  delete from agentapi.host_enrolments as e where e.hash = decode(p_hash, 'hex') returning * into v_enrolment;
  if not found or v_enrolment.expires_at <= p_at then
    return null;
  end if;
  perform from agentapi.memberships as m
    join agentapi.users as u on u.id = m.user_id and u.disabled_at is null
    join agentapi_private.capabilities as c on c.role = m.role and c.capability = 'host.manage'
    where m.org_id = v_enrolment.org_id and m.user_id = v_enrolment.created_by;
  if not found then
    return null;
  end if;
  insert into agentapi.hosts (id, org_id, created_by, name) values (p_host, v_enrolment.org_id, v_enrolment.created_by, v_enrolment.name);
  insert into agentapi.host_credentials (hash, host_id, org_id, created_by, created_at)
  values (decode(p_credential, 'hex'), p_host, v_enrolment.org_id, v_enrolment.created_by, p_at);
  perform agentapi_private.record_fact(v_enrolment.org_id, 'system', 'enrolment', 'host.enrol', null, p_host,
    jsonb_build_object('by', v_enrolment.created_by));
  return v_enrolment.org_id;
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126100001';
end
$$;

notify pgrst, 'reload schema';
