//! Records that are written as soon as the store takes them: what they tell of has happened, or must not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::OrgId;
use agentapi_shared::audit::PLATFORM;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::audit;
use crate::store::records::AuditEntry;
use crate::store::{Scope, Store, StoreError};

/// Records that wait, of a kilobyte each. Overflow: the new ones are dropped and counted, and a record of each organisation says how many.
const WAITING_MAX: usize = 10_000;

/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    /// How many were ever pushed.
    pushed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<(Scope, AuditEntry)>,
    dropped: BTreeMap<OrgId, u64>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { waiting: Mutex::default(), pushed: watch::Sender::new(0) }
    }
}

impl Backlog {
    /// Takes a record.
    pub(super) fn push(&self, scope: Scope, entry: AuditEntry) {
        let mut waiting = self.lock();
        if waiting.records.len() < WAITING_MAX {
            waiting.records.push_back((scope, entry));
        } else {
            let org = match &scope {
                Scope::Tenant(tenant) => tenant.org,
                Scope::Host(_) | Scope::System => entry.org.unwrap_or(PLATFORM),
            };
            if *waiting.dropped.entry(org).and_modify(|count| *count += 1).or_insert(1) == 1 {
                error!(org.id = %org, "audit records are dropped: the store does not take them and too many wait");
            }
        }
        drop(waiting);
        self.pushed.send_modify(|count| *count += 1);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Writes everything that waits, oldest first.
    pub(super) async fn write(&self, store: &dyn Store) -> Result<(), StoreError> {
        loop {
            // Taken out once it is stored: stored twice it is the same record.
            let Some((scope, entry)) = self.lock().records.front().cloned() else { break };
            let id = entry.id;
            match store.audit(scope, entry, None).await {
                Ok(()) => {}
                // Whom it is about is gone with their rights; it cannot be stored in their name, and stops nothing.
                Err(StoreError::NotFound) => warn!(audit.id = %id, "an audit record has no place"),
                Err(other) => return Err(other),
            }
            let mut waiting = self.lock();
            if waiting.records.front().is_some_and(|(_, entry)| entry.id == id) {
                waiting.records.pop_front();
            }
        }
        let dropped = std::mem::take(&mut self.lock().dropped);
        for (org, count) in dropped {
            let lost = AuditEntry { org: Some(org), ..audit::of_account("system", "audit.records_lost") };
            let lost = AuditEntry { detail: json!({ "count": count }), ..lost };
            store.audit(Scope::System, lost, None).await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Pushing and popping leave it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what comes until the group ends.
pub(super) async fn run(backlog: Arc<Backlog>, store: Arc<dyn Store>, end: CancellationToken) {
    let mut pushed = backlog.pushed.subscribe();
    let work = async {
        // An error would mean that the backlog is gone; this task holds it.
        while pushed.changed().await.is_ok() {
            while let Err(failure) = backlog.write(&*store).await {
                warn!(
                    error = &failure as &dyn std::error::Error,
                    records = backlog.len(),
                    "audit records wait for the store"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = end.cancelled() => {}
    }
}
