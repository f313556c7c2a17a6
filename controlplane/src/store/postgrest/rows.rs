//! How records become what the functions take, and rows become records.

use std::collections::BTreeMap;

use agentapi_shared::api::{Posture, SandboxPolicy, SandboxRequest, Visibility, Workspace};
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::link::HostFacts;
use agentapi_shared::{Exit, HostId, OrgId, SessionId, SpawnNumber, SpawnState, UserId, WindowSize};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::store::records::{
    Desired, HostRecord, IdempotencyKey, NewSession, Replay, SessionChange, SessionRecord, SpawnRecord, StopRequest,
};

/// A session with its spawns, whose order is asked for beside it. All columns: they are all for whoever sees the row, and PostgREST 12 takes
/// longer to read thirty names than to find the row.
pub(super) const SESSION_COLUMNS: &str = "*,spawns(*)";

/// A session as tables and functions give it.
#[derive(Debug, Deserialize)]
pub(super) struct SessionRow {
    pub(super) id: SessionId,
    pub(super) org_id: OrgId,
    created_by: UserId,
    visibility: Visibility,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    agent: String,
    command: Vec<String>,
    args: Vec<String>,
    run_command: Option<Vec<String>>,
    cols: u16,
    rows: u16,
    workspace: Workspace,
    sandbox: SandboxRequest,
    host_id: Option<HostId>,
    desired: DesiredWord,
    generation: u64,
    stop_grace_ms: u64,
    stop_force: bool,
    purging: bool,
    restarting: bool,
    revision: u64,
    pub(super) spawns: Vec<SpawnRow>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DesiredWord {
    Run,
    Stop,
}

#[derive(Debug, Deserialize)]
pub(super) struct SpawnRow {
    number: SpawnNumber,
    state: SpawnState,
    accepted: bool,
    has_env: bool,
    report_generation: u64,
    report_seq: u64,
    boot_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
    exit: Option<Exit>,
    posture: Option<Posture>,
    sandbox_policy: Option<Value>,
}

impl From<SessionRow> for SessionRecord {
    fn from(row: SessionRow) -> Self {
        let mut spawns: Vec<SpawnRecord> = row.spawns.into_iter().map(SpawnRecord::from).collect();
        // The newest come first, so that they are there if there were more than the server gives.
        spawns.sort_unstable_by_key(|spawn| spawn.number);
        Self {
            id: row.id,
            org: row.org_id,
            created_by: row.created_by,
            visibility: row.visibility,
            created_at: row.created_at,
            name: row.name,
            labels: row.labels,
            agent: row.agent,
            command: row.command,
            args: row.args,
            run_command: row.run_command,
            size: WindowSize::clamped(row.cols, row.rows),
            workspace: row.workspace,
            sandbox: row.sandbox,
            host: row.host_id,
            desired: match row.desired {
                DesiredWord::Run => Desired::Run,
                DesiredWord::Stop => Desired::Stop,
            },
            generation: row.generation,
            stop: StopRequest { grace_ms: row.stop_grace_ms, force: row.stop_force },
            purging: row.purging,
            restarting: row.restarting,
            revision: row.revision,
            spawns,
        }
    }
}

impl From<SpawnRow> for SpawnRecord {
    fn from(row: SpawnRow) -> Self {
        Self {
            number: row.number,
            state: row.state,
            accepted: row.accepted,
            has_env: row.has_env,
            report: (row.report_generation, row.report_seq),
            boot_id: row.boot_id,
            started: row.started_at,
            ended: row.ended_at,
            exit: row.exit,
            posture: row.posture,
            sandbox_policy: row.sandbox_policy.map(SandboxPolicy::from_stored).unwrap_or_default(),
        }
    }
}

/// A host, with how many spawns live on it.
#[derive(Debug, Deserialize)]
pub(super) struct HostRow {
    id: HostId,
    org_id: Option<OrgId>,
    name: Option<String>,
    version: Option<String>,
    facts: Option<HostFacts>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_seen_at: Option<OffsetDateTime>,
    sessions_running: u32,
}

impl HostRow {
    pub(super) const COLUMNS: &'static str = "*";

