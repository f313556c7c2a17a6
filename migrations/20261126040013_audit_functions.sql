-- Changes made around the functions are recorded by trigger; a job chains the records; a person is erased.

-- One record for each row that somebody changed by hand, in Studio or with SQL: which table, row and columns, and who; no values. Functions
-- of the two writing roles write records of their own and do not come here.
create function agentapi_private.record_foreign_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old jsonb := case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end;
  v_new jsonb := case when tg_op in ('INSERT', 'UPDATE') then to_jsonb(new) end;
  v_row jsonb := coalesce(v_new, v_old, '{}');
begin
  perform agentapi_private.record_fact(
    coalesce(v_row ->> 'org_id', case when tg_table_name = 'organizations' then v_row ->> 'id' end,
      '00000000-0000-0000-0000-000000000000')::uuid,
    'database', session_user, 'database.' || lower(tg_op),
    case when tg_table_name = 'user_sessions' then (v_row ->> 'id')::uuid end,
    case when tg_table_name = 'hosts' then (v_row ->> 'id')::uuid end,
    jsonb_build_object('table', tg_table_name,
      'row', coalesce(v_row ->> 'id', concat_ws('/', v_row ->> 'org_id', v_row ->> 'user_id', v_row ->> 'host_id')),
      'columns', (select coalesce(jsonb_agg(c.key order by c.key), '[]') from jsonb_each(v_new) as c
        where v_old is not null and v_old -> c.key is distinct from c.value)));
  return null;
end
$$;
call agentapi_private.publish('agentapi_private.record_foreign_change', 'agentapi_system', 'agentapi_system');

do $$
declare
  v_table text;
begin
  foreach v_table in array array['organizations', 'users', 'memberships', 'invitations', 'api_keys', 'hosts', 'host_credentials',
    'user_sessions', 'mcp_configs', 'system_prompts'] loop
    execute pg_catalog.format('create trigger foreign_change after insert or update or delete on agentapi.%I for each row
      when (current_user not in (''agentapi_writer'', ''agentapi_system'')) execute function agentapi_private.record_foreign_change()', v_table);
    execute pg_catalog.format('create trigger foreign_truncate after truncate on agentapi.%I for each statement
      execute function agentapi_private.record_foreign_change()', v_table);
  end loop;
end
$$;

-- Chains at most `p_max` records, in the order in which they came; gives how many. One sealer at a time: another one finds nothing to do.
create function agentapi.job_seal_audit(p_max integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_record record;
  v_org uuid;
  v_seq bigint;
  v_hash bytea;
  v_orgs uuid[] := '{}';
  v_ids uuid[] := '{}';
  v_seqs bigint[] := '{}';
  v_hashes bytea[] := '{}';
begin
  perform agentapi_private.require_service();
  if not pg_try_advisory_xact_lock(hashtextextended('agentapi.sealer', 0)) then
    return 0;
  end if;
  for v_record in
    with taken as (
      delete from agentapi_private.audit_queue as q
      where q.n in (select n from agentapi_private.audit_queue order by n limit p_max) returning q.n, q.audit_id)
    select a.id, a.org_id, sha256(convert_to(a.entry, 'UTF8')) as entry_hash
    from taken join agentapi.audit_logs as a on a.id = taken.audit_id
    order by a.org_id, taken.n
  loop
    if v_org is distinct from v_record.org_id then
      if v_org is not null then
        update agentapi_private.audit_heads as h set seq = v_seq, hash = v_hash where h.org_id = v_org;
      end if;
      v_org := v_record.org_id;
      insert into agentapi_private.audit_heads (org_id, seq, hash) values (v_org, 0, decode(repeat('00', 32), 'hex')) on conflict do nothing;
      select h.seq, h.hash into v_seq, v_hash from agentapi_private.audit_heads as h where h.org_id = v_org;
    end if;
    v_seq := v_seq + 1;
    v_hash := sha256(v_hash || int8send(v_seq) || uuid_send(v_org) || uuid_send(v_record.id) || v_record.entry_hash);
    v_orgs := array_append(v_orgs, v_org);
    v_ids := array_append(v_ids, v_record.id);
    v_seqs := array_append(v_seqs, v_seq);
    v_hashes := array_append(v_hashes, v_hash);
  end loop;
  if v_org is null then
    return 0;
  end if;
  update agentapi_private.audit_heads as h set seq = v_seq, hash = v_hash where h.org_id = v_org;
  insert into agentapi.audit_seals (org_id, seq, audit_id, hash)
  select * from unnest(v_orgs, v_seqs, v_ids, v_hashes);
  return cardinality(v_ids);
end
$$;

-- Removes what is personal of a user, here and beside the audit trail, whose hashes stay as they are. Gives how many records were concerned.
create function agentapi.job_erase_person(p_user uuid, p_audit jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
begin
  perform agentapi_private.require_service();
  update agentapi.users as u set name = null, email = null, email_verified = false, subject = 'erased:' || u.id,
    disabled_at = coalesce(u.disabled_at, now()) where u.id = p_user;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  delete from agentapi.audit_personal as p where p.created_by = p_user::text;
  get diagnostics v_count = row_count;
  perform agentapi_private.record_job('00000000-0000-0000-0000-000000000000', null, p_audit);
  return v_count;
end
$$;

call agentapi_private.publish('agentapi.job_seal_audit', 'agentapi_system', 'service_role');
call agentapi_private.publish('agentapi.job_erase_person', 'agentapi_system', 'service_role');
