//! How many requests callers may make: by credential, by person and by organisation, each a bucket that fills evenly and holds a minute's worth.
//! Whoever is not known yet is held by where they come from, and guesses at a password by whose it would be. Credentials that are nobody's are
//! counted by where they come from as well, before the store is asked about more of them.
//!
//! Kept in memory, so a replica knows only what it served itself: each of several takes its share of the whole. What somebody typed into a
//! terminal is no request; opening the terminal is one.

mod guesses;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentapi_shared::{OrgId, UserId};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

pub use guesses::{Question, Shown, Unasked};

use guesses::Guesses;

/// What a bucket holds is filled again within this time.
pub const WINDOW: Duration = Duration::from_secs(60);

/// After so many requests, buckets that are full again are forgotten: they say what a new one says.
const REQUESTS_BETWEEN_SWEEPS: u32 = 10_000;

/// Buckets of what anybody may make any number of: networks, and addresses of accounts. Overflow: two share a bucket. Which ones is decided by a
/// secret of this process, so nobody finds out who shares theirs; of a thousand that are busy at once, one in a hundred has somebody beside them.
const SLOTS: u64 = 1 << 17;

/// Bits of an IPv6 address that are a network's: a line to the internet gets so many, and any number of addresses below.
const NETWORK_BITS_V6: u32 = 64;

/// Guesses at one account are bounded wherever they come from, and yet whoever guesses from one network cannot keep out who logs in from another.
const NETWORKS_OF_AN_ACCOUNT: u32 = 10;

/// Requests a minute, over all replicas; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one token, API key or browser login.
    pub key: u32,
    /// Of one person, by whatever they use.
    pub user: u32,
    /// Of one organisation.
    pub organization: u32,
    /// Of everybody at one address who is not known yet, or in no organisation.
    pub address: u32,
    /// Credentials from one network that are nobody's.
    pub failures: u32,
    /// Logins with the password of one account from one network; from all of them [`NETWORKS_OF_AN_ACCOUNT`] times as many.
    pub account: u32,
    /// Control planes that share the load.
    pub replicas: NonZeroU32,
}

impl Rates {
    /// Far above what a person or a program that waits for events does, far below what harms others.
    /// Whoever logs in does so a few times an hour; an office behind one address is some hundred people. A program with a wrong credential counts
    /// twelve times a minute, so a handful of them keep nobody out who comes to the same office for the first time.
    pub const DEFAULT: Self = Self {
        key: 3_000,
        user: 6_000,
        organization: 30_000,
        address: 300,
        failures: 120,
        account: 20,
        replicas: NonZeroU32::MIN,
    };
}

type Buckets<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// One of the limits, by the word that headers have for it.
struct Limit<K: Clone + Eq + std::hash::Hash> {
    name: &'static str,
    quota: NonZeroU32,
    buckets: Buckets<K>,
}

/// How things stand with the limit that is nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub name: &'static str,
    /// Requests that are left at once.
    pub remaining: u32,
    /// Seconds until the bucket is full again.
    pub reset_s: u64,
}

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of this {name}: {quota} a minute")]
pub struct Exceeded {
    /// Which.
    pub name: &'static str,
    /// What may be made in a minute.
    pub quota: u32,
    /// Seconds until there is room for one, at least 1.
    pub retry_s: u64,
}

/// What one of several replicas allows; none: no limit. Rounded up, since a small limit over many replicas must not be none.
fn share(a_minute: u32, replicas: NonZeroU32) -> Option<NonZeroU32> {
    NonZeroU32::new(a_minute.div_ceil(replicas.get()))
}

impl<K: Clone + Eq + std::hash::Hash> Limit<K> {
    fn new(name: &'static str, a_minute: u32, replicas: NonZeroU32) -> Option<Self> {
        let quota = share(a_minute, replicas)?;
        let buckets = RateLimiter::keyed(Quota::with_period(WINDOW / quota.get())?.allow_burst(quota));
        Some(Self { name, quota, buckets: buckets.with_middleware() })
    }

    fn take(&self, key: &K) -> Result<Standing, Exceeded> {
        let quota = self.quota.get();
        match self.buckets.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = u64::from(quota.saturating_sub(remaining));
                let reset_s = (missing * WINDOW.as_secs()).div_ceil(u64::from(quota));
                Ok(Standing { name: self.name, remaining, reset_s })
            }
            Err(full) => {
                let wait = full.wait_time_from(DefaultClock::default().now());
                Err(Exceeded { name: self.name, quota, retry_s: wait.as_secs() + 1 })
            }
        }
    }
}

