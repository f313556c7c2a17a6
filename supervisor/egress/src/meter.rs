//! The caps of one session, over all its connections: how many, how often, how fast, how much.
//!
//! Bytes are counted after they moved, and whoever moves them waits before the next: the rate holds over time, and in one moment it is passed by no
//! more than a chunk per open connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::egress::EgressLimits;
use tokio::time::{Instant, sleep};

use crate::refusal::Refusal;

/// Moved at once where no rate is set: what a pipe holds.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// Moved at once at the slowest rate: one packet's worth, so that even that makes sense.
const CHUNK_BYTES_MIN: usize = 1500;
/// With a rate, a chunk is this part of a second's worth, so that several connections share it evenly.
const CHUNKS_PER_SECOND: u64 = 20;
/// A minute, for `connections_per_minute`.
const MINUTE_SECONDS: f64 = 60.0;
/// Connections beyond the cap that are answered with the reason. Overflow: the connection is closed without a word.
const REFUSED_AT_ONCE: u32 = 8;
/// Refusals of one [`Rare`] kind are recorded at most this often, so that a flood of connections is no flood of records.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// Refusals that cost a session nothing, and of which the first says it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rare {
    /// For a cap.
    Cap,
    /// For a request that is not understood.
    Malformed,
}

#[derive(Debug)]
struct State {
    limits: EgressLimits,
    /// Bytes that may move now; below zero is debt.
    bytes: f64,
    /// Connections that may come now.
    connections: f64,
    filled: Instant,
    used: u64,
    recorded_cap: Option<Instant>,
    recorded_malformed: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Meter {
    state: Mutex<State>,
    open: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
}

/// One open connection; ends with its drop.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicU32>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    pub(crate) fn new(limits: EgressLimits) -> Self {
        let state = State {
            limits,
            bytes: rate(&limits),
            connections: f64::from(limits.connections_per_minute),
            filled: Instant::now(),
            used: 0,
            recorded_cap: None,
            recorded_malformed: None,
        };
        Self { state: Mutex::new(state), open: Arc::default(), refused: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these limits hold; what was used stays used.
    pub(crate) fn set_limits(&self, limits: EgressLimits) {
        self.lock().limits = limits;
    }

    /// One more open connection.
    pub(crate) fn open(&self) -> Result<Permit, Refusal> {
        let max = self.lock().limits.connections_max;
        take(&self.open, max).ok_or(Refusal::ConnectionsMax)
    }

    /// One more connection that is only told that it is one too many.
    pub(crate) fn open_to_refuse(&self) -> Option<Permit> {
        take(&self.refused, REFUSED_AT_ONCE)
    }

    /// One more connection with its first request, or one more request, in this minute.
    pub(crate) fn count_one(&self) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.refill();
        if state.exhausted() {
            return Err(Refusal::BytesMax);
        }
        if state.connections < 1.0 {
            return Err(Refusal::ConnectionsPerMinute);
        }
        state.connections -= 1.0;
        Ok(())
    }

    /// Whether another refusal of this kind is to be recorded.
    pub(crate) fn records_refusal(&self, kind: Rare) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let recorded = match kind {
            Rare::Cap => &mut state.recorded_cap,
            Rare::Malformed => &mut state.recorded_malformed,
        };
        let due = recorded.is_none_or(|last| now.duration_since(last) >= RECORD_INTERVAL);
        if due {
            *recorded = Some(now);
        }
        due
    }

    /// Notes bytes that moved.
    pub(crate) fn charge(&self, bytes: usize) {
        let mut state = self.lock();
        state.used = state.used.saturating_add(bytes as u64);
        if state.limits.bytes_per_second.is_some() {
            state.refill();
            state.bytes -= bytes as f64;
        }
    }

    /// How long to wait before more may move; none: at once.
    pub(crate) fn delay(&self) -> Result<Option<Duration>, Refusal> {
        let mut state = self.lock();
        if state.exhausted() {
            return Err(Refusal::BytesMax);
        }
        if state.limits.bytes_per_second.is_none() {
            return Ok(None);
        }
        state.refill();
        let debt = -state.bytes;
        Ok((debt > 0.0).then(|| Duration::from_secs_f64(debt / rate(&state.limits))))
    }

    /// Waits until more may move; how much at once.
    pub(crate) async fn allow(&self) -> Result<usize, Refusal> {
        while let Some(delay) = self.delay()? {
            sleep(delay).await;
        }
        let state = self.lock();
        let chunk = match state.limits.bytes_per_second {
            None => CHUNK_BYTES,
            Some(rate) => {
                usize::try_from(rate / CHUNKS_PER_SECOND).unwrap_or(CHUNK_BYTES).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES)
            }
        };
        let left = state.limits.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(state.used));
        Ok(chunk.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1))
    }
}

impl State {
    fn refill(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let (rate, connections) = (rate(&self.limits), f64::from(self.limits.connections_per_minute));
        // A burst is one second of bytes, one minute of connections.
        self.bytes = (self.bytes + seconds * rate).min(rate);
        self.connections = (self.connections + seconds * connections / MINUTE_SECONDS).min(connections);
    }

    fn exhausted(&self) -> bool {
        self.limits.bytes_max.is_some_and(|max| self.used >= max)
    }
}

fn take(count: &Arc<AtomicU32>, max: u32) -> Option<Permit> {
    let more = |open| (open < max).then_some(open + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Permit(Arc::clone(count)))
}

fn rate(limits: &EgressLimits) -> f64 {
    // A rate of nothing would wait for ever.
    limits.bytes_per_second.map_or(f64::MAX, |rate| rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: EgressLimits = EgressLimits {
        connections_max: 2,
        connections_per_minute: 60,
        bytes_per_second: Some(10_000),
        bytes_max: Some(100_000),
    };

    #[tokio::test(start_paused = true)]
    async fn bytes_move_at_the_rate_until_none_are_left() {
        let meter = Meter::new(LIMITS);
        let start = Instant::now();
        let mut moved = 0;
        let end = loop {
            match meter.allow().await {
                Ok(chunk) => {
                    meter.charge(chunk);
                    moved += chunk;
                }
                Err(refusal) => break refusal,
            }
        };
        assert_eq!((end, moved), (Refusal::BytesMax, 100_000));
        let seconds = start.elapsed().as_secs_f64();
        // A burst of one second, then the rate.
        assert!((8.5..9.5).contains(&seconds), "{seconds}");
        assert_eq!(meter.count_one(), Err(Refusal::BytesMax));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_capped_at_once_and_by_the_minute() {
        let meter = Meter::new(LIMITS);
        let first = meter.open().unwrap();
        let _second = meter.open().unwrap();
        assert_eq!(meter.open().map(drop), Err(Refusal::ConnectionsMax));
        drop(first);
        assert!(meter.open().is_ok());
        for _ in 0..60 {
            meter.count_one().unwrap();
        }
        assert_eq!(meter.count_one(), Err(Refusal::ConnectionsPerMinute));
        sleep(Duration::from_millis(1001)).await;
        assert_eq!(meter.count_one(), Ok(()));
        assert_eq!(meter.count_one(), Err(Refusal::ConnectionsPerMinute));
        assert!(meter.records_refusal(Rare::Cap) && !meter.records_refusal(Rare::Cap));
        assert!(meter.records_refusal(Rare::Malformed) && !meter.records_refusal(Rare::Malformed));
        sleep(RECORD_INTERVAL).await;
        assert!(meter.records_refusal(Rare::Cap));
        meter.set_limits(EgressLimits { connections_max: 0, ..LIMITS });
        assert_eq!(meter.open().map(drop), Err(Refusal::ConnectionsMax));
    }
}
