//! What a database needs that others change too: users who were deleted elsewhere are shut out and their sessions stopped, hosts are told of
//! sessions of whomever an operator shut out, and rows that are over are removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock;
use crate::plane::Plane;
use crate::store::records::SessionRecord;
use crate::store::{Scope, StoreError};

/// What is over is not used any more; it only takes room.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

pub(super) async fn run(plane: &Arc<Plane>) {
    let Some(every) = plane.store.upkeep_every() else { return };
    let shutdown = plane.tasks.cancelled();
    let mut swept: Option<Instant> = None;
    loop {
        if let Err(failure) = look(plane).await {
            warn!(error = &failure as &dyn std::error::Error, "users who were deleted elsewhere are not looked for");
        }
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            match plane.store.sweep(clock::now()).await {
                Ok(_) => swept = Some(Instant::now()),
                Err(failure) => warn!(error = &failure as &dyn std::error::Error, "what is over is not removed yet"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// The database has their sessions stopped; their hosts are told here.
async fn look(plane: &Arc<Plane>) -> Result<(), StoreError> {
    for session in plane.store.end_deleted_users().await? {
        match plane.store.session(Scope::System, session).await {
            Ok(record) => tell(plane, &record),
            Err(StoreError::NotFound) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn tell(plane: &Arc<Plane>, record: &SessionRecord) {
    info!(session.id = %record.id, "session is stopped: its user was shut out");
    plane.publish(record);
    plane.fleet.settle_soon(record);
}
