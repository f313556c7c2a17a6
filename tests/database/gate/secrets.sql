-- No tenant and no service role reads a hash of a secret, nor the tables that are nothing but credentials.
select t.attrelid::regclass || '.' || t.attname || ' is read by ' || r.rolname
from pg_attribute t join pg_class c on c.oid = t.attrelid and c.relnamespace = 'agentapi'::regnamespace and c.relkind = 'r'
cross join (values ('authenticated'), ('service_role')) as r (rolname)
where t.attnum > 0 and not t.attisdropped and has_column_privilege(r.rolname, t.attrelid, t.attnum, 'select')
  and ((t.attname in ('hash', 'token_hash', 'refresh_ciphertext') and c.relname <> 'audit_seals')
    or c.relname in ('login_codes', 'logins', 'host_credentials', 'host_enrolments', 'idempotency_keys'));
-- caught:
grant select on agentapi.api_keys to authenticated;
-- caught:
grant select (token_hash) on agentapi.invitations to service_role;
-- caught:
grant select (expires_at) on agentapi.logins to authenticated;
