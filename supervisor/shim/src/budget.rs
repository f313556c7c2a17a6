//! The one back-pressure a program sees: how much CPU time of the host its output may cost.
//!
//! While the budget lasts, output is read as fast as it comes. Once it is spent, reading pauses until some has come back: the program blocks on
//! its terminal, as it would on a slow one, and nothing is lost.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// CPU time that comes back per second of real time: with what the supervisor adds while a viewer reads, a quarter of a core.
const REFILL: f64 = 0.2;
/// CPU time that can be saved up: bursts of some 100 MB pass unhindered.
const BURST: Duration = Duration::from_secs(3);
/// After the budget is spent, reading goes on once this much is back: pauses of some tens of milliseconds, not thousands of tiny ones.
const RESUME: Duration = Duration::from_millis(10);

/// Tells when to pause.
#[derive(Debug)]
pub(crate) struct CpuBudget {
    left: f64,
    used: Duration,
    at: Instant,
}

impl CpuBudget {
    pub(crate) fn new() -> Self {
        Self { left: BURST.as_secs_f64(), used: process_time(), at: Instant::now() }
    }

    /// How long to stop reading now; none if there is budget left.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        self.settle(process_time(), Instant::now())
    }

    fn settle(&mut self, used: Duration, now: Instant) -> Option<Duration> {
        let refill = now.duration_since(self.at).as_secs_f64() * REFILL;
        let spent = used.saturating_sub(self.used).as_secs_f64();
        self.left = (self.left + refill - spent).min(BURST.as_secs_f64());
        (self.used, self.at) = (used, now);
        (self.left < 0.0).then(|| Duration::from_secs_f64((RESUME.as_secs_f64() - self.left) / REFILL))
    }
}

fn process_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_settles_below_a_quarter_of_a_core() {
        let start = Instant::now();
        let mut budget = CpuBudget { left: BURST.as_secs_f64(), used: Duration::ZERO, at: start };
        let (mut used, mut real) = (Duration::ZERO, Duration::ZERO);
        // A program that could use a whole core, for a minute.
        while real < Duration::from_secs(60) {
            used += Duration::from_millis(1);
            real += Duration::from_millis(1);
            real += budget.settle(used, start + real).unwrap_or_default();
        }
        let share = (used.as_secs_f64() - BURST.as_secs_f64()) / real.as_secs_f64();
        assert!((0.19..0.21).contains(&share), "{share}");
    }
}
