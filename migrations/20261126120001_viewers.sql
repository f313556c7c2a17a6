-- Viewers: who looks at a terminal now, over all control planes, and how many of an organisation may.
--
-- Each is a lease, which the control plane that serves it renews: that of one which died is over by itself. Times are the database's own, so that
-- control planes whose clocks differ mean the same. A lease that is over stays for a day: it is good again once it is renewed, after an outage
-- say, and until then it tells when its session was last watched.

alter table agentapi.organizations add column viewers_max integer check (viewers_max >= 0); -- null: no limit

create table agentapi.viewers (
  id uuid primary key,
  org_id uuid not null references agentapi.organizations (id),
  created_by uuid not null references agentapi.users (id), -- who looks
  created_at timestamptz not null default now(),
  session_id uuid not null, -- no foreign key: a session that is purged waits for nobody's detaching
  leased_until timestamptz not null
);
-- None has the time in it: a renewal then touches no index.
create index viewers_by_org on agentapi.viewers (org_id);
create index viewers_by_session on agentapi.viewers (session_id);
create index viewers_created_by on agentapi.viewers (created_by);

alter table agentapi.viewers enable row level security;
alter table agentapi.viewers force row level security;
revoke all on agentapi.viewers from public, anon, authenticated, service_role;

grant select on agentapi.viewers to agentapi_policy;
create policy policy_read on agentapi.viewers for select to agentapi_policy using (true);
grant select, insert, delete on agentapi.viewers to agentapi_writer;
create policy writer_read on agentapi.viewers for select to agentapi_writer using (created_by = (select agentapi_private.caller()));
create policy writer_insert on agentapi.viewers for insert to agentapi_writer
  with check (created_by = (select agentapi_private.caller())
    and org_id = any ((select agentapi_private.orgs_with('terminal.view'))::uuid[]));
create policy writer_delete on agentapi.viewers for delete to agentapi_writer using (created_by = (select agentapi_private.caller()));
grant select, update, delete on agentapi.viewers to agentapi_system;
create policy system_all on agentapi.viewers for all to agentapi_system using ((select agentapi_private.is_service()));

-- Refuses a viewer that would be one too many. Exact: of an organisation with a limit they come one after the other. One that is there already
-- came twice, and does not stand in its own way.
create function agentapi_private.claim_viewer_quota(p_org uuid, p_viewer uuid) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max integer;
  v_found bigint;
begin
  select o.viewers_max into v_max from agentapi.organizations as o where o.id = p_org;
  if v_max is null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('agentapi.viewers:' || p_org, 0));
  select count(*) into v_found from (
    select from agentapi.viewers as v
    where v.org_id = p_org and v.id <> p_viewer and v.leased_until > now() limit v_max) as found;
  if v_found >= v_max then
    raise sqlstate 'PT429' using message = 'quota_viewers';
  end if;
end
$$;
call agentapi_private.publish('agentapi_private.claim_viewer_quota', 'agentapi_policy', 'agentapi_writer');

-- Enters a viewer of a session that the caller sees, with its record, before its terminal opens. It takes the place of `p_replaces`, a viewer of the
-- same caller that a broken connection left behind; gives whether that was there.
create function agentapi.attach_viewer(p_org uuid, p_viewer uuid, p_session uuid, p_lease_s integer, p_replaces uuid, p_audit jsonb)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'terminal.view');
  v_replaced boolean;
begin
  if not exists (select from agentapi.user_sessions as s where s.id = p_session and s.org_id = p_org) then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  delete from agentapi.viewers as v where v.id = p_replaces and v.org_id = p_org and v.created_by = v_caller and v.id <> p_viewer;
  v_replaced := found;
  perform agentapi_private.claim_viewer_quota(p_org, p_viewer);
  insert into agentapi.viewers (id, org_id, created_by, session_id, leased_until)
  values (p_viewer, p_org, v_caller, p_session, now() + make_interval(secs => p_lease_s))
  on conflict do nothing;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
  return v_replaced;
end
$$;
call agentapi_private.publish('agentapi.attach_viewer', 'agentapi_writer', 'authenticated');

