//! The rules of a session's life, as pure functions from a record to the change that follows. Nothing here waits or writes.

use agentapi_shared::api::{CUSTOM_AGENT, SandboxPolicy, Session, Spawn};
use agentapi_shared::link::{Command, SpawnReport, StartSpawn};
use agentapi_shared::state::SpawnEvent;
use agentapi_shared::{Exit, ExitReason, HostId, SpawnState};
use time::OffsetDateTime;

use crate::store::records::{Desired, SessionChange, SessionRecord, SpawnRecord, StopRequest};

/// Spawns that one session may have: bounds its record, far above what a person restarts.
pub const SPAWNS_MAX: usize = 1000;

/// How an agent's manifest says it is run.
pub type ManifestCommand<'a> = Option<&'a [String]>;

/// A session as callers see it.
#[must_use]
pub fn present(record: &SessionRecord, reachable: bool, manifest: ManifestCommand<'_>) -> Session {
    let newest = record.newest();
    let state = record.state();
    let unreachable = record.host.is_some() && !reachable && !state.is_ended();
    let state_reason = match newest.and_then(|spawn| spawn.exit.as_ref()) {
        Some(exit) if !exit.detail.is_empty() => Some(exit.detail.clone()),
        _ if unreachable => Some("its host is not connected: this is the last known state".to_owned()),
        _ if record.host.is_none() && state == SpawnState::Pending => Some("waiting for a host to connect".to_owned()),
        _ => None,
    };
    Session {
        id: record.id,
        revision: record.revision,
        name: record.name.clone(),
        labels: record.labels.clone(),
        agent: record.agent.clone(),
        command: shown_command(record, manifest),
        state,
        state_reason,
        agent_status: None,
        unreachable,
        size: record.size,
        workspace: record.workspace.clone(),
        sandbox: newest.and_then(|spawn| spawn.posture.clone()),
        host_id: record.host,
        spawns: record.spawns.iter().map(present_spawn).collect(),
        created_by: record.created_by,
        visibility: record.visibility,
        created_at: record.created_at,
        exit: newest.and_then(|spawn| spawn.exit.clone()),
    }
}

fn shown_command(record: &SessionRecord, manifest: ManifestCommand<'_>) -> Vec<String> {
    if let Some(run) = &record.run_command {
        run.clone()
    } else if record.agent == CUSTOM_AGENT {
        record.command.clone()
    } else {
        manifest.unwrap_or_default().iter().chain(&record.args).cloned().collect()
    }
}

fn present_spawn(spawn: &SpawnRecord) -> Spawn {
    Spawn {
        number: spawn.number,
        state: spawn.state,
        started: spawn.started,
        ended: spawn.ended,
        exit: spawn.exit.clone(),
    }
}

/// A stop. None if everything is as wanted already.
#[must_use]
pub fn stop(record: &SessionRecord, stop: StopRequest, purge: bool, at: OffsetDateTime) -> Option<SessionChange> {
    let spawn = record.newest()?;
    let mut change = SessionChange { purging: (purge && !record.purging).then_some(true), ..SessionChange::default() };
    change.restarting = record.restarting.then_some(false);
    if !spawn.state.is_ended() {
        // A second stop may be harder than the first; it is a change of mind only if it says something new.
        if record.desired == Desired::Run || stop != record.stop {
            change.desired = Some(Desired::Stop);
            change.stop = Some(stop);
        }
        change.spawn = if record.host.is_none() {
            Some(ended(spawn, stopped_before_start(), at))
        } else {
            spawn.state.apply(SpawnEvent::StopRequested).ok().map(|state| SpawnRecord { state, ..spawn.clone() })
        };
        if change.spawn.as_ref() == Some(spawn) {
            change.spawn = None;
        }
    }
    (change != SessionChange::default()).then_some(change)
}

