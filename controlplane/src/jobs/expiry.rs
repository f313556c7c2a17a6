//! Stops sessions whose time is over, and purges those that ended long ago, as their organisations want it.
//!
//! Level-triggered: what is due is asked of the store, so a restart forgets nothing and two replicas do the same once. Between looks it waits
//! until the next session may be due, or a setting changes.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::api::STOP_GRACE_MS;
use serde_json::json;
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::clock;
use crate::domain::{self, DomainError, audit, rules};
use crate::plane::Plane;
use crate::store::Scope;
use crate::store::records::{Overdue, StopRequest};

/// Looked at least so often: another replica may have changed a setting.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(600);
/// A pause between two looks, however much is due.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(1);
/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) async fn run(plane: &Arc<Plane>) {
    let shutdown = plane.tasks.cancelled();
    let mut settings = plane.settings_changed.subscribe();
    loop {
        settings.borrow_and_update();
        let wait = match look(plane).await {
            Ok(next) => next.map_or(LOOK_AFTER_MAX, until).clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX),
            Err(failure) => {
                warn!(error = &failure as &dyn std::error::Error, "sessions whose time is over are not stopped yet");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The sender is part of the plane, which this holds.
            _ = settings.changed() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn until(at: OffsetDateTime) -> Duration {
    (at - clock::now()).try_into().unwrap_or(LOOK_AFTER_MIN)
}

/// Does what is due; gives when to look again.
async fn look(plane: &Arc<Plane>) -> Result<Option<OffsetDateTime>, DomainError> {
    let expiry = plane.store.expiry(clock::now()).await?;
    for (session, why) in expiry.due {
        // Whoever watches has to do with it: in the store they have leases, which may be over while it was away.
        if why == Overdue::Idle && plane.hubs.is_watched(session) {
            continue;
        }
        match end(plane, session, why).await {
            Err(DomainError::SessionNotFound) | Ok(()) => {}
            // A store that is away is away for all of them; anything else is about this one, and holds up no other.
            Err(DomainError::Store(failure)) => return Err(failure.into()),
            Err(other) => {
                warn!(session.id = %session, error = &other as &dyn std::error::Error, "a session whose time is over is not stopped yet");
            }
        }
    }
    Ok(expiry.next)
}

async fn end(plane: &Arc<Plane>, session: SessionId, why: Overdue) -> Result<(), DomainError> {
    let (word, purge) = match why {
        Overdue::Idle => ("idle", false),
        Overdue::Age => ("age", false),
        Overdue::Retention => ("retention", true),
    };
    let entry = audit::of_job(
        session,
        if purge { "session.purge_requested" } else { "session.stop" },
        json!({ "expired": word }),
    );
    let stop = StopRequest { grace_ms: STOP_GRACE_MS, force: false };
    let record = domain::change(plane, Scope::System, session, Some(entry), |record| {
        // Somebody started it again meanwhile.
        if purge && !record.state().is_ended() {
            return Ok(None);
        }
        Ok(rules::stop(record, stop, purge, clock::now()))
    })
    .await?;
    info!(session.id = %session, reason = word, "session ended: its time is over");
    plane.fleet.settle_soon(&record);
    Ok(())
}
