//! What was decided, until the supervisor has stored it; and the record that each connection writes at its end.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{EventId, SessionId};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::refusal::Refusal;

/// Decisions that nobody has acknowledged, some 400 bytes each: a supervisor may be away for some thousand connections.
/// Overflow: the oldest of the session that has the most is dropped and counted, and the supervisor is told the count. So a session that floods this
/// loses its own.
const UNACKNOWLEDGED_MAX: usize = 8192;
/// Characters kept of what a client asked for.
const HOST_CHARS_MAX: usize = 255;

#[derive(Debug, Default)]
struct Queue {
    kept: VecDeque<(u64, EgressDecision)>,
    /// How many of them each session has.
    counts: HashMap<SessionId, usize>,
    dropped: u64,
}

impl Queue {
    /// Drops one. The front is near what is dropped: whoever has the most has it everywhere.
    fn evict(&mut self) {
        let Some(session) = self.counts.iter().max_by_key(|(_, count)| **count).map(|(session, _)| *session) else {
            return;
        };
        if let Some(at) = self.kept.iter().position(|(_, decision)| decision.session == session) {
            self.remove(at);
            self.dropped += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let Some((_, decision)) = self.kept.remove(at) else { return };
        if let Entry::Occupied(mut count) = self.counts.entry(decision.session) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Decisions {
    queue: Mutex<Queue>,
    /// Number of the newest decision; changed only under the queue's lock, which nobody takes while they look at this.
    newest: watch::Sender<u64>,
}

impl Default for Decisions {
    fn default() -> Self {
        Self { queue: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Decisions {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, decision: EgressDecision) {
        let mut queue = self.lock();
        // Under the queue's lock, so that the number only rises.
        let seq = *self.newest.borrow() + 1;
        *queue.counts.entry(decision.session).or_default() += 1;
        queue.kept.push_back((seq, decision));
        if queue.kept.len() > UNACKNOWLEDGED_MAX {
            queue.evict();
        }
        self.newest.send_replace(seq);
    }

    /// The oldest decision after `seq`.
    pub(crate) fn after(&self, seq: u64) -> Option<(u64, EgressDecision)> {
        let queue = self.lock();
        let at = queue.kept.partition_point(|(number, _)| *number <= seq);
        queue.kept.get(at).cloned()
    }

    /// Number of the newest; changes wake whoever sends them.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Forgets what is stored.
    pub(crate) fn acknowledged(&self, seq: u64) {
        let mut queue = self.lock();
        while queue.kept.front().is_some_and(|(number, _)| *number <= seq) {
            queue.remove(0);
        }
        drop(queue);
        // Whoever waits for an empty queue looks again.
        self.newest.send_modify(|_| {});
    }

    /// How many were dropped of which nobody was told.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The supervisor was told of so many.
    pub(crate) fn told_dropped(&self, count: u64) {
        let mut queue = self.lock();
        queue.dropped = queue.dropped.saturating_sub(count);
    }

    /// Whether everything is stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().kept.is_empty()
    }
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From the session.
    pub(crate) up: AtomicU64,
    /// To the session.
    pub(crate) down: AtomicU64,
}

/// The record of one connection. It is written when this is dropped, however the connection ends: by its end, its failure, or the session's.
#[derive(Debug)]
pub(crate) struct Record {
    decision: Option<EgressDecision>,
    started: Instant,
    /// What it moved.
    pub(crate) traffic: Arc<Traffic>,
    decisions: Arc<Decisions>,
}

impl Record {
    /// Begins a record; until something else is said, what was asked for failed.
    pub(crate) fn begin(decisions: &Arc<Decisions>, session: SessionId, spawn: u32, host: &str, port: u16) -> Self {
        let decision = EgressDecision {
            id: EventId::generate(),
            session,
            spawn,
            at: OffsetDateTime::now_utc(),
            host: host.chars().flat_map(printable).take(HOST_CHARS_MAX).collect(),
            port,
            address: None,
            verdict: EgressVerdict::Failed,
            rule: Refusal::Unreachable.word(),
            bytes_up: 0,
            bytes_down: 0,
            duration_ms: 0,
            times: 1,
        };
        Self {
            decision: Some(decision),
            started: Instant::now(),
            traffic: Arc::default(),
            decisions: Arc::clone(decisions),
        }
    }

    /// What was decided.
    pub(crate) fn decide(&mut self, verdict: EgressVerdict, rule: String) {
        if let Some(decision) = &mut self.decision {
            decision.verdict = verdict;
            decision.rule = rule;
        }
    }

    /// It is refused.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        self.decide(refusal.verdict(), refusal.word());
    }

    /// Where it was connected to.
    pub(crate) fn connected_to(&mut self, address: SocketAddr) {
        if let Some(decision) = &mut self.decision {
            decision.address = Some(address.ip().to_string());
        }
    }

    /// Nothing is written for this one.
    pub(crate) fn forget(mut self) {
        self.decision = None;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(mut decision) = self.decision.take() else { return };
        decision.bytes_up = self.traffic.up.load(Ordering::Relaxed);
        decision.bytes_down = self.traffic.down.load(Ordering::Relaxed);
        decision.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.decisions.push(decision);
    }
}

/// A character as it may be shown: one that would move the cursor, or turn the order of the others, is written as its escape.
fn printable(c: char) -> impl Iterator<Item = char> {
    let hidden = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let (shown, escaped) = if hidden { (None, Some(c.escape_default())) } else { (Some(c), None) };
    shown.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_kept_until_acknowledged_and_the_oldest_are_dropped() {
        let decisions = Arc::new(Decisions::default());
        let session = SessionId::generate();
        let record = |host: &str| Record::begin(&decisions, session, 1, host, 443);
        let mut first = record("a.com");
        first.decide(EgressVerdict::Allowed, "a.com".to_owned());
        first.traffic.up.store(7, Ordering::Relaxed);
        first.connected_to("192.0.2.1:443".parse().unwrap());
        drop(first);
        record("forgotten.com").forget();
        drop(record(&"ü".repeat(300)));
        let (seq, decision) = decisions.after(0).unwrap();
        assert_eq!((seq, decision.bytes_up, decision.address.as_deref()), (1, 7, Some("192.0.2.1")));
        let (seq, decision) = decisions.after(1).unwrap();
        assert_eq!((seq, decision.verdict, decision.host.chars().count()), (2, EgressVerdict::Failed, 255));
        assert!(decisions.after(2).is_none() && !decisions.is_empty());
        decisions.acknowledged(1);
        assert_eq!(decisions.after(0).unwrap().0, 2);
        decisions.acknowledged(2);
        assert!(decisions.is_empty());
        for _ in 0..UNACKNOWLEDGED_MAX + 3 {
            drop(record("b.com"));
        }
        assert_eq!(decisions.after(0).unwrap().0, 2 + 3 + 1);
        assert_eq!(decisions.dropped(), 3);
        decisions.told_dropped(2);
        assert_eq!(decisions.dropped(), 1);
        assert_eq!(*decisions.newest().borrow(), 2 + 3 + UNACKNOWLEDGED_MAX as u64);
    }

    #[test]
    fn a_session_that_floods_the_queue_loses_its_own() {
        let decisions = Arc::new(Decisions::default());
        let (quiet, loud) = (SessionId::generate(), SessionId::generate());
        let record = |session| drop(Record::begin(&decisions, session, 1, "a.com", 443));
        record(quiet);
        for _ in 0..2 * UNACKNOWLEDGED_MAX {
            record(loud);
        }
        record(quiet);
        let (first, decision) = decisions.after(0).unwrap();
        assert_eq!((first, decision.session), (1, quiet));
        assert_eq!(decisions.dropped(), UNACKNOWLEDGED_MAX as u64 + 2);
        let newest = *decisions.newest().borrow();
        decisions.acknowledged(newest);
        assert!(decisions.is_empty() && decisions.lock().counts.is_empty());
    }

    #[test]
    fn a_host_in_a_record_moves_no_cursor() {
        let decisions = Arc::new(Decisions::default());
        drop(Record::begin(&decisions, SessionId::generate(), 1, "a\x1b[2J\n\u{202e}ü", 443));
        assert_eq!(decisions.after(0).unwrap().1.host, "a\\u{1b}[2J\\n\\u{202e}ü");
    }
}