/// A new spawn in place of one that is over; none if one lives.
#[must_use]
pub fn next_spawn(record: &SessionRecord) -> Option<SessionChange> {
    let spawn = record.newest()?;
    (spawn.state.is_ended() && record.spawns.len() < SPAWNS_MAX).then(|| SessionChange {
        desired: Some(Desired::Run),
        restarting: Some(false),
        new_spawn: Some(fresh(spawn.number + 1)),
        ..SessionChange::default()
    })
}

fn fresh(number: u32) -> SpawnRecord {
    SpawnRecord {
        number,
        state: SpawnState::Pending,
        accepted: false,
        has_env: false,
        report: (0, 0),
        boot_id: None,
        started: None,
        ended: None,
        exit: None,
        posture: None,
        sandbox_policy: SandboxPolicy::default(),
    }
}

/// A session that no host has yet is given to this one.
#[must_use]
pub fn place(record: &SessionRecord, host: HostId) -> Option<SessionChange> {
    let waits = record.host.is_none() && record.desired == Desired::Run && record.state() == SpawnState::Pending;
    waits.then(|| SessionChange { host: Some(host), ..SessionChange::default() })
}

/// A host accepted a start.
#[must_use]
pub fn accepted(record: &SessionRecord, number: u32, boot_id: &str) -> Option<SessionChange> {
    let spawn = living(record, number)?;
    let state = spawn.state.apply(SpawnEvent::Accepted).ok()?;
    let changed = SpawnRecord { state, accepted: true, boot_id: Some(boot_id.to_owned()), ..spawn.clone() };
    (changed != *spawn).then(|| SessionChange { spawn: Some(changed), ..SessionChange::default() })
}

/// What a host reports. None if it is older than what is known, or says nothing new.
#[must_use]
pub fn report(record: &SessionRecord, report: &SpawnReport, boot_id: &str) -> Option<SessionChange> {
    let spawn = living(record, report.spawn)?;
    if (report.generation, report.seq) == spawn.report {
        return posture(spawn, report);
    }
    if (report.generation, report.seq) < spawn.report {
        return None;
    }
    let event = match report.state {
        SpawnState::Pending | SpawnState::Starting => SpawnEvent::Accepted,
        SpawnState::Running => SpawnEvent::Executed,
        SpawnState::Stopping => SpawnEvent::StopRequested,
        SpawnState::Exited => SpawnEvent::Ended,
        SpawnState::Failed => SpawnEvent::Broke,
        // Only an operator says that a host is gone for good.
        SpawnState::Lost => return None,
    };
    let state = spawn.state.apply(event).ok()?;
    let mut changed = SpawnRecord {
        state,
        accepted: true,
        boot_id: Some(boot_id.to_owned()),
        report: (report.generation, report.seq),
        started: report.started_at.or(spawn.started),
        posture: report.posture.as_deref().or(spawn.posture.as_ref()).cloned(),
        ..spawn.clone()
    };
    if state.is_ended() {
        changed.ended = report.ended_at.or(report.started_at);
        changed.exit =
            Some(report.exit.clone().unwrap_or_else(|| exit(ExitReason::ShimLost, "its host knows no more")));
    }
    let command = (!report.command.is_empty()).then(|| report.command.clone());
    let change = SessionChange {
        run_command: command.filter(|command| Some(command) != record.run_command.as_ref()),
        size: (report.size != record.size && !state.is_ended()).then_some(report.size),
        spawn: Some(changed),
        ..SessionChange::default()
    };
    Some(follow(record, change))
}

/// What is reported again may be isolated otherwise: a host that was restarted goes by its settings of today.
fn posture(spawn: &SpawnRecord, report: &SpawnReport) -> Option<SessionChange> {
    let posture = report.posture.as_deref().filter(|posture| Some(*posture) != spawn.posture.as_ref())?;
    let changed = SpawnRecord { posture: Some(posture.clone()), ..spawn.clone() };
    Some(SessionChange { spawn: Some(changed), ..SessionChange::default() })
}