-- Ends a viewer of the caller's, with its record. One that is gone leaves the record alone.
create function agentapi.detach_viewer(p_org uuid, p_viewer uuid, p_audit jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller uuid := agentapi_private.require(p_org, 'organization.view');
begin
  delete from agentapi.viewers as v where v.id = p_viewer and v.org_id = p_org and v.created_by = v_caller;
  perform agentapi_private.record(p_org, 'user', v_caller::text, p_audit);
end
$$;
call agentapi_private.publish('agentapi.detach_viewer', 'agentapi_writer', 'authenticated');

-- Renews leases; gives those that are there still. What is missing was replaced.
create function agentapi.job_renew_viewers(p_viewers uuid[], p_lease_s integer) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return query
    update agentapi.viewers as v set leased_until = now() + make_interval(secs => p_lease_s) where v.id = any (p_viewers) returning v.id;
end
$$;
call agentapi_private.publish('agentapi.job_renew_viewers', 'agentapi_system', 'service_role');

-- As before, and how many viewers.
drop function agentapi.job_set_quotas(uuid, integer, integer, jsonb);
create function agentapi.job_set_quotas(p_org uuid, p_sessions_max integer, p_sessions_per_day_max integer, p_audit jsonb,
  p_viewers_max integer default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  update agentapi.organizations as o
  set sessions_max = p_sessions_max, sessions_per_day_max = p_sessions_per_day_max, viewers_max = p_viewers_max where o.id = p_org;
  if not found then
    raise sqlstate 'PT404' using message = 'not_found';
  end if;
  perform agentapi_private.record_job(p_org, null, p_audit);
end
$$;
call agentapi_private.publish('agentapi.job_set_quotas', 'agentapi_system', 'service_role');

-- As before, and leases that nobody renewed for a day.
create or replace function agentapi.job_sweep(p_now timestamptz) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_total bigint := 0;
  v_count bigint;
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
  delete from agentapi.viewers as v where v.leased_until < p_now - interval '1 day';
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  delete from agentapi.host_enrolments as e where e.expires_at <= p_now;
  get diagnostics v_count = row_count;
  return v_total + v_count;
end
$$;

-- As before, and a session is not idle while anybody watches it, through whichever control plane.
create or replace function agentapi.job_expiry(p_now timestamptz) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform agentapi_private.require_service();
  return (
    with orgs as (
      select o.id, make_interval(secs => least(agentapi_private.number_setting(o.settings, 'session_idle_seconds_max'), 31622400)) as idle,
        make_interval(secs => least(agentapi_private.number_setting(o.settings, 'session_age_seconds_max'), 31622400)) as age,
        make_interval(days => least(agentapi_private.number_setting(o.settings, 'session_retention_days'), 3660)::integer) as kept
      from agentapi.organizations as o where o.settings <> '{}'),
    living as (
      select s.id, o.idle, o.age,
        (select p.created_at from agentapi.spawns as p where p.session_id = s.id order by p.number desc limit 1) as began,
        (select a.created_at from agentapi.audit_logs as a where a.session_id = s.id and a.actor_kind = 'user'
          order by a.id desc limit 1) as touched,
        (select max(v.leased_until) from agentapi.viewers as v where v.session_id = s.id) as watched
      from orgs as o join agentapi.user_sessions as s on s.org_id = o.id
      where (o.idle is not null or o.age is not null) and s.state not in ('exited', 'failed', 'lost') and s.desired = 'run'),
    ends as (
      select l.id, greatest(l.began, l.touched, l.watched) + l.idle as idle_end, l.began + l.age as age_end from living as l),
    -- Ids grow with time, so the oldest come first. The rest is due at the next look.
    old as (
      select s.id from orgs as o cross join lateral (
        select u.id from agentapi.user_sessions as u
        where u.org_id = o.id and u.created_at <= p_now - o.kept and u.state in ('exited', 'failed', 'lost') and not u.purging
          and (select coalesce(p.ended_at, p.created_at) from agentapi.spawns as p where p.session_id = u.id
            order by p.number desc limit 1) <= p_now - o.kept
        order by u.id limit 100) as s
      where o.kept is not null),
    due as (
      select e.id, case when e.idle_end <= coalesce(e.age_end, e.idle_end) then 'idle' else 'age' end as why
      from ends as e where least(e.idle_end, e.age_end) <= p_now
      union all select r.id, 'retention' from old as r)
    select jsonb_build_object(
      'due', (select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'why', d.why)), '[]') from due as d),
      'next', least(
        (select min(least(e.idle_end, e.age_end)) from ends as e where least(e.idle_end, e.age_end) > p_now),
        -- Whatever begins from here on is not due before.
        (select min(p_now + least(o.idle, o.age, least(o.kept, interval '1 hour'))) from orgs as o))));
end
$$;

create or replace function agentapi.job_schema_version() returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return '20261126120001';
end
$$;

notify pgrst, 'reload schema';