/// See the module.
pub struct Limits {
    key: Option<Limit<String>>,
    user: Option<Limit<UserId>>,
    organization: Option<Limit<OrgId>>,
    address: Option<Limit<u64>>,
    failures: Option<Guesses>,
    account: Option<Limit<u64>>,
    account_anywhere: Option<Limit<u64>>,
    slots: RandomState,
    /// As the header has it.
    policy: String,
    requests: AtomicU32,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Limits {
    /// Nobody has made a request yet.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        let key = Limit::new("key", rates.key, rates.replicas);
        let user = Limit::new("user", rates.user, rates.replicas);
        let organization = Limit::new("organization", rates.organization, rates.replicas);
        let address = Limit::new("address", rates.address, rates.replicas);
        let failures = share(rates.failures, rates.replicas).map(Guesses::new);
        let account = Limit::new("account", rates.account, rates.replicas);
        let anywhere = rates.account.saturating_mul(NETWORKS_OF_AN_ACCOUNT);
        let account_anywhere = Limit::new("account-anywhere", anywhere, rates.replicas);
        let told = [
            key.as_ref().map(|limit| (limit.name, limit.quota)),
            user.as_ref().map(|limit| (limit.name, limit.quota)),
            organization.as_ref().map(|limit| (limit.name, limit.quota)),
            address.as_ref().map(|limit| (limit.name, limit.quota)),
            failures.as_ref().map(|limit| ("failures", limit.quota())),
            account.as_ref().map(|limit| (limit.name, limit.quota)),
            account_anywhere.as_ref().map(|limit| (limit.name, limit.quota)),
        ];
        let told = told.into_iter().flatten();
        let policy: Vec<String> =
            told.map(|(name, quota)| format!("\"{name}\";q={quota};w={}", WINDOW.as_secs())).collect();
        let (policy, slots, requests) = (policy.join(", "), RandomState::new(), AtomicU32::new(0));
        Self { key, user, organization, address, failures, account, account_anywhere, slots, policy, requests }
    }

    /// What may be made, as `RateLimit-Policy` has it; empty if there is no limit.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Counts a request of a caller, and says how things stand with the nearest limit; none if there is no limit.
    pub fn take(&self, key: &str, user: UserId) -> Result<Option<Standing>, Exceeded> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % REQUESTS_BETWEEN_SWEEPS == REQUESTS_BETWEEN_SWEEPS - 1 {
            self.sweep();
        }
        // The narrowest first: what it refuses does not count for the others.
        let standings = [
            self.key.as_ref().map(|limit| limit.take(&key.to_owned())).transpose()?,
            self.user.as_ref().map(|limit| limit.take(&user)).transpose()?,
        ];
        Ok(standings.into_iter().flatten().min_by_key(|standing| standing.remaining))
    }

    /// Counts it for the organisation that it is in, once that is known.
    pub fn take_within(&self, organization: OrgId) -> Result<Option<Standing>, Exceeded> {
        self.organization.as_ref().map(|limit| limit.take(&organization)).transpose()
    }

    /// Counts a request of somebody who is not known, by the network that it comes from.
    pub fn take_address(&self, from: IpAddr) -> Result<Option<Standing>, Exceeded> {
        let slot = self.slot(&network(from));
        self.address.as_ref().map(|limit| limit.take(&slot)).transpose()
    }

    /// Lets the store be asked about a credential, unless it was wrong a moment ago, or too many were that came from the same network.
    pub fn ask(&self, shown: Shown, hash: &str, from: IpAddr) -> Result<Question<'_>, Unasked> {
        self.failures.as_ref().map_or(Ok(Question::free()), |guesses| guesses.ask(shown, hash, from))
    }

    /// Counts an attempt to log in with the password of an account, whoever makes it.
    pub fn take_account(&self, email: &str, from: IpAddr) -> Result<Option<Standing>, Exceeded> {
        let email = email.to_lowercase();
        let here = self.slot(&(&email, network(from)));
        // What is refused here does not count for the others.
        let standing = self.account.as_ref().map(|limit| limit.take(&here)).transpose()?;
        let anywhere = self.slot(&email);
        self.account_anywhere.as_ref().map(|limit| limit.take(&anywhere)).transpose()?;
        Ok(standing)
    }

    fn slot(&self, of: &impl std::hash::Hash) -> u64 {
        self.slots.hash_one(of) % SLOTS
    }

    fn sweep(&self) {
        fn forget<K: Clone + Eq + std::hash::Hash>(limit: Option<&Limit<K>>) {
            if let Some(limit) = limit {
                limit.buckets.retain_recent();
                limit.buckets.shrink_to_fit();
            }
        }
        forget(self.key.as_ref());
        forget(self.user.as_ref());
        forget(self.organization.as_ref());
    }
}

/// The part of an address that is somebody's: all of it, of IPv6 the network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host_bits = u128::BITS - NETWORK_BITS_V6;
            IpAddr::V6((u128::from(address) >> host_bits << host_bits).into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests;
