//! What the control plane adds to a bare PostgREST: the same row read, and a row made, by turns through both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentapi_test_postgres::cluster::Cluster;
use agentapi_test_postgres::jwt;
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{Daemon, binary};
use agentapi_tests::project::{ORG, USER, project};
use anyhow::{Context as _, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Options;
use crate::processes::cpu_of;
use crate::stats::{Samples, Table};

/// By turns, so that what else the machine does falls on both.
const ROUNDS: usize = 5;
const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// A table like that of sessions, into which tenants may write by themselves.
const BARE_TABLE: &str = "
    create table agentapi.bare_sessions (like agentapi.user_sessions including defaults including indexes);
    alter table agentapi.bare_sessions enable row level security;
    create policy bare on agentapi.bare_sessions for insert to authenticated
      with check (created_by = (select agentapi_private.caller())
        and org_id = any ((select agentapi_private.orgs_with('session.create'))::uuid[]));
    grant insert on agentapi.bare_sessions to authenticated;
    create table agentapi.bare_logs (like agentapi.audit_logs including defaults including indexes);
    alter table agentapi.bare_logs enable row level security;
    create policy bare on agentapi.bare_logs for insert to authenticated
      with check (created_by = (select agentapi_private.caller())::text
        and org_id = any ((select agentapi_private.orgs_with('organization.view'))::uuid[]));
    grant insert on agentapi.bare_logs to authenticated;
    alter table agentapi.user_sessions disable trigger foreign_change;
    create function agentapi.bare_rows(p_session jsonb, p_record jsonb) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    declare
      v_org uuid := (p_session ->> 'org_id')::uuid;
      v_user uuid := (p_session ->> 'created_by')::uuid;
      v_at timestamptz := (p_session ->> 'created_at')::timestamptz;
      v_session uuid := (p_session ->> 'id')::uuid;
      v_record uuid := (p_record ->> 'id')::uuid;
    begin
      insert into agentapi.user_sessions (id, org_id, created_by, created_at, name, labels, agent, command, args, cols, rows, workspace, sandbox,
        desired, generation, stop_grace_ms, revision, state)
      values (v_session, v_org, v_user, v_at, p_session ->> 'name', p_session -> 'labels', p_session ->> 'agent', p_session -> 'command',
        p_session -> 'args', (p_session ->> 'cols')::integer, (p_session ->> 'rows')::integer, p_session -> 'workspace', p_session -> 'sandbox',
        'run', 1, 5000, 1, 'pending');
      insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state) values (v_session, 1, v_org, v_user, v_at, 'pending');
      insert into agentapi.audit_logs (id, org_id, created_by, actor_kind, created_at, action, channel, session_id, entry)
      values (v_record, v_org, v_user::text, 'user', v_at, 'session.create', 'api', v_session, p_record ->> 'entry');
      insert into agentapi.audit_personal (audit_id, org_id, created_by, data) values (v_record, v_org, v_user::text, '{\"ip\":\"127.0.0.1\"}');
    end
    $$;
    grant execute on function agentapi.bare_rows to authenticated;
    notify pgrst, 'reload schema';";

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bare,
    Ours,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Create,
    /// What a create writes, by a function that checks nothing: a session, its spawn, its record and whom that is about.
    Rows,
    /// A record of the audit trail, and as little else as a change is.
    Audit,
}

/// Both ends.
struct Ends {
    http: reqwest::Client,
    rest: String,
    jwt: String,
    ours: String,
    token: String,
    session: String,
}

impl Ends {
    fn request(&self, way: Way, work: Work) -> RequestBuilder {
        let (rest, ours) = (&self.rest, &self.ours);
        let request = match (way, work) {
            (Way::Bare, Work::Read) => {
                self.http.get(format!("{rest}/user_sessions?id=eq.{}&select=*,spawns(*)", self.session))
            }
            (Way::Ours, Work::Rows) => self
                .http
                .post(format!("{rest}/rpc/bare_rows"))
                .json(&json!({ "p_session": bare_session(), "p_record": bare_record() })),
            (Way::Bare, Work::Create | Work::Rows) => {
                self.http.post(format!("{rest}/bare_sessions")).json(&bare_session())
            }
            (Way::Bare, Work::Audit) => self.http.post(format!("{rest}/bare_logs")).json(&bare_record()),
            (Way::Ours, Work::Audit) => self.http.post(format!("{ours}/api/v1/login-codes")),
            (Way::Ours, Work::Read) => self.http.get(format!("{ours}/api/v1/sessions/{}", self.session)),
            (Way::Ours, Work::Create) => self
                .http
                .post(format!("{ours}/api/v1/sessions"))
                .json(&json!({ "agent": "custom", "command": ["true"], "name": "name" })),
        };
        request.bearer_auth(if way == Way::Bare || work == Work::Rows { &self.jwt } else { &self.token })
    }
}

fn bare_session() -> Value {
    json!({
        "id": Uuid::now_v7(), "org_id": ORG, "created_by": USER, "created_at": "2026-01-02T03:04:05.678901Z", "name": "name", "labels": {},
        "agent": "custom", "command": ["true"], "args": [], "cols": 120, "rows": 40, "workspace": {}, "sandbox": {}, "desired": "run",
        "generation": 1, "stop_grace_ms": 5000, "revision": 1, "state": "pending",
    })
}

