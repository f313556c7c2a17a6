//! Gives records their place in the chain, soon after they are written and not while nothing is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::store::{SEALED_MIN, Store, StoreError};

/// Records that come together are sealed together.
const GATHER: Duration = Duration::from_millis(100);

/// A second look after a burst: another process may have been sealing when this one found nothing to do, and in a database with several writers
/// a record may be seen after a later one.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// A store that does not answer is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Records sealed in one call; a store may do fewer.
const BATCH_MAX: u32 = 2_000;

/// A record waits for one that came just before it, and not longer than a second.
const _: () = assert!(GATHER.as_millis() + SECOND_LOOK.as_millis() < 1000);

/// Seals until the group ends, and says how many it sealed so far. What was written before the start is sealed first.
pub(super) async fn run(store: Arc<dyn Store>, sealed: watch::Sender<u64>, end: CancellationToken) {
    let seal = async || {
        let count = seal_all(&*store).await?;
        sealed.send_if_modified(|known| {
            *known += count;
            count > 0
        });
        Ok::<(), StoreError>(())
    };
    let mut written = store.audit_written();
    loop {
        let round = async {
            seal().await?;
            tokio::time::sleep(SECOND_LOOK).await;
            seal().await
        };
        let wait = async {
            match round.await {
                // An error would mean that the store is gone, and this process with it.
                Ok(()) => written.changed().await.map_or((), |()| ()),
                Err(failure) => {
                    warn!(error = &failure as &dyn std::error::Error, "audit records are not sealed yet; tried again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = wait => {}
            () = end.cancelled() => return,
        }
    }
}

/// Seals what is there; gives how many.
pub async fn seal_all(store: &dyn Store) -> Result<u64, StoreError> {
    let mut all = 0;
    loop {
        let count = store.seal_audit(BATCH_MAX).await?;
        all += count;
        // What comes just now waits for the next look: to ask again at once, as long as records come, would be a call for every few of them.
        if count < SEALED_MIN {
            return Ok(all);
        }
    }
}
