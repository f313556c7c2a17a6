//! Counting what repeats: whoever asks a thousand times for what is refused makes two records of it, not a thousand.
//!
//! The first of its kind (who, what, to what) in a minute is to be written at once; the rest of that minute are counted and written as one
//! record when the minute is over. A kill loses such a count at most, never that there was something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use crate::store::Scope;
use crate::store::records::AuditEntry;

/// How long the same is counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Kinds that one actor has in a minute. Overflow: counted together, whatever they are about.
const KINDS_MAX: usize = 64;

/// Actors at once. Overflow: counted as one.
const ACTORS_MAX: usize = 1024;

/// Something that may repeat, with the record of it.
#[derive(Debug, Clone)]
pub(super) struct Occurrence {
    pub(super) actor: String,
    pub(super) action: &'static str,
    pub(super) object: String,
    pub(super) scope: Scope,
    pub(super) entry: AuditEntry,
}

#[derive(Debug)]
struct Tally {
    until: Instant,
    /// Since the first, which is written.
    more: u64,
    since: OffsetDateTime,
    scope: Scope,
    entry: AuditEntry,
}

type Kinds = HashMap<(&'static str, String), Tally>;

/// See the module.
#[derive(Debug)]
pub(super) struct Repeats {
    tallies: Mutex<HashMap<String, Kinds>>,
    /// Whether there is anything to be ended.
    any: watch::Sender<bool>,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { tallies: Mutex::default(), any: watch::Sender::new(false) }
    }
}

impl Repeats {
    /// Counts something that happened `times`. Gives back what is to be written now.
    pub(super) fn count(&self, occurrence: Occurrence, times: u64, backlog: &Backlog) -> Option<(Scope, AuditEntry)> {
        let Occurrence { actor, action, object, scope, entry } = occurrence;
        let mut tallies = self.lock();
        let actor = if tallies.contains_key(&actor) || tallies.len() < ACTORS_MAX { actor } else { "*".to_owned() };
        let kinds = tallies.entry(actor).or_default();
        let kind = (action, object);
        let kind = if kinds.contains_key(&kind) || kinds.len() < KINDS_MAX { kind } else { (action, "*".to_owned()) };
        let now = Instant::now();
        if let Some(tally) = kinds.get_mut(&kind)
            && now < tally.until
        {
            tally.more += times;
            return None;
        }
        let tally = Tally { until: now + WINDOW, more: 0, since: entry.at, scope: scope.clone(), entry: entry.clone() };
        if let Some(before) = kinds.insert(kind, tally) {
            hand_over(&before, backlog);
        }
        // Told before the lock is free: nobody finds it empty meanwhile.
        self.any.send_if_modified(|any| !std::mem::replace(any, true));
        Some((scope, entry))
    }

    /// Takes back the first of a kind, which could not be written: the next one is the first again.
    pub(super) fn forget(&self, actor: &str, action: &'static str, object: &str) {
        if let Some(kinds) = self.lock().get_mut(actor) {
            kinds.remove(&(action, object.to_owned()));
        }
    }

    /// Hands over what was counted in minutes that are over, or everything.
    pub(super) fn end(&self, backlog: &Backlog, everything: bool) {
        let now = Instant::now();
        let mut tallies = self.lock();
        for kinds in tallies.values_mut() {
            kinds.retain(|_, tally| {
                let is_over = everything || now >= tally.until;
                if is_over {
                    hand_over(tally, backlog);
                }
                !is_over
            });
        }
        tallies.retain(|_, kinds| !kinds.is_empty());
        let any = !tallies.is_empty();
        self.any.send_if_modified(|known| std::mem::replace(known, any) != any);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kinds>> {
        // Counters stay meaningful whatever a panicking holder did.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hand_over(tally: &Tally, backlog: &Backlog) {
    if tally.more > 0 {
        backlog.push(tally.scope.clone(), super::counted(&tally.entry, tally.more, tally.since));
    }
}

/// Ends what is over, while there is anything.
pub(super) async fn run(repeats: Arc<Repeats>, backlog: Arc<Backlog>, end: CancellationToken) {
    let mut any = repeats.any.subscribe();
    let work = async {
        while any.wait_for(|any| *any).await.is_ok() {
            tokio::time::sleep(WINDOW / 6).await;
            repeats.end(&backlog, false);
        }
    };
    tokio::select! {
        () = work => {}
        () = end.cancelled() => {}
    }
}
