//! Pauses between attempts: short at first, then longer, never two programs in step.

use std::time::Duration;

/// The first pause, before jitter.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, before jitter: a person waits for it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A series of pauses.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: PAUSE_MIN }
    }
}

impl Backoff {
    /// The next pause: between half and the whole of a length that doubles each time.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let length = self.next;
        self.next = PAUSE_MAX.min(length * 2);
        // The end of a UUIDv7 is random; that is all jitter needs.
        let noise = uuid::Uuid::now_v7().as_bytes()[15];
        length.mul_f64(0.5 + f64::from(noise) / 512.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..8).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] >= PAUSE_MIN / 2 && pauses[0] <= PAUSE_MIN, "{pauses:?}");
        assert!(pauses[7] >= PAUSE_MAX / 2 && pauses[7] <= PAUSE_MAX, "{pauses:?}");
    }
}
