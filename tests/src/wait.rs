//! Waiting for facts: never for time alone, never without a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a fact may take on a loaded two-core machine before it counts as missing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `fact` gives something.
///
/// # Panics
/// After [`PATIENCE`], naming what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, mut fact: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The result of `future`, which must come within [`PATIENCE`].
///
/// # Panics
/// If it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
