-- Whoever holds the link of an invitation is told where it leads before they accept it, and nobody else.

grant select on agentapi.invitations to agentapi_system;

-- What an invitation is to, by its token; null: there is none, or it is over, used or taken back.
create function agentapi.job_invitation(p_org uuid, p_token_hash text) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return (
    select jsonb_build_object('organization', o.name, 'role', i.role, 'expires_at', i.expires_at)
    from agentapi.invitations as i join agentapi.organizations as o on o.id = i.org_id
    where i.org_id = p_org and i.token_hash = decode(p_token_hash, 'hex')
      and i.accepted_at is null and i.revoked_at is null and i.expires_at > now());
end
$$;
call agentapi_private.publish('agentapi.job_invitation', 'agentapi_system', 'service_role');

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126190003';
end
$$;

notify pgrst, 'reload schema';
