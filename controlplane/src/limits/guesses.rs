//! Credentials that are nobody's, by the network that shows them: each costs the store a question, and whoever shows one is not known, so nothing
//! else holds them.
//!
//! Only what turns out to be wrong is counted. A network that has had its share is asked about nothing new; what was good once goes on, whoever
//! else is behind the same address. A program that shows one wrong credential again and again is answered from memory and counts once in a while,
//! so that it keeps nobody out.
//!
//! Where hosts come, what is wrong is counted apart: behind one address with strangers, as behind a proxy that does not say where clients are, hosts
//! come back from a restart whatever is guessed at the API.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Exceeded, SLOTS, WINDOW, network};

/// What was wrong is taken to be wrong for this long: a person who is let in again gets in after it.
const WRONG: Duration = Duration::from_secs(5);
/// Wrong credentials that are remembered, a few hundred kilobytes. Overflow: all are forgotten, and asked about when they are shown.
const WRONG_MAX: usize = 10_000;
/// Credentials that were good, in each of two generations of some hundred kilobytes. Overflow: the older generation is forgotten, so that what is
/// in use stays known.
const GOOD_MAX: usize = 50_000;

/// As what a credential is shown: the same text as something else is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// A bearer, of a person or a program.
    Token,
    /// A browser's login.
    Cookie,
    /// A bearer, where hosts alone come.
    Host,
}

/// Why the store is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// It was wrong a moment ago.
    Wrong,
    /// The network showed too many that were wrong.
    Exceeded(Exceeded),
}

/// See the module.
pub(super) struct Guesses {
    quota: NonZeroU32,
    /// After this long there is room for one more.
    between: Duration,
    keys: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a network will have all of its share again.
    rested: HashMap<u64, Instant>,
    wrong: HashMap<u64, Instant>,
    good: HashSet<u64>,
    good_before: HashSet<u64>,
}

/// The store is being asked about a credential. Dropped without an answer, by a client that went away, it counts as wrong: it was a question.
pub struct Question<'a>(Option<Asked<'a>>);

struct Asked<'a> {
    guesses: &'a Guesses,
    credential: u64,
    network: u64,
    /// It was not known to be good, so it has been counted.
    is_counted: bool,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question(..)")
    }
}

impl Guesses {
    pub(super) fn new(quota: NonZeroU32) -> Self {
        Self { quota, between: WINDOW / quota.get(), keys: RandomState::new(), state: Mutex::default() }
    }

    pub(super) fn quota(&self) -> NonZeroU32 {
        self.quota
    }

