//! Storing what a host says, in the order in which it says it, and settling the differences when it connects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::egress::EgressVerdict;
use agentapi_shared::link::{Command, HostMessage, OutboxItem, PlaneMessage, SpawnReport};
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::{HostId, SessionId};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::Link;
use super::serve::Waiting;
use crate::clock;
use crate::domain::rules::{self, Settlement};
use crate::domain::{DomainError, audit};
use crate::metrics;
use crate::plane::Plane;
use crate::store::records::{AuditEntry, SessionChange, SessionRecord};
use crate::store::{OutboxSeen, Scope, StoreError};

/// A host ends a spawn that it should not have within this time.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See [`crate::domain::change`]: each further attempt means that someone else's change came in between.
const ATTEMPTS_MAX: u32 = 32;

/// Settles the inventory, opens the link for commands, then stores what comes until the link ends.
pub(super) async fn keep_ledger(
    plane: Arc<Plane>,
    link: Arc<Link>,
    inventory: Vec<SpawnReport>,
    mut entries: mpsc::Receiver<Waiting>,
) {
    let closed = link.closed();
    let work = async {
        until_stored(&link, || settle_inventory(&plane, &link, &inventory)).await;
        while let Some((message, _room)) = entries.recv().await {
            until_stored(&link, || take(&plane, &link, &message)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = closed.cancelled() => {}
    }
}

/// Does it again until it is stored: a store that is away stops the ledger and not the terminals, which go on beside it. What waits
/// meanwhile is bounded by the queue; storing twice has one effect.
async fn until_stored<F>(link: &Link, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<(), DomainError>>,
{
    while let Err(failure) = attempt().await {
        error!(host.id = %link.host(), error = &failure as &dyn std::error::Error, "what a host said is not stored yet; tried again");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn settle_inventory(plane: &Arc<Plane>, link: &Arc<Link>, inventory: &[SpawnReport]) -> Result<(), DomainError> {
    let host = link.host();
    let mut by_session: HashMap<SessionId, Vec<SpawnReport>> = HashMap::new();
    for report in inventory {
        by_session.entry(report.session).or_default().push(report.clone());
    }
    let mut unsettled = plane.store.unsettled(Some(host)).await?;
    for record in &mut unsettled {
        let reports = by_session.remove(&record.id).unwrap_or_default();
        for report in &reports {
            // Ends come again through the outbox, which is acknowledged; here they would only be early.
            if !report.state.is_ended()
                && let Some(newer) =
                    apply(plane, host, record.id, None, None, |r| rules::report(r, report, link.boot_id())).await?
            {
                *record = newer;
            }
        }
        let reported = reports.iter().find(|report| report.spawn == record.spawn());
        if let Settlement::Fail(exit) = rules::settle(record, reported, link.boot_id()) {
            info!(session.id = %record.id, reason = ?exit.reason, "spawn is not on its host");
            let number = record.spawn();
            let detail = json!({ "spawn": number, "reason": exit.reason });
            let entry = audit::of_host(host, "spawn.failed", Some(record.id), detail);
            apply(plane, host, record.id, Some(entry), None, |r| rules::fail(r, number, exit.clone(), clock::now()))
                .await?;
        }
    }
    // From here on commands may be sent; what they start is not in the inventory above.
    plane.fleet.connect(link);
    host_came(plane, host).await?;
    for record in unsettled.iter().chain(&plane.store.unsettled(None).await?) {
        plane.fleet.settle_soon(record);
    }
    for reports in by_session.into_values() {
        remove_unwanted(plane, link, reports).await?;
    }
    Ok(())
}

/// Spawns that live on the host and should not: of a session that is over, purged or placed elsewhere.
async fn remove_unwanted(plane: &Arc<Plane>, link: &Arc<Link>, reports: Vec<SpawnReport>) -> Result<(), DomainError> {
    for report in reports {
        let known = match plane.store.session(Scope::Host(link.host()), report.session).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound) => None,
            Err(other) => return Err(other.into()),
        };
        let ended = report.state.is_ended();
        if ended && known.is_some() {
            continue;
        }
        warn!(session.id = %report.session, spawn = report.spawn, host.id = %link.host(), "host has a spawn that it should not have");
        let link = link.clone();
        let generation =
            known.as_ref().map_or(report.generation + 1, |record| record.generation.max(report.generation + 1));
        let stop = Command::Stop { spawn: report.spawn, generation, grace_ms: 0, force: true };
        let gone = known.is_none();
        let session = report.session;
        plane.tasks.spawn("remove unwanted spawn", OnEnd::Continue, async move {
            // A host that does not answer is asked again at its next inventory.
            let stopped = ended || link.command(session, stop, STOP_DEADLINE).await.is_ok();
            if stopped && gone {
                let _purged = link.command(session, Command::Purge, STOP_DEADLINE).await;
            }
        });
    }
    Ok(())
}

/// Stores one message and does what follows from it.
async fn take(plane: &Arc<Plane>, link: &Arc<Link>, message: &HostMessage) -> Result<(), DomainError> {
    let host = link.host();
    match message {
        HostMessage::Report(report) => {
            let taken =
                apply(plane, host, report.session, None, None, |r| rules::report(r, report, link.boot_id())).await?;
            if let Some(record) = taken
                && (record.state().is_ended() || report.generation < record.generation)
            {
                plane.fleet.settle_soon(&record);
            }
        }
        HostMessage::Outbox { seq, item } => {
            if *seq > plane.store.outbox_seen(host).await? {
                store_item(plane, link, *seq, item.clone()).await?;
            }
            link.send(PlaneMessage::OutboxAck { seq: *seq });
        }
        HostMessage::Facts(facts) => {
            let mut record = plane.store.host(host).await?;
            record.facts = Some((**facts).clone());
            let entry = audit::of_host(host, "host.facts_changed", None, json!({}));
            plane.store.host_connected(record, entry).await?;
            plane.publish_host(plane.store.host(host).await?);
        }
        // Answered by the socket task, or a second hello, which changes nothing.
        _ => {}
    }
    Ok(())
}

async fn store_item(plane: &Arc<Plane>, link: &Arc<Link>, seq: u64, item: OutboxItem) -> Result<(), DomainError> {
    let host = link.host();
    let seen = Some((host, seq));
    match item {
        OutboxItem::Ended(report) => {
            let detail = json!({ "spawn": report.spawn, "exit": report.exit.as_ref().map(|exit| exit.reason) });
            let entry = audit::of_host(host, "spawn.ended", Some(report.session), detail);
            let rule = |record: &SessionRecord| rules::report(record, &report, link.boot_id());
            match apply(plane, host, report.session, Some(entry.clone()), seen, rule).await? {
                Some(record) => plane.fleet.settle_soon(&record),
                // Known already, or purged: that it was said is stored all the same.
                None => plane.store.audit(Scope::Host(host), entry, seen).await?,
            }
        }
        OutboxItem::Audit { id, at, session, action, detail } => {
            let entry = AuditEntry { id, at, action: action.into(), ..audit::of_host(host, "", session, detail) };
            plane.store.audit(Scope::Host(host), entry, seen).await?;
        }
        OutboxItem::Egress(decision) => {
            let verdict = decision.verdict;
            if verdict == EgressVerdict::Denied {
                plane.trail.egress_denied(host, &decision).await?;
            }
            plane.store.record_egress(host, decision, seen).await?;
            plane.metrics.count_egress(verdict);
        }
    }
    Ok(())
}

/// Applies what a rule makes of a session of this host; none if there is no such session, or nothing changes.
async fn apply(
    plane: &Arc<Plane>,
    host: HostId,
    id: SessionId,
    entry: Option<AuditEntry>,
    seen: OutboxSeen,
    rule: impl Fn(&SessionRecord) -> Option<SessionChange>,
) -> Result<Option<SessionRecord>, DomainError> {
    let scope = Scope::Host(host);
    for _ in 0..ATTEMPTS_MAX {
        let record = match plane.store.session(scope.clone(), id).await {
            Err(StoreError::NotFound) => return Ok(None),
            other => other?,
        };
        let Some(change) = rule(&record) else { return Ok(None) };
        let end = metrics::end(&change);
        match plane.store.update_session(scope.clone(), id, record.revision, change, entry.clone(), seen).await {
            Ok(record) => {
                plane.metrics.count_end(end);
                plane.publish(&record);
                return Ok(Some(record));
            }
            Err(StoreError::Stale) => {}
            Err(StoreError::NotFound) => return Ok(None),
            Err(other) => return Err(other.into()),
        }
    }
    Err(DomainError::Busy("too many changes of this session at once"))
}

async fn host_came(plane: &Arc<Plane>, host: HostId) -> Result<(), DomainError> {
    plane.publish_host(plane.store.host(host).await?);
    // The reach of its sessions changed with it.
    for record in plane.store.unsettled(Some(host)).await? {
        plane.publish(&record);
    }
    plane.hubs.host_changed(host, true);
    Ok(())
}

/// A host is no longer connected.
pub(super) async fn host_went(plane: &Arc<Plane>, host: HostId) {
    plane.hubs.host_changed(host, false);
    plane.trail.later(Scope::Host(host), audit::of_host(host, "host.disconnected", None, json!({})));
    let told = async {
        plane.store.host_seen(host, clock::now()).await?;
        plane.publish_host(plane.store.host(host).await?);
        for record in plane.store.unsettled(Some(host)).await? {
            plane.publish(&record);
        }
        Ok::<(), StoreError>(())
    };
    if let Err(failure) = told.await {
        warn!(host.id = %host, error = &failure as &dyn std::error::Error, "could not store that a host went");
    }
}
