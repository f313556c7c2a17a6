//! Renews the leases of the viewers that this process serves, all in one call.
//!
//! A store that is away ends no terminal: its leases are over meanwhile, and good again with the first renewal that reaches it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::leases::LEASE;
use crate::plane::Plane;
use crate::store::StoreError;

/// Two renewals in a row may fail before a lease is over.
const RENEW_EVERY: Duration = Duration::from_secs(20);
const _: () = assert!(3 * RENEW_EVERY.as_secs() <= LEASE.as_secs());
/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Leases renewed in one call: some hundred kilobytes, which every gateway before a store lets through.
const AT_ONCE_MAX: usize = 5_000;

pub(super) async fn run(plane: &Arc<Plane>) {
    let shutdown = plane.tasks.cancelled();
    let mut wait = RENEW_EVERY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        wait = match renew(plane).await {
            Ok(()) => RENEW_EVERY,
            Err(failure) => {
                warn!(error = &failure as &dyn std::error::Error, "leases of viewers are not renewed yet");
                RETRY_AFTER
            }
        };
    }
}

async fn renew(plane: &Arc<Plane>) -> Result<(), StoreError> {
    for held in plane.leases.held().chunks(AT_ONCE_MAX) {
        let kept: HashSet<_> = plane.store.renew_viewers(held.to_vec(), LEASE).await?.into_iter().collect();
        for replaced in held.iter().filter(|id| !kept.contains(*id)) {
            plane.leases.replaced(*replaced);
        }
    }
    Ok(())
}
