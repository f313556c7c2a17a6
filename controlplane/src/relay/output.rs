//! Waiting until there is more output, without seeing any: nobody who waits is a viewer, counts as one, or is recorded as one.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::{SpawnNumber, SpawnState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::feed::AHEAD_BYTES;
use crate::plane::Plane;
use crate::sockets::{Lapse, LiveSocket};
use crate::store::records::SessionRecord;

/// Whoever waits is answered by then, with whatever is there: shorter than the silence that proxies bear, usually a minute.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A host that could not serve the output is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits until a spawn has output beyond an offset, or can have none now: it is over, or not the newest, or its host is away. Bounded. An error is the
/// end of the credential of whoever asks.
pub async fn beyond(
    plane: &Arc<Plane>,
    record: &SessionRecord,
    (spawn, offset): (SpawnNumber, u64),
    credential: &LiveSocket,
) -> Result<(), Lapse> {
    let seat = plane.hubs.join(record, plane.reachable(record));
    let shutdown = plane.tasks.cancelled();
    let mut hub = seat.hub.watch();
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let view = seat.hub.view();
        if view.purged || !view.reachable || view.record.spawn() != spawn || view.record.state().is_ended() {
            return Ok(());
        }
        let link = view.record.host.and_then(|host| plane.fleet.link(host));
        // Asked before its terminal is there, the host could only refuse; that it runs is told.
        let has_begun = !matches!(view.record.state(), SpawnState::Pending | SpawnState::Starting);
        let feed = link.filter(|_| has_begun).map(|link| seat.hub.live(&link, Some(offset)));
        // Watched before it is looked at, so that nothing falls between.
        let mut changes = feed.as_ref().map(|feed| feed.watch());
        let mut retry = None;
        if let Some(feed) = &feed {
            if feed.end().is_some() || (feed.opening().is_some() && feed.head() > offset) {
                return Ok(());
            }
            retry = feed.failure().map(|_| Instant::now() + RETRY_AFTER);
            // Others may have held the host back.
            feed.grant(offset.saturating_add(AHEAD_BYTES));
        }
        tokio::select! {
            // An error would mean that the sender is gone; each is held here.
            _ = hub.changed() => {}
            () = changed(&mut changes), if retry.is_none() => {}
            () = tokio::time::sleep_until(retry.unwrap_or(deadline).min(deadline)) => {
                if retry.is_none() || Instant::now() >= deadline {
                    return Ok(());
                }
            }
            lapse = credential.lapsed() => return Err(lapse),
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    match changes {
        Some(changes) => drop(changes.changed().await),
        None => std::future::pending().await,
    }
}