/// A spawn ends for a reason that its host did not report.
#[must_use]
pub fn fail(record: &SessionRecord, number: u32, exit: Exit, at: OffsetDateTime) -> Option<SessionChange> {
    let spawn = living(record, number)?;
    let change = SessionChange { spawn: Some(ended(spawn, exit, at)), ..SessionChange::default() };
    Some(follow(record, change))
}

/// If the change ends the newest spawn of a session that is to be started again, the next one is part of the same change.
fn follow(record: &SessionRecord, mut change: SessionChange) -> SessionChange {
    let over = change.spawn.as_ref().is_some_and(|spawn| spawn.state.is_ended() && spawn.number == record.spawn());
    if over && record.restarting && !record.purging {
        change.desired = Some(Desired::Run);
        change.restarting = Some(false);
        change.new_spawn = Some(fresh(record.spawn() + 1));
    }
    change
}

fn living(record: &SessionRecord, number: u32) -> Option<&SpawnRecord> {
    record.spawns.iter().find(|spawn| spawn.number == number && !spawn.state.is_ended())
}

fn ended(spawn: &SpawnRecord, exit: Exit, at: OffsetDateTime) -> SpawnRecord {
    let state = if exit.reason.is_exit() { SpawnState::Exited } else { SpawnState::Failed };
    SpawnRecord { state, ended: Some(at), exit: Some(exit), ..spawn.clone() }
}

/// An end that happened without a program.
#[must_use]
pub fn exit(reason: ExitReason, detail: impl Into<String>) -> Exit {
    Exit { code: None, signal: None, reason, detail: detail.into() }
}

fn stopped_before_start() -> Exit {
    exit(ExitReason::Stopped, "stopped before it was started")
}

/// What a connected host has to be told, or what has to be stored, so that a session becomes what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// Nothing.
    Settled,
    /// Start its newest spawn.
    Start,
    /// Stop its newest spawn.
    Stop,
    /// It is over, although its host never said so.
    Fail(Exit),
    /// Remove it from the host, and then the record.
    Purge,
}

/// Compares a session with what its host just said it has. `reported`: the host's entry for the newest spawn, already taken into the record.
#[must_use]
pub fn settle(record: &SessionRecord, reported: Option<&SpawnReport>, boot_id: &str) -> Settlement {
    let Some(spawn) = record.newest() else { return Settlement::Settled };
    if spawn.state.is_ended() {
        return if record.purging { Settlement::Purge } else { Settlement::Settled };
    }
    match (reported, record.desired) {
        (Some(_), Desired::Run) => Settlement::Settled,
        (Some(_), Desired::Stop) => Settlement::Stop,
        (None, Desired::Run) if !spawn.accepted => Settlement::Start,
        (None, Desired::Stop) if !spawn.accepted => Settlement::Fail(stopped_before_start()),
        (None, _) if spawn.boot_id.as_deref().is_some_and(|known| known != boot_id) => {
            Settlement::Fail(exit(ExitReason::HostRebooted, "its host was rebooted"))
        }
        (None, _) => {
            Settlement::Fail(exit(ExitReason::ShimLost, "its host no longer has it: the process that held it is gone"))
        }
    }
}

/// The command that starts the newest spawn.
#[must_use]
pub fn start_command(record: &SessionRecord, env: Option<std::collections::BTreeMap<String, String>>) -> Command {
    Command::Start(StartSpawn {
        spawn: record.spawn(),
        generation: record.generation,
        agent: record.agent.clone(),
        command: record.command.clone(),
        args: record.args.clone(),
        env,
        size: record.size,
        workspace: record.workspace.clone(),
        sandbox: record.sandbox.clone(),
        policy: record.newest().map(|spawn| spawn.sandbox_policy.clone()).unwrap_or_default(),
    })
}

/// The command that stops the newest spawn.
#[must_use]
pub fn stop_command(record: &SessionRecord) -> Command {
    Command::Stop {
        spawn: record.spawn(),
        generation: record.generation,
        grace_ms: record.stop.grace_ms,
        force: record.stop.force,
    }
}
