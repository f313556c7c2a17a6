//! Waiting for facts: never for time alone, never without a deadline.

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a fact may take on a loaded two-core machine before it counts as missing.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How many times slower than such a machine the one of this run is: 1 unless it says so, as emulated ones do. The one place for all tests.
pub const SLOWNESS: &str = "AGENTAPI_TEST_SLOWNESS";

/// See [`SLOWNESS`].
///
/// # Panics
/// If the variable is no number.
#[must_use]
#[expect(clippy::expect_used, reason = "a run that was told nonsense shows nothing")]
pub fn slowness() -> u32 {
    static TOLD: LazyLock<u32> = LazyLock::new(|| {
        std::env::var(SLOWNESS).map_or(1, |text| text.parse().expect("AGENTAPI_TEST_SLOWNESS is a whole number"))
    });
    *TOLD
}

/// A time that is right for a usual machine, on this one.
#[must_use]
pub fn here(usual: Duration) -> Duration {
    usual * slowness()
}

/// Waits until `fact` gives something.
///
/// # Panics
/// After [`PATIENCE`] on [this machine](here), naming what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, mut fact: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let patience = here(PATIENCE);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The result of `future`, which must come within [`PATIENCE`] on [this machine](here).
///
/// # Panics
/// If it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patience = here(PATIENCE);
    match tokio::time::timeout(patience, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {patience:?}: {what}"),
    }
}
