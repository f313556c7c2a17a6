-- How a machine becomes a host of an organisation, how its credential is changed, and how it ends.

-- Stores a token that one machine may become a host with.
create function agentapi.create_host_enrolment(p_org uuid, p_hash text, p_name text, p_expires_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'host.manage');
begin
  insert into agentapi.host_enrolments (hash, org_id, created_by, name, expires_at)
  values (decode(p_hash, 'hex'), p_org, v_caller, p_name, p_expires_at);
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

-- Takes a token and makes a host of it, with the credential that it will show from now on. Gives its organisation; null if the token is
-- unknown, used or over. Of two machines that come with it at once, one is taken. The record is the database's own: whoever asks does not
-- know the organisation before.
create function agentapi.job_redeem_host_enrolment(p_hash text, p_host uuid, p_credential text, p_at timestamptz) returns uuid
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
  insert into agentapi.hosts (id, org_id, created_by, name) values (p_host, v_enrolment.org_id, v_enrolment.created_by, v_enrolment.name);
  insert into agentapi.host_credentials (hash, host_id, org_id, created_by, created_at)
  values (decode(p_credential, 'hex'), p_host, v_enrolment.org_id, v_enrolment.created_by, p_at);
  perform agentapi_private.record_fact(v_enrolment.org_id, 'system', 'enrolment', 'host.enrol', null, p_host,
    jsonb_build_object('by', v_enrolment.created_by));
  return v_enrolment.org_id;
end
$$;

-- Gives a host a new credential; those before end a while later, so that the host can change over.
create function agentapi.job_rotate_host_credential(p_host uuid, p_credential text, p_others_end_at timestamptz, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_org uuid;
begin
  perform agentapi_private.require_service();
  select h.org_id into v_org from agentapi.hosts as h where h.id = p_host and h.revoked_at is null;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  update agentapi.host_credentials as c set revoked_at = least(c.revoked_at, p_others_end_at) where c.host_id = p_host;
  insert into agentapi.host_credentials (hash, host_id, org_id) values (decode(p_credential, 'hex'), p_host, v_org);
  perform agentapi_private.record_job(coalesce(v_org, '00000000-0000-0000-0000-000000000000'), p_host, p_audit);
end
$$;

-- Ends a host of an organisation: its credentials are good no longer. Shared ones are the platform's.
create function agentapi.revoke_host(p_org uuid, p_host uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'host.manage');
begin
  update agentapi.hosts as h set revoked_at = now() where h.id = p_host and h.org_id = p_org and h.revoked_at is null;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;

call agentapi_private.publish('agentapi.create_host_enrolment', 'agentapi_writer', 'authenticated');
call agentapi_private.publish('agentapi.job_redeem_host_enrolment', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_rotate_host_credential', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.revoke_host', 'agentapi_writer', 'authenticated');
