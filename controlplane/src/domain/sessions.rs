//! What callers do with sessions. Each change is computed by `rules` from a record and written only if the record is still the same.

use agentapi_shared::api::{
    CreateSession, InputWritten, RestartSession, SandboxRequest, ScreenFormat, ScreenResponse, Session, UpdateSession,
};
use agentapi_shared::egress::EgressDecision;
use agentapi_shared::link::{Command, CommandResult};
use agentapi_shared::{EventId, SessionId, SpawnState, WindowSize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::sync::{Mutex, PoisonError};

use super::policy::{self, Action, Principal};
use super::{DomainError, audit, change, rules, validate};
use crate::clock;
use crate::plane::Plane;
use crate::store::records::{
    EgressFilter, IdempotencyKey, NewSession, SessionChange, SessionFacts, SessionFilter, SessionRecord, StopRequest,
};
use crate::store::{Created, Scope};

/// What came of a create.
#[derive(Debug)]
pub enum CreateOutcome {
    /// The session.
    Made(Box<SessionRecord>),
    /// The answer given before.
    Replayed {
        /// HTTP status of that time.
        status: u16,
        /// JSON of that time.
        body: String,
    },
}

/// Makes a session and has it started.
pub async fn create(
    plane: &Plane,
    principal: &Principal,
    request: CreateSession,
    key: Option<IdempotencyKey>,
) -> Result<CreateOutcome, DomainError> {
    policy::check(principal, Action::SessionCreate)?;
    let names: Vec<&str> = plane.agents.iter().map(|agent| agent.name.as_str()).collect();
    validate::create(&request, &names)?;
    if let Some(path) = request.workspace.as_ref().and_then(|workspace| workspace.path.as_deref()) {
        offered_by_a_host(plane, principal, path).await?;
    }
    let id = SessionId::generate();
    let has_env = !request.env.is_empty();
    let new = NewSession {
        id,
        at: clock::now(),
        name: request.name,
        labels: request.labels,
        agent: request.agent,
        command: request.command,
        args: request.args,
        size: request.size.unwrap_or_default(),
        workspace: request.workspace.unwrap_or_default(),
        sandbox: request.sandbox.unwrap_or_default(),
        has_env,
        visibility: request.visibility.unwrap_or_default(),
    };
    // Kept before the row is written: whoever sees the row finds the environment.
    plane.fleet.keep_environment(id, request.env)?;
    let entry = audit::of_session(principal, "session.create", id, json!({ "agent": new.agent }));
    let sandbox = new.sandbox.clone();
    let created = plane.store.create_session(principal.tenant(), new, key, entry).await;
    match created {
        Ok(Created::New(record)) => {
            plane.publish(&record);
            plane.fleet.settle_soon(&record);
            Ok(CreateOutcome::Made(record))
        }
        Ok(Created::Seen(replay)) => {
            plane.fleet.drop_environment(id);
            replayed(replay).map(|(status, body)| CreateOutcome::Replayed { status, body })
        }
        Err(error) => {
            plane.fleet.drop_environment(id);
            Err(explained(plane, principal, &sandbox, error.into()).await)
        }
    }
}

/// What of a sandbox an organisation does not allow, by its field: the store only says that it does not.
async fn explained(plane: &Plane, principal: &Principal, sandbox: &SandboxRequest, error: DomainError) -> DomainError {
    let DomainError::Invalid(faults) = &error else { return error };
    if faults.iter().all(|fault| fault.field != "sandbox") {
        return error;
    }
    let found = plane.store.organizations(principal.tenant()).await.unwrap_or_default();
    let own = found.into_iter().find(|(record, _)| record.id == principal.holder.org);
    let fault = own.and_then(|(record, _)| record.settings.sandbox).and_then(|policy| policy.fault(sandbox));
    fault.map_or(error, |fault| validate::fault(&fault.field, fault.reason))
}

/// Whether some host offers a directory. Only the host can see where links lead; it refuses what leaves its roots.
async fn offered_by_a_host(plane: &Plane, principal: &Principal, path: &str) -> Result<(), DomainError> {
    let hosts = plane.store.hosts(principal.tenant()).await?;
    let roots: Vec<&String> =
        hosts.iter().filter_map(|host| host.facts.as_ref()).flat_map(|facts| &facts.workspace_roots).collect();
    let unknown = hosts.iter().all(|host| host.facts.is_none());
    if unknown || roots.iter().any(|root| std::path::Path::new(path).starts_with(root)) {
        return Ok(());
    }
    let offered = roots.iter().map(|root| root.as_str()).collect::<Vec<_>>().join(", ");
    Err(validate::fault(
        "workspace.path",
        format!("below no host's workspace roots ({offered}); a host offers a directory with --workspace-root"),
    ))
}

/// The answer of a request that was done before; any other past of the key is an error.
pub fn replayed(replay: crate::store::records::Replay) -> Result<(u16, String), DomainError> {
    match replay {
        crate::store::records::Replay::Done { status, body } => Ok((status, body)),
        other => Err(DomainError::Idempotency(other)),
    }
}

/// One session, to look at its record.
pub async fn get(plane: &Plane, principal: &Principal, id: SessionId) -> Result<SessionRecord, DomainError> {
    get_for(plane, principal, Action::SessionView, id).await
}

/// One session, if this may be done with it.
pub async fn get_for(
    plane: &Plane,
    principal: &Principal,
    action: Action,
    id: SessionId,
) -> Result<SessionRecord, DomainError> {
    let record = plane.store.session(Scope::Tenant(principal.tenant()), id).await.map_err(DomainError::of_session)?;
    policy::check_session(principal, action, &record)?;
    Ok(record)
}

/// A page of sessions, and where the next begins.
pub async fn list(
    plane: &Plane,
    principal: &Principal,
    mut filter: SessionFilter,
) -> Result<(Vec<Session>, Option<SessionId>), DomainError> {
    policy::check(principal, Action::SessionList)?;
    let limit = filter.limit as usize;
    // One more than asked for tells whether there is a next page.
    filter.limit += 1;
    let mut records = plane.store.sessions(principal.tenant(), filter).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = if more { records.last().map(|record| record.id) } else { None };
    Ok((records.iter().map(|record| plane.present(record)).collect(), next))
}

/// A page of what a session's egress gateway decided, and where the next begins.
pub async fn egress(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    mut filter: EgressFilter,
) -> Result<(Vec<EgressDecision>, Option<EventId>), DomainError> {
    get(plane, principal, id).await?;
    let limit = filter.limit as usize;
    // One more than asked for tells whether there is a next page.
    filter.limit += 1;
    let scope = Scope::Tenant(principal.tenant());
    let mut decisions = plane.store.egress(scope, id, filter).await.map_err(DomainError::of_session)?;
    let more = decisions.len() > limit;
    decisions.truncate(limit);
    let next = if more { decisions.last().map(|decision| decision.id) } else { None };
    Ok((decisions, next))
}

/// Changes name, labels, and who sees it.
pub async fn update(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    request: UpdateSession,
) -> Result<SessionRecord, DomainError> {
    validate::update(&request)?;
    let entry = audit::of_session(principal, "session.update", id, json!({ "visibility": request.visibility }));
    let before = Mutex::new(None);
    let record = change(plane, Scope::Tenant(principal.tenant()), id, Some(entry), |record| {
        policy::check_session(principal, Action::SessionManage, record)?;
        *before.lock().unwrap_or_else(PoisonError::into_inner) = Some(SessionFacts::from(record));
        Ok(Some(SessionChange {
            name: request.name.clone(),
            labels: request.labels.clone(),
            visibility: request.visibility,
            ..SessionChange::default()
        }))
    })
    .await?;
    if let Some(before) = before.into_inner().unwrap_or_else(PoisonError::into_inner) {
        plane.publish_hidden(&record, before);
    }
    Ok(record)
}

/// Stops a session, and removes it if `purge`. Doing it again is fine.
pub async fn stop(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    request: StopRequest,
    purge: bool,
) -> Result<SessionRecord, DomainError> {
    let action = if purge { "session.purge_requested" } else { "session.stop" };
    let detail = json!({ "force": request.force, "grace_ms": request.grace_ms });
    let entry = audit::of_session(principal, action, id, detail);
    let record = change(plane, Scope::Tenant(principal.tenant()), id, Some(entry), |record| {
        policy::check_session(principal, Action::SessionManage, record)?;
        Ok(rules::stop(record, request, purge, clock::now()))
    })
    .await?;
    plane.fleet.settle_soon(&record);
    Ok(record)
}

/// Starts a new spawn in the same session.
pub async fn restart(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    request: RestartSession,
) -> Result<SessionRecord, DomainError> {
    let entry = audit::of_session(principal, "session.restart", id, json!({ "stop": request.stop }));
    let record = change(plane, Scope::Tenant(principal.tenant()), id, Some(entry), |record| {
        policy::check_session(principal, Action::SessionManage, record)?;
        if record.purging {
            return Err(conflict("session_purging", "this session is being purged"));
        }
        if record.spawns.len() >= rules::SPAWNS_MAX {
            return Err(conflict("too_many_spawns", "this session has been restarted too often; create a new one"));
        }
        if let Some(next) = rules::next_spawn(record) {
            return Ok(Some(next));
        }
        if !request.stop {
            let detail = "the newest spawn still lives; pass {\"stop\":true} to stop it first";
            return Err(conflict("session_running", detail));
        }
        let stop = StopRequest { grace_ms: agentapi_shared::api::STOP_GRACE_MS, force: false };
        let stopped = rules::stop(record, stop, false, clock::now()).unwrap_or_default();
        if stopped.spawn.as_ref().is_some_and(|spawn| spawn.state.is_ended()) {
            // It was never started: there is nothing to wait for.
            return Err(conflict("session_pending", "the newest spawn was not started yet"));
        }
        Ok(Some(SessionChange { restarting: Some(true), ..stopped }))
    })
    .await;
    let record = match record {
        Ok(record) => record,
        Err(error @ DomainError::Invalid(_)) => {
            let asked = get(plane, principal, id).await?.sandbox;
            return Err(explained(plane, principal, &asked, error).await);
        }
        Err(error) => return Err(error),
    };
    plane.fleet.settle_soon(&record);
    Ok(record)
}

fn conflict(code: &'static str, detail: &str) -> DomainError {
    DomainError::Conflict { code, detail: detail.to_owned() }
}

/// The screen of a spawn; of the newest if none is named.
pub async fn screen(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    spawn: Option<u32>,
    format: ScreenFormat,
    scrollback: u32,
) -> Result<ScreenResponse, DomainError> {
    let record = get_for(plane, principal, Action::TerminalView, id).await?;
    let spawn = spawn.unwrap_or_else(|| record.spawn());
    let known = record.spawns.iter().find(|known| known.number == spawn).ok_or(DomainError::SpawnNotFound(spawn))?;
    if !known.accepted {
        return Err(conflict("session_not_started", "this spawn has no screen: no host has started it"));
    }
    match plane.fleet.command(&record, Command::Screen { spawn, format, scrollback }).await? {
        CommandResult::Screen(screen) => Ok(*screen),
        _ => Err(DomainError::HostTimeout),
    }
}

/// Types into the newest spawn.
pub async fn input(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    bytes: Vec<u8>,
) -> Result<InputWritten, DomainError> {
    let record = get_for(plane, principal, Action::TerminalType, id).await?;
    must_run(&record)?;
    let entry = audit::of_session(principal, "session.input", id, json!({ "bytes": bytes.len() }));
    plane.store.audit(Scope::Tenant(principal.tenant()), entry, None).await?;
    let command = Command::Input { spawn: record.spawn(), bytes_base64: STANDARD.encode(&bytes) };
    match plane.fleet.command(&record, command).await? {
        CommandResult::Written { written, offset } => Ok(InputWritten { written, offset }),
        _ => Err(DomainError::HostTimeout),
    }
}

/// Sets the size of the terminal.
pub async fn resize(
    plane: &Plane,
    principal: &Principal,
    id: SessionId,
    size: WindowSize,
) -> Result<SessionRecord, DomainError> {
    let record = get_for(plane, principal, Action::TerminalType, id).await?;
    must_run(&record)?;
    let entry = audit::of_session(principal, "session.resize", id, json!({ "size": size }));
    plane.store.audit(Scope::Tenant(principal.tenant()), entry, None).await?;
    plane.fleet.command(&record, Command::Resize { spawn: record.spawn(), size }).await?;
    // Who may type may not thereby change the record: the new size is what its host said.
    let scope = record.host.map_or(Scope::System, Scope::Host);
    change(plane, scope, id, None, |record| {
        Ok((record.size != size).then(|| SessionChange { size: Some(size), ..SessionChange::default() }))
    })
    .await
}

fn must_run(record: &SessionRecord) -> Result<(), DomainError> {
    match record.state() {
        SpawnState::Running | SpawnState::Stopping => Ok(()),
        other => Err(DomainError::Conflict {
            code: "session_not_running",
            detail: format!("this session is {}: nothing reads its terminal", other.as_str()),
        }),
    }
}
