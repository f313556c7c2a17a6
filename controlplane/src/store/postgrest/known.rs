//! Whose tokens are, for a moment: each request shows one, and to ask the database each time would double what a request costs there.
//!
//! What a user may do is decided by the database all the same. A token that was revoked through this process is forgotten at once: whatever is
//! not known to leave credentials alone forgets all of them. One that was revoked elsewhere is good for a moment more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::records::Holder;

/// How long an answer is used. Revocation has to reach everything within a minute; this is a small part of it.
const USED: Duration = Duration::from_secs(5);
/// Tokens that are remembered. Overflow: all are forgotten, and asked for when they are shown.
const KNOWN_MAX: usize = 10_000;

/// Functions after which every token means what it meant before. What is not here may have changed that.
const HARMLESS: [&str; 29] = [
    "make_session",
    "update_session",
    "purge_session",
    "begin_idempotent",
    "finish_idempotent",
    "release_idempotent",
    "record_audit",
    "attach_viewer",
    "detach_viewer",
    "job_renew_viewers",
    "job_update_session",
    "job_purge_session",
    "job_record_audit",
    "job_record_egress",
    "job_host_connected",
    "job_host_seen",
    "job_seal_audit",
    "job_audit_heads",
    "job_expiry",
    "job_token",
    "job_browser_session",
    "job_member",
    "job_invitation",
    "job_login",
    "job_take_refresh",
    "job_put_refresh",
    "job_see_session",
    "job_people",
    "job_organizations",
];

/// Whether a function leaves credentials alone.
pub(super) fn is_harmless(function: &str) -> bool {
    HARMLESS.contains(&function)
}

#[derive(Debug, Default)]
struct State {
    /// Grows whenever everything is forgotten.
    age: u64,
    holders: HashMap<String, (Holder, Instant)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KnownTokens(Mutex<State>);

/// When a question was asked: its answer is worth nothing if all was forgotten meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked(u64);

impl KnownTokens {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose it was a moment ago; or what to learn the answer with.
    pub(super) fn get(&self, hash: &str) -> Result<Holder, Asked> {
        let state = self.state();
        match state.holders.get(hash) {
            Some((holder, since)) if since.elapsed() < USED => Ok(holder.clone()),
            _ => Err(Asked(state.age)),
        }
    }

    pub(super) fn learn(&self, asked: Asked, hash: String, holder: Holder) {
        let mut state = self.state();
        if state.age != asked.0 {
            return;
        }
        if state.holders.len() >= KNOWN_MAX {
            state.holders.clear();
        }
        state.holders.insert(hash, (holder, Instant::now()));
    }

    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.age += 1;
        state.holders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::LOCAL_HOST;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_for_a_moment_and_not_after_a_change() {
        let known = KnownTokens::default();
        let holder = Holder::Host(LOCAL_HOST);
        let learn = |asked| known.learn(asked, "hash".to_owned(), holder.clone());
        let asked = known.get("hash").unwrap_err();
        learn(asked);
        assert_eq!(known.get("hash").unwrap(), holder);
        tokio::time::advance(USED).await;
        learn(known.get("hash").unwrap_err());
        known.forget();
        let asked = known.get("hash").unwrap_err();
        // An answer that was on its way when everything was forgotten.
        known.forget();
        learn(asked);
        assert!(known.get("hash").is_err());
    }
}
