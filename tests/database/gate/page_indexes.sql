-- Each list that has pages, and each question of a job, has its index.
select w.table_name || ' (' || w.columns || ')' from (values
  ('user_sessions', 'org_id, id', null), ('user_sessions', 'org_id, created_by, id', null),
  ('user_sessions', 'org_id, id', 'organization'), ('user_sessions', 'host_id, id', 'purging'), ('user_sessions', 'org_id', 'exited'),
  ('egress_decisions', 'session_id, id', null), ('egress_decisions', 'session_id, verdict, id', null),
  ('audit_logs', 'org_id, id', null), ('audit_logs', 'org_id, recorded_at', 'session.create'), ('audit_seals', 'org_id, seq', null),
  ('hosts', 'org_id, id', null), ('invitations', 'org_id, id', null), ('api_keys', 'org_id, id', null),
  ('memberships', 'user_id, org_id', null), ('memberships', 'org_id, user_id', null)) as w (table_name, columns, predicate)
where not exists (
  select from pg_index i
  where i.indrelid = ('agentapi.' || w.table_name)::regclass and i.indisvalid
    and (select string_agg(a.attname, ', ' order by k.n)
      from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) with ordinality as k (attnum, n)
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum) = w.columns
    and case when w.predicate is null then i.indpred is null else pg_get_expr(i.indpred, i.indrelid) ~ w.predicate end);
-- caught:
drop index agentapi.user_sessions_by_org;
-- caught:
drop index agentapi.user_sessions_living;
