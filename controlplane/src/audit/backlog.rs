//! Records that are written as soon as the store takes them: what they tell of has happened, or must not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::audit::{PLATFORM, Personal};
use agentapi_shared::{EventId, OrgId, ViewerId};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::audit;
use crate::store::records::{AuditEntry, TenantContext};
use crate::store::{Scope, Store, StoreError};

/// Records that wait, of a kilobyte each. Overflow: the new ones are dropped and counted, and a record of each organisation says how many.
const WAITING_MAX: usize = 10_000;

/// How often a record is offered to a store that is there and does not take it.
const TRIES_MAX: u32 = 5;

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
    records: VecDeque<Waiter>,
    dropped: BTreeMap<OrgId, u64>,
}

#[derive(Debug, Clone)]
struct Waiter {
    scope: Scope,
    entry: AuditEntry,
    /// The viewer whose place is given up with it.
    viewer: Option<ViewerId>,
    /// How often a store that is there did not take it.
    tries: u32,
}

impl Waiter {
    async fn store(&self, store: &dyn Store) -> Result<(), StoreError> {
        match (&self.scope, self.viewer) {
            (Scope::Tenant(tenant), Some(viewer)) => {
                store.detach_viewer(tenant.clone(), viewer, self.entry.clone()).await
            }
            (scope, _) => store.audit(scope.clone(), self.entry.clone(), None).await,
        }
    }

    /// Whose trail misses it, if it is lost.
    fn org(&self) -> OrgId {
        match &self.scope {
            Scope::Tenant(tenant) => tenant.org,
            Scope::Host(_) | Scope::System => self.entry.org.unwrap_or(PLATFORM),
        }
    }

    /// The same by the control plane, for somebody who has no rights any more: what they did is recorded all the same, and nothing personal of
    /// them, which would be in nobody's name when they are erased.
    fn by_us(&self) -> AuditEntry {
        let (kind, id) = self.entry.actor(&self.scope);
        let detail = json!({ "of": { "kind": kind, "id": id }, "detail": self.entry.detail });
        let org = match &self.scope {
            Scope::Tenant(tenant) => Some(tenant.org),
            Scope::Host(_) | Scope::System => self.entry.org,
        };
        AuditEntry { org, detail, personal: Personal::default(), ..self.entry.clone() }
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self { waiting: Mutex::default(), pushed: watch::Sender::new(0) }
    }
}

impl Backlog {
    /// Takes a record.
    pub(super) fn push(&self, scope: Scope, entry: AuditEntry) {
        self.take_in(Waiter { scope, entry, viewer: None, tries: 0 });
    }

    /// Takes the record of a viewer's end. If the store does not take it from them any more, their lease runs out.
    pub(super) fn push_detach(&self, tenant: TenantContext, viewer: ViewerId, entry: AuditEntry) {
        self.take_in(Waiter { scope: Scope::Tenant(tenant), entry, viewer: Some(viewer), tries: 0 });
    }

    fn take_in(&self, waiter: Waiter) {
        let mut waiting = self.lock();
        if waiting.records.len() < WAITING_MAX {
            waiting.records.push_back(waiter);
        } else {
            drop_counted(&mut waiting, waiter.org(), "too many wait");
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
            let Some(waiter) = self.lock().records.front().cloned() else { break };
            let stored = match waiter.store(store).await {
                Ok(()) => Ok(()),
                Err(StoreError::Unavailable(cause)) => Err(StoreError::Unavailable(cause)),
                Err(_) => store.audit(Scope::System, waiter.by_us(), None).await,
            };
            match stored {
                Ok(()) => self.take(waiter.entry.id),
                Err(failure) => {
                    // A store that is away takes it later; one that is there never will.
                    if store.ping().await.is_ok() {
                        self.tried(waiter.entry.id);
                    }
                    return Err(failure);
                }
            }
        }
        let dropped = std::mem::take(&mut self.lock().dropped);
        for (org, count) in dropped {
            let lost = AuditEntry { org: Some(org), ..audit::of_account("system", "audit.records_lost") };
            let lost = AuditEntry { detail: json!({ "count": count }), ..lost };
            if let Err(failure) = store.audit(Scope::System, lost, None).await {
                *self.lock().dropped.entry(org).or_default() += count;
                return Err(failure);
            }
        }
        Ok(())
    }

    fn take(&self, id: EventId) {
        let mut waiting = self.lock();
        if waiting.records.front().is_some_and(|waiter| waiter.entry.id == id) {
            waiting.records.pop_front();
        }
    }

    /// Counts a try of the first one; after the last it is given up, and stops nobody.
    fn tried(&self, id: EventId) {
        let mut waiting = self.lock();
        let Some(waiter) = waiting.records.front_mut().filter(|waiter| waiter.entry.id == id) else { return };
        waiter.tries += 1;
        if waiter.tries >= TRIES_MAX {
            let org = waiter.org();
            waiting.records.pop_front();
            drop_counted(&mut waiting, org, "the store does not take them");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Pushing and popping leave it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_counted(waiting: &mut Waiting, org: OrgId, why: &'static str) {
    let count = waiting.dropped.entry(org).or_default();
    *count += 1;
    if *count == 1 {
        error!(org.id = %org, why, "audit records are dropped");
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
