//! The audit trail at work: what cannot be written in a change's own transaction, counting what repeats, sealing, checkpoints.
//!
//! Most records are written by the store together with their change and pass here only to be sealed. What has no change of its own goes through
//! [`Trail`]: refusals and egress denials, of which the first of a minute is written at once and the rest are counted, and what became of a
//! terminal, which must not wait for a store that is away.

mod backlog;
mod checkpoints;
mod repeats;
mod sealer;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use agentapi_shared::egress::EgressDecision;
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use agentapi_shared::{HostId, SessionId, ViewerId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::domain::audit;
use crate::domain::policy::Principal;
use crate::request;
use crate::store::records::{AuditEntry, TenantContext};
use crate::store::{Scope, Store, StoreError};
use backlog::Backlog;
use repeats::{Occurrence, Repeats};

pub use checkpoints::{CheckpointError, Checkpoints};
pub use sealer::seal_all;

/// See the module.
#[derive(Debug)]
pub struct Trail {
    store: Arc<dyn Store>,
    backlog: Arc<Backlog>,
    repeats: Arc<Repeats>,
    /// How many records were sealed here.
    sealed: watch::Receiver<u64>,
    checkpoints: OnceLock<Arc<Checkpoints>>,
}

/// Something that was refused to the sender of the current request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Stable word of the error.
    pub code: String,
    /// `GET` and the like.
    pub method: String,
    /// The route, with the names of its parameters.
    pub route: String,
    /// The path itself.
    pub path: String,
}

/// A path is cut here: it is theirs to choose.
const PATH_CHARS_MAX: usize = 256;