    pub(super) fn ask(&self, shown: Shown, hash: &str, from: IpAddr) -> Result<Question<'_>, Unasked> {
        let credential = self.keys.hash_one((shown, hash));
        let network = self.keys.hash_one((shown == Shown::Host, network(from))) % SLOTS;
        let now = Instant::now();
        let mut state = self.lock();
        let is_good = state.is_good(credential);
        if !is_good {
            if state.wrong.get(&credential).is_some_and(|since| now.duration_since(*since) < WRONG) {
                return Err(Unasked::Wrong);
            }
            // Before the answer is there: questions at the same time are counted too.
            let rested = state.rested_after(network, now, self.between);
            let wait = rested.saturating_duration_since(now).saturating_sub(WINDOW);
            if !wait.is_zero() {
                let quota = self.quota.get();
                return Err(Unasked::Exceeded(Exceeded { name: "failures", quota, retry_s: wait.as_secs() + 1 }));
            }
            state.rested.insert(network, rested);
        }
        Ok(Question(Some(Asked { guesses: self, credential, network, is_counted: !is_good })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Maps stay meaningful whatever a panicking holder did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rested_after(&self, network: u64, now: Instant, between: Duration) -> Instant {
        self.rested.get(&network).map_or(now, |at| (*at).max(now)) + between
    }

    fn is_good(&mut self, credential: u64) -> bool {
        if self.good_before.remove(&credential) {
            self.keep(credential);
        }
        self.good.contains(&credential)
    }

    fn keep(&mut self, credential: u64) {
        if self.good.len() >= GOOD_MAX {
            self.good_before = std::mem::take(&mut self.good);
        }
        self.good.insert(credential);
    }
}

impl Question<'_> {
    /// One that nothing is counted of.
    #[must_use]
    pub fn free() -> Self {
        Self(None)
    }

    /// It is somebody's.
    pub fn good(self) {
        let Some(asked) = self.0 else { return };
        let mut state = asked.guesses.lock();
        asked.give_back(&mut state);
        state.wrong.remove(&asked.credential);
        state.keep(asked.credential);
    }

    /// It is nobody's, or no longer.
    pub fn wrong(self) {
        let Some(asked) = self.0 else { return };
        let now = Instant::now();
        let mut state = asked.guesses.lock();
        state.good.remove(&asked.credential);
        if !asked.is_counted {
            let rested = state.rested_after(asked.network, now, asked.guesses.between);
            state.rested.insert(asked.network, rested);
        }
        if state.wrong.len() >= WRONG_MAX {
            state.wrong.clear();
        }
        state.wrong.insert(asked.credential, now);
    }

    /// The store did not say.
    pub fn unanswered(self) {
        if let Some(asked) = self.0 {
            asked.give_back(&mut asked.guesses.lock());
        }
    }
}

impl Asked<'_> {
    fn give_back(&self, state: &mut State) {
        if self.is_counted
            && let Some(rested) = state.rested.get_mut(&self.network)
        {
            *rested = rested.checked_sub(self.guesses.between).unwrap_or(*rested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: u32 = 3;

    fn guesses() -> Guesses {
        Guesses::new(NonZeroU32::new(QUOTA).unwrap())
    }

    fn from(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    fn ask<'a>(guesses: &'a Guesses, hash: &str, from: IpAddr) -> Result<Question<'a>, Unasked> {
        guesses.ask(Shown::Token, hash, from)
    }

    fn spend(guesses: &Guesses) {
        for number in 0..QUOTA {
            ask(guesses, &format!("guess {number}"), from(1)).unwrap().wrong();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_counts_and_what_is_good_does_not() {
        let guesses = guesses();
        for number in 0..10 * QUOTA {
            ask(&guesses, &format!("good {number}"), from(1)).unwrap().good();
            ask(&guesses, &format!("unknown {number}"), from(1)).unwrap().unanswered();
        }
        spend(&guesses);
        let refused = ask(&guesses, "another", from(1)).unwrap_err();
        assert_eq!(refused, Unasked::Exceeded(Exceeded { name: "failures", quota: QUOTA, retry_s: 21 }));
        // What was good goes on, and so does everybody elsewhere.
        ask(&guesses, "good 7", from(1)).unwrap().good();
        ask(&guesses, "another", from(2)).unwrap().good();
        ask(&guesses, "another", from(1)).unwrap().good();
        tokio::time::advance(WINDOW / QUOTA).await;
        ask(&guesses, "one more", from(1)).unwrap().wrong();
        assert!(matches!(ask(&guesses, "too many", from(1)), Err(Unasked::Exceeded(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_shown_again_and_again_is_asked_about_once_in_a_while() {
        let guesses = guesses();
        for _ in 0..20 {
            ask(&guesses, "stale", from(1)).unwrap().wrong();
            assert_eq!(ask(&guesses, "stale", from(1)).unwrap_err(), Unasked::Wrong);
            // Elsewhere as well.
            assert_eq!(ask(&guesses, "stale", from(2)).unwrap_err(), Unasked::Wrong);
            tokio::time::advance(WINDOW / QUOTA).await;
        }
        guesses.ask(Shown::Cookie, "stale", from(2)).unwrap().good();
        // It may have become good: somebody was let in again.
        ask(&guesses, "stale", from(1)).unwrap().good();
        ask(&guesses, "stale", from(1)).unwrap().good();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_good_and_is_not_any_more_is_like_any_other() {
        let guesses = guesses();
        ask(&guesses, "revoked", from(1)).unwrap().good();
        ask(&guesses, "revoked", from(1)).unwrap().wrong();
        assert_eq!(ask(&guesses, "revoked", from(1)).unwrap_err(), Unasked::Wrong);
        for number in 1..QUOTA {
            ask(&guesses, &format!("guess {number}"), from(1)).unwrap().wrong();
        }
        assert!(matches!(ask(&guesses, "too many", from(1)), Err(Unasked::Exceeded(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_elsewhere_keep_no_host_out_of_the_same_network() {
        let guesses = guesses();
        spend(&guesses);
        assert!(matches!(guesses.ask(Shown::Cookie, "too many", from(1)), Err(Unasked::Exceeded(_))));
        for number in 0..QUOTA {
            guesses.ask(Shown::Host, &format!("host {number}"), from(1)).unwrap().wrong();
        }
        assert!(matches!(guesses.ask(Shown::Host, "too many", from(1)), Err(Unasked::Exceeded(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_at_once_and_clients_that_go_away_are_counted() {
        let guesses = guesses();
        let asked: Vec<_> =
            (0..QUOTA).map(|number| ask(&guesses, &format!("at once {number}"), from(1)).unwrap()).collect();
        assert!(matches!(ask(&guesses, "one more", from(1)), Err(Unasked::Exceeded(_))));
        drop(asked);
        assert!(matches!(ask(&guesses, "one more", from(1)), Err(Unasked::Exceeded(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_use_stays_known_however_many_are_good() {
        let guesses = guesses();
        ask(&guesses, "ours", from(1)).unwrap().good();
        for number in 0..3 * GOOD_MAX {
            ask(&guesses, &format!("good {number}"), from(2)).unwrap().good();
            if number % (GOOD_MAX / 2) == 0 {
                ask(&guesses, "ours", from(2)).unwrap().good();
            }
        }
        spend(&guesses);
        ask(&guesses, "ours", from(1)).unwrap().good();
        let state = guesses.lock();
        assert!(state.good.len() <= GOOD_MAX && state.good_before.len() <= GOOD_MAX);
    }
}
