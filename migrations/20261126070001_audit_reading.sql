-- Where the audit trail's chains end, for whoever signs it outside the database.

create function agentapi.job_audit_heads() returns table (org_id uuid, seq bigint, hash text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return query select h.org_id, h.seq, encode(h.hash, 'hex') from agentapi_private.audit_heads as h where h.seq > 0 order by h.org_id;
end
$$;
call agentapi_private.publish('agentapi.job_audit_heads', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126070001';
end
$$;