fn bare_record() -> Value {
    json!({
        "id": Uuid::now_v7(), "org_id": ORG, "created_by": USER, "actor_kind": "user", "created_at": "2026-01-02T03:04:05.678901Z",
        "action": "login_code.create", "channel": "api", "entry": "x".repeat(512),
    })
}

/// Whoever works for a request: bare, and ours beside it. The kernel cuts names.
const STORE_PROCESSES: [&str; 2] = ["postgrest", "postgres"];
const PLANE_PROCESS: &str = "agentapi-contro";

/// Asks over so many connections for a while: times of each, and how many in a second.
async fn measure(
    ends: &Arc<Ends>,
    way: Way,
    work: Work,
    connections: usize,
    span: Duration,
) -> Result<(Samples, f64, f64)> {
    let cpu = || -> Result<Duration> { Ok(cpu_of(&STORE_PROCESSES)? + cpu_of(&[PLANE_PROCESS])?) };
    let cpu_before = cpu()?;
    let (until, mut workers) = (Instant::now() + span, JoinSet::new());
    for _ in 0..connections {
        let ends = ends.clone();
        workers.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let before = Instant::now();
                let answer = ends.request(way, work).send().await?;
                let status = answer.status();
                let body = answer.bytes().await?;
                ensure!(status.is_success(), "{way:?} {work:?}: {status} {}", String::from_utf8_lossy(&body));
                times.push(before.elapsed());
            }
            Ok(times)
        });
    }
    let mut samples = Samples::default();
    while let Some(times) = workers.join_next().await {
        times??.into_iter().for_each(|time| samples.push_us(time));
    }
    let rate = samples.len() as f64 / span.as_secs_f64();
    let cpu_us = (cpu()?.saturating_sub(cpu_before)).as_secs_f64() * 1e6 / samples.len().max(1) as f64;
    Ok((samples, rate, cpu_us))
}

async fn start(cluster: &Cluster, dir: &TempDir) -> Result<(Daemon, Ends)> {
    let project = project(cluster).await?;
    cluster.sql(BARE_TABLE).await?;
    // No host: sessions are made and wait, and nothing but the store is at work.
    let mut command = std::process::Command::new(binary("agentapi-controlplane"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("controlplane"));
    command.envs(project.environment.iter().map(|(name, value)| (*name, value.as_str())));
    let mut plane = Daemon::start(command, &dir.path().join("controlplane.log"))?;
    let ready: Value = serde_json::from_str(&plane.line().await?)?;
    let ours = ready["ready"].as_str().context("a URL")?.to_owned();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CONNECTIONS[2]).build()?;
    let jwt = jwt::signed(&jwt::claims(USER.parse()?), jwt::SECRET);
    let ends = Ends { http, rest: cluster.url.clone(), jwt, ours, token: project.token, session: String::new() };
    let made: Value = ends.request(Way::Ours, Work::Create).send().await?.error_for_status()?.json().await?;
    let session = made["id"].as_str().context("an id")?.to_owned();
    agentapi_tests::wait::eventually("the bare table is there", async || {
        ends.request(Way::Bare, Work::Create).send().await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    Ok((plane, Ends { session, ..ends }))
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let (cluster, dir) = (Cluster::own().await?, TempDir::new());
    let (_plane, ends) = start(&cluster, &dir).await?;
    let ends = Arc::new(ends);
    let span = Duration::from_millis(options.count(3000, 200) as u64);
    let mut table = Table::new(
        "Store: the control plane over a bare PostgREST",
        &[
            "work",
            "connections",
            "bare p50 us",
            "ours p50 us",
            "ratio",
            "bare /s",
            "ours /s",
            "part",
            "bare CPU us",
            "ours CPU us",
        ],
    );
    for work in [Work::Read, Work::Create, Work::Rows, Work::Audit] {
        for connections in CONNECTIONS {
            let [mut p50s, mut rates, mut cpus] = <[[Samples; 2]; 3]>::default();
            for _ in 0..options.count(ROUNDS, 1) {
                for (index, way) in [Way::Bare, Way::Ours].into_iter().enumerate() {
                    let (times, rate, cpu) = measure(&ends, way, work, connections, span).await?;
                    p50s[index].push(times.median());
                    rates[index].push(rate);
                    cpus[index].push(cpu);
                }
            }
            let [bare, ours] = [p50s[0].median(), p50s[1].median()];
            let [bare_rate, our_rate] = [rates[0].median(), rates[1].median()];
            table.row(&[
                format!("{work:?}").to_lowercase(),
                connections.to_string(),
                format!("{bare:.0}"),
                format!("{ours:.0}"),
                format!("{:.2}", ours / bare),
                format!("{bare_rate:.0}"),
                format!("{our_rate:.0}"),
                format!("{:.0} %", our_rate / bare_rate * 100.0),
                format!("{:.0}", cpus[0].median()),
                format!("{:.0}", cpus[1].median()),
            ]);
        }
    }
    table.note(
        "Medians of rounds by turns. Read: one session with its spawns, with the owner's token. Create: bare, an insert under row level security of \
         the same columns; ours, the function with proof, capability, quota, spawn and audit record. Rows: in place of ours what that writes, at PostgREST, by a function that checks nothing. Audit: bare, an insert of a record's columns; ours, a login code with \
         its record. CPU for a request: of PostgREST and Postgres, ours with the control plane, by the kernel's count of the whole machine. Bars: read p50 at most 1.4 at one connection, \
         at least 80 % at 16; create at least 55 % at 16.",
    );
    table.print();
    Ok(())
}
