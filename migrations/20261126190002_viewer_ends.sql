-- An attachment has an end in the audit trail, also where nobody told it: its control plane died, or its answer was lost.

-- As before, and with a lease that nobody renewed for a day goes a record of the end of its viewer.
create or replace function agentapi.job_sweep(p_now timestamptz) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_total bigint := 0;
  v_count bigint;
  v_viewer record;
begin
  perform agentapi_private.require_service();
  delete from agentapi.logins as l where l.expires_at <= p_now;
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.login_codes as c where c.expires_at <= p_now;
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.idempotency_keys as k where k.created_at < p_now - interval '1 day';
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  for v_viewer in
    delete from agentapi.viewers as v where v.leased_until < p_now - interval '1 day' returning v.id, v.org_id, v.session_id
  loop
    perform agentapi_private.record_fact(v_viewer.org_id, 'system', 'leases', 'terminal.detach', v_viewer.session_id, null,
      jsonb_build_object('connection', v_viewer.id, 'reason', 'lease over'));
    v_total := v_total + 1;
  end loop;
  delete from agentapi.host_enrolments as e where e.expires_at <= p_now;
  get diagnostics v_count = row_count;
  return v_total + v_count;
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126190002';
end
$$;

notify pgrst, 'reload schema';
