-- A host whose answer to a rotation was lost keeps the credential that it has: those before end once the new one was used, and not by time.

alter table agentapi.host_credentials add column pending boolean not null default false;
grant delete on agentapi.host_credentials to agentapi_system;

-- Gives a host a new credential. Without a time those before are good until it is confirmed. Others that nobody confirmed within ten minutes
-- were lost on their way.
create or replace function agentapi.job_rotate_host_credential(p_host uuid, p_credential text, p_others_end_at timestamptz, p_audit jsonb)
returns void
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
  delete from agentapi.host_credentials as c where c.host_id = p_host and c.pending and c.created_at < now() - interval '10 minutes';
  if p_others_end_at is not null then
    update agentapi.host_credentials as c set revoked_at = least(c.revoked_at, p_others_end_at) where c.host_id = p_host;
  end if;
  insert into agentapi.host_credentials (hash, host_id, org_id, pending)
  values (decode(p_credential, 'hex'), p_host, v_org, p_others_end_at is null);
  perform agentapi_private.record_job(coalesce(v_org, '00000000-0000-0000-0000-000000000000'), p_host, p_audit);
end
$$;

-- A host used the credential that it was given: every other one of it ends at `p_others_end_at`. Said again it changes nothing.
create function agentapi.job_confirm_host_credential(p_credential text, p_others_end_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_host uuid;
begin
  perform agentapi_private.require_service();
  update agentapi.host_credentials as c set pending = false
  where c.hash = decode(p_credential, 'hex') and c.pending and (c.revoked_at is null or c.revoked_at > now()) returning c.host_id into v_host;
  if found then
    update agentapi.host_credentials as c set revoked_at = least(c.revoked_at, p_others_end_at)
    where c.host_id = v_host and c.hash <> decode(p_credential, 'hex');
  end if;
end
$$;
call agentapi_private.publish('agentapi.job_confirm_host_credential', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126130003';
end
$$;

notify pgrst, 'reload schema';
