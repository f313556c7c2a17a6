-- Changes made around the functions are recorded, and audit records only ever added.
select w.table_name || ' has no trigger ' || w.trigger_name
from (
  select t.name, f.name from unnest(array['organizations', 'users', 'memberships', 'invitations', 'api_keys', 'hosts', 'host_credentials',
    'user_sessions', 'mcp_configs', 'system_prompts']) as t (name), unnest(array['foreign_change', 'foreign_truncate']) as f (name)
  union all
  select t.name, f.name from unnest(array['audit_logs', 'audit_seals']) as t (name), unnest(array['append_only', 'no_truncate']) as f (name)
) as w (table_name, trigger_name)
where not exists (select from pg_trigger g
  where g.tgrelid = ('agentapi.' || w.table_name)::regclass and g.tgname = w.trigger_name and g.tgenabled in ('O', 'A'));
-- caught:
drop trigger foreign_change on agentapi.memberships;
-- caught:
alter table agentapi.audit_logs disable trigger append_only;
