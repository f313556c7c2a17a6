-- Which role has which capability. The same table as shared/policy/capabilities.toml, which the control plane reads; a test compares them.

create table agentapi_private.capabilities (
  role text not null,
  capability text not null,
  primary key (role, capability)
);

insert into agentapi_private.capabilities (role, capability)
select unnest(roles::text[]), capability
from (values
  ('session.create', '{owner,admin,member,service_account}'),
  ('session.view_own', '{owner,admin,member,viewer,auditor,service_account}'),
  ('session.view_shared', '{owner,admin,member,viewer,auditor,service_account}'),
  ('session.view_all', '{owner,admin,auditor}'),
  ('session.manage_own', '{owner,admin,member,service_account}'),
  ('session.manage_all', '{owner,admin}'),
  ('terminal.view', '{owner,admin,member,viewer,service_account}'),
  ('terminal.type', '{owner,admin,member,service_account}'),
  ('session.approve', '{owner,admin,member,service_account}'),
  ('session.files', '{owner,admin,member,service_account}'),
  ('session.shell', '{owner,admin,member,service_account}'),
  ('organization.view', '{owner,admin,member,viewer,auditor,service_account}'),
  ('organization.manage', '{owner,admin}'),
  ('member.view', '{owner,admin,member,viewer,auditor,service_account}'),
  ('member.manage', '{owner,admin}'),
  ('owner.grant', '{owner}'),
  ('api_key.create', '{owner,admin,member,service_account}'),
  ('api_key.manage', '{owner,admin}'),
  ('host.view', '{owner,admin,member,viewer,auditor,service_account}'),
  ('host.manage', '{owner,admin}'),
  ('mcp.view', '{owner,admin,member,viewer,auditor,service_account}'),
  ('mcp.manage', '{owner,admin}'),
  ('prompt.view', '{owner,admin,member,viewer,auditor,service_account}'),
  ('prompt.manage', '{owner,admin}'),
  ('audit.read', '{owner,admin,auditor}')
) as granted (capability, roles);