impl Trail {
    /// Starts the tasks that seal and that write what waits.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, tasks: &TaskGroup) -> Self {
        let backlog = Arc::new(Backlog::default());
        let repeats = Arc::new(Repeats::default());
        let (sealing, sealed) = watch::channel(0);
        tasks.spawn("audit sealer", OnEnd::Continue, sealer::run(store.clone(), sealing, tasks.cancelled()));
        tasks.spawn("audit backlog", OnEnd::Continue, backlog::run(backlog.clone(), store.clone(), tasks.cancelled()));
        let counting = repeats::run(repeats.clone(), backlog.clone(), tasks.cancelled());
        tasks.spawn("audit repeats", OnEnd::Continue, counting);
        Self { store, backlog, repeats, sealed, checkpoints: OnceLock::new() }
    }

    /// Signs the chains' ends from now on, every minute in which something was sealed.
    pub fn keep_checkpoints(&self, checkpoints: Arc<Checkpoints>, tasks: &TaskGroup) {
        let work = checkpoints::run(checkpoints.clone(), self.store.clone(), self.sealed.clone(), tasks.cancelled());
        if self.checkpoints.set(checkpoints).is_ok() {
            tasks.spawn("audit checkpoints", OnEnd::Continue, work);
        }
    }

    /// What signs the chains' ends, if anything does.
    #[must_use]
    pub fn checkpoints(&self) -> Option<&Arc<Checkpoints>> {
        self.checkpoints.get()
    }

    /// Writes a record as soon as the store takes it. For what has happened already, or must not wait.
    pub fn later(&self, scope: Scope, entry: AuditEntry) {
        self.backlog.push(scope, entry);
    }

    /// Writes the record of a viewer's end in the same way, and gives its place up with it.
    pub fn detached(&self, tenant: TenantContext, viewer: ViewerId, entry: AuditEntry) {
        self.backlog.push_detach(tenant, viewer, entry);
    }

    /// Records what is refused to the sender of the current request, before it is told: the first of its kind in a minute; more are counted.
    pub async fn refused(&self, refusal: &Refusal) {
        let request = request::current();
        let caller = request.as_ref().and_then(|request| request.caller());
        let (scope, actor, place) = match caller {
            Some(caller) => {
                let place: String = refusal.path.chars().take(PATH_CHARS_MAX).collect();
                let actor = format!("{}/{}", caller.tenant.org, caller.tenant.user);
                (Scope::Tenant(caller.tenant.clone()), actor, place)
            }
            // Of somebody whom nobody knows only the route is kept: they could choose any number of paths.
            None => {
                let ip = request.as_ref().and_then(|request| request.ip);
                (Scope::System, ip.map_or_else(String::new, |ip| ip.to_string()), refusal.route.clone())
            }
        };
        let object = format!("{} {place} {}", refusal.method, refusal.code);
        let detail = json!({ "status": refusal.status, "code": refusal.code, "method": refusal.method, "route": refusal.route,
                             "path": place });
        let occurrence =
            Occurrence { actor, action: "request.refused", object, scope, entry: audit::of_refusal(detail) };
        if let Some((scope, entry)) = self.repeats.count(occurrence, 1, &self.backlog)
            && let Err(failure) = self.store.audit(scope.clone(), entry.clone(), None).await
        {
            warn!(error = &failure as &dyn std::error::Error, "a refusal is not recorded yet; tried again");
            self.later(scope, entry);
        }
    }

    /// Records that a session's way out was denied: the first to a place in a minute; more are counted.
    pub async fn egress_denied(&self, host: HostId, decision: &EgressDecision) -> Result<(), StoreError> {
        let scope = Scope::Host(host);
        let place = format!("{} {}:{} {}", decision.session, decision.host, decision.port, decision.rule);
        let detail = json!({ "spawn": decision.spawn, "host": decision.host, "port": decision.port, "rule": decision.rule,
                             "times": decision.times });
        let entry = audit::of_host(host, "egress.denied", Some(decision.session), detail);
        // Sent again it has the same id, and is known.
        let entry = AuditEntry { id: decision.id, at: decision.at, ..entry };
        let occurrence = Occurrence { actor: host.to_string(), action: "egress.denied", object: place, scope, entry };
        let (actor, object) = (occurrence.actor.clone(), occurrence.object.clone());
        let Some((scope, entry)) = self.repeats.count(occurrence, decision.times, &self.backlog) else { return Ok(()) };
        // A host speaks for its own sessions only.
        let written = match self.store.session(scope.clone(), decision.session).await {
            Ok(_) => self.store.audit(scope, entry, None).await,
            Err(StoreError::NotFound) => Ok(()),
            Err(other) => Err(other),
        };
        if written.is_err() {
            self.repeats.forget(&actor, "egress.denied", &object);
        }
        written
    }

    /// Records that a viewer took the size of a terminal from another one, as soon as the store takes it: nobody's keystroke waits for that.
    pub fn size_taken(&self, principal: &Principal, session: SessionId, detail: Value) {
        let tenant = principal.tenant_of_late();
        let actor = format!("{}/{}", tenant.org, tenant.user);
        let entry = audit::of_session(principal, "terminal.size_taken", session, detail);
        let object = session.to_string();
        let occurrence =
            Occurrence { actor, action: "terminal.size_taken", object, scope: Scope::Tenant(tenant), entry };
        if let Some((scope, entry)) = self.repeats.count(occurrence, 1, &self.backlog) {
            self.later(scope, entry);
        }
    }

    /// Writes and seals what is left and signs the ends, after everything else has ended.
    pub async fn finish(&self) {
        self.repeats.end(&self.backlog, true);
        if let Err(failure) = self.backlog.write(&*self.store).await {
            warn!(
                error = &failure as &dyn std::error::Error,
                records = self.backlog.len(),
                "audit records are lost: the store is away"
            );
        }
        if let Err(failure) = sealer::seal_all(&*self.store).await {
            warn!(error = &failure as &dyn std::error::Error, "not everything is sealed; the next start does it");
        }
        if let Some(checkpoints) = self.checkpoints() {
            checkpoints.sign(&*self.store).await;
        }
    }
}

/// How a record says that it stands for several.
fn counted(entry: &AuditEntry, times: u64, since: time::OffsetDateTime) -> AuditEntry {
    let mut detail = entry.detail.clone();
    if let Value::Object(fields) = &mut detail {
        fields.insert("times".to_owned(), times.into());
        fields.insert("since".to_owned(), agentapi_shared::audit::entry::time_text(since).into());
    }
    AuditEntry { id: agentapi_shared::EventId::generate(), at: crate::clock::now(), detail, ..entry.clone() }
}
