//! Bringing one session to what is wanted of it.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::link::{Command, CommandResult};
use agentapi_shared::{ExitReason, HostId, SessionId};
use serde_json::json;
use tracing::{error, warn};

use super::{CommandFailure, Link};
use crate::clock;
use crate::domain::{self, DomainError, audit, rules};
use crate::plane::Plane;
use crate::store::records::{Desired, SessionRecord};
use crate::store::{Scope, StoreError};

/// A start may have to prepare a workspace.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// A purge removes files.
const PURGE_DEADLINE: Duration = Duration::from_secs(60);

/// What a settling task did last, so that it does not repeat what only the host can finish.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Done {
    stop_of_generation: Option<u64>,
}

/// Settles until nothing is left to do here. The record is as it was just written or read: the first step need not read it again.
pub(super) async fn run(plane: &Arc<Plane>, record: SessionRecord) {
    let (id, mut known) = (record.id, Some(record));
    let mut done = Done::default();
    let shutdown = plane.tasks.cancelled();
    loop {
        let stepped = match known.take() {
            Some(record) => step(plane, record, &mut done).await,
            None => look(plane, id, &mut done).await,
        };
        match stepped {
            Ok(true) => {}
            Ok(false) => {
                if !plane.fleet.settle_again(id) {
                    return;
                }
            }
            Err(failure) => {
                error!(session.id = %id, error = &failure as &dyn std::error::Error, "session not settled; tried again");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

async fn look(plane: &Arc<Plane>, id: SessionId, done: &mut Done) -> Result<bool, DomainError> {
    match plane.store.session(Scope::System, id).await {
        Err(StoreError::NotFound) => Ok(false),
        other => step(plane, other?, done).await,
    }
}

/// One step. Tells whether there may be another.
async fn step(plane: &Arc<Plane>, record: SessionRecord, done: &mut Done) -> Result<bool, DomainError> {
    let Some(spawn) = record.newest() else { return Ok(false) };
    let Some(host) = record.host else { return place(plane, &record).await };
    let Some(link) = plane.fleet.link(host) else { return Ok(false) };
    if spawn.state.is_ended() {
        return if record.purging { purge(plane, &link, &record).await } else { Ok(false) };
    }
    match record.desired {
        Desired::Run if !spawn.accepted => start(plane, &link, &record).await,
        Desired::Stop if done.stop_of_generation != Some(record.generation) => {
            done.stop_of_generation = Some(record.generation);
            stop(&link, &record).await;
            Ok(true)
        }
        Desired::Run | Desired::Stop => Ok(false),
    }
}

/// Gives a session without a host to one. A session that ended without one is purged here.
async fn place(plane: &Arc<Plane>, record: &SessionRecord) -> Result<bool, DomainError> {
    if record.state().is_ended() {
        if record.purging {
            remove(plane, record, None).await?;
        }
        plane.fleet.drop_environment(record.id);
        return Ok(false);
    }
    let Some(link) = plane.fleet.least_loaded(record) else { return Ok(false) };
    let entry = audit::of_host(link.host(), "session.placed", Some(record.id), json!({}));
    domain::change(plane, Scope::System, record.id, Some(entry), |record| Ok(rules::place(record, link.host())))
        .await?;
    link.count_placed();
    Ok(true)
}

async fn start(plane: &Arc<Plane>, link: &Arc<Link>, record: &SessionRecord) -> Result<bool, DomainError> {
    let number = record.spawn();
    let env = plane.fleet.environment(record.id);
    if env.is_none() && record.newest().is_some_and(|spawn| spawn.has_env) {
        let lost = rules::exit(
            ExitReason::EnvironmentLost,
            "the control plane was restarted before a host took this session, and its environment was only in memory: create it again",
        );
        return fail(plane, link.host(), record, lost).await;
    }
    let answer = link.command(record.id, rules::start_command(record, env), START_DEADLINE).await;
    match answer {
        Ok(CommandResult::Accepted | CommandResult::Done) => {
            let boot_id = link.boot_id();
            domain::change(plane, Scope::System, record.id, None, |record| {
                Ok(rules::accepted(record, number, boot_id))
            })
            .await?;
            Ok(true)
        }
        Ok(other) => {
            warn!(session.id = %record.id, answer = ?other, "a start got an answer that makes no sense");
            Ok(false)
        }
        Err(CommandFailure::Refused(refused)) => {
            fail(plane, link.host(), record, rules::exit(ExitReason::StartFailed, refused.detail)).await
        }
        // Not known whether the host has it: its next inventory or report tells.
        Err(failure) => {
            warn!(session.id = %record.id, host.id = %link.host(), %failure, "start not answered");
            Ok(false)
        }
    }
}

async fn fail(
    plane: &Arc<Plane>,
    host: HostId,
    record: &SessionRecord,
    exit: agentapi_shared::Exit,
) -> Result<bool, DomainError> {
    let number = record.spawn();
    let entry =
        audit::of_host(host, "spawn.failed", Some(record.id), json!({ "spawn": number, "reason": exit.reason }));
    domain::change(plane, Scope::System, record.id, Some(entry), |record| {
        Ok(rules::fail(record, number, exit.clone(), clock::now()))
    })
    .await?;
    Ok(true)
}

async fn stop(link: &Arc<Link>, record: &SessionRecord) {
    // The grace period runs on the host; its answer means that it took the order.
    if let Err(failure) = link.command(record.id, rules::stop_command(record), START_DEADLINE).await {
        warn!(session.id = %record.id, host.id = %link.host(), %failure, "stop not answered");
    }
}

async fn purge(plane: &Arc<Plane>, link: &Arc<Link>, record: &SessionRecord) -> Result<bool, DomainError> {
    match link.command(record.id, Command::Purge, PURGE_DEADLINE).await {
        Ok(_) => remove(plane, record, Some(link.host())).await.map(|()| false),
        Err(CommandFailure::Refused(refused)) if refused.code == "not_found" => {
            remove(plane, record, Some(link.host())).await.map(|()| false)
        }
        Err(failure) => {
            warn!(session.id = %record.id, host.id = %link.host(), %failure, "purge not done");
            Ok(false)
        }
    }
}

async fn remove(plane: &Arc<Plane>, record: &SessionRecord, host: Option<HostId>) -> Result<(), DomainError> {
    let mut entry = audit::of_host(crate::store::records::LOCAL_HOST, "session.purged", Some(record.id), json!({}));
    entry.host = host;
    plane.store.purge_session(Scope::System, record.id, entry).await?;
    plane.publish_purged(record);
    plane.fleet.drop_environment(record.id);
    Ok(())
}