    pub(super) fn id(&self) -> HostId {
        self.id
    }

    pub(super) fn org(&self) -> Option<OrgId> {
        self.org_id
    }
}

impl From<HostRow> for HostRecord {
    fn from(row: HostRow) -> Self {
        Self {
            id: row.id,
            org: row.org_id,
            name: row.name,
            version: row.version,
            facts: row.facts,
            last_seen_at: row.last_seen_at,
            sessions_running: row.sessions_running,
        }
    }
}

/// What became of an idempotency key.
#[derive(Debug, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum ReplayRow {
    Fresh,
    Done { status: u16, body: String },
    InFlight,
    Mismatch,
}

impl From<ReplayRow> for Replay {
    fn from(row: ReplayRow) -> Self {
        match row {
            ReplayRow::Fresh => Self::Fresh,
            ReplayRow::Done { status, body } => Self::Done { status, body },
            ReplayRow::InFlight => Self::InFlight,
            ReplayRow::Mismatch => Self::Mismatch,
        }
    }
}

/// A time as text: microseconds, since the database would round what is finer.
pub(super) fn time(at: OffsetDateTime) -> Value {
    Value::String(time_text(at))
}

/// A session to be made.
pub(super) fn new_session(new: &NewSession) -> Value {
    json!({
        "id": new.id, "visibility": new.visibility, "created_at": time(new.at), "name": new.name, "labels": new.labels, "agent": new.agent,
        "command": new.command, "args": new.args, "cols": new.size.cols(), "rows": new.size.rows(),
        "workspace": new.workspace, "sandbox": new.sandbox, "has_env": new.has_env,
        "stop_grace_ms": agentapi_shared::api::STOP_GRACE_MS,
    })
}

/// A change of a session: what it does not name stays.
pub(super) fn change(change: &SessionChange) -> Value {
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| out.insert(name.to_owned(), value);
    if let Some(name) = &change.name {
        set("name", json!(name));
    }
    if let Some(labels) = &change.labels {
        set("labels", json!(labels));
    }
    if let Some(visibility) = change.visibility {
        set("visibility", json!(visibility));
    }
    if let Some(size) = change.size {
        set("cols", json!(size.cols()));
        set("rows", json!(size.rows()));
    }
    if let Some(host) = change.host {
        set("host_id", json!(host));
    }
    if let Some(command) = &change.run_command {
        set("run_command", json!(command));
    }
    if let Some(desired) = change.desired {
        set("desired", json!(if desired == Desired::Run { "run" } else { "stop" }));
    }
    if let Some(stop) = change.stop {
        set("stop_grace_ms", json!(stop.grace_ms));
        set("stop_force", json!(stop.force));
    }
    if let Some(purging) = change.purging {
        set("purging", json!(purging));
    }
    if let Some(restarting) = change.restarting {
        set("restarting", json!(restarting));
    }
    if let Some(spawned) = &change.spawn {
        set("spawn", spawn(spawned));
    }
    if let Some(spawned) = &change.new_spawn {
        set("new_spawn", json!({ "number": spawned.number }));
    }
    Value::Object(out)
}

fn spawn(spawn: &SpawnRecord) -> Value {
    json!({
        "number": spawn.number, "state": spawn.state, "accepted": spawn.accepted, "report_generation": spawn.report.0,
        "report_seq": spawn.report.1, "boot_id": spawn.boot_id, "started_at": spawn.started.map(time),
        "ended_at": spawn.ended.map(time), "exit": spawn.exit, "posture": spawn.posture,
    })
}

/// An idempotency key.
pub(super) fn key(key: &IdempotencyKey) -> Value {
    json!({ "route": key.route, "key": key.key, "request_hash": key.request_hash })
}
