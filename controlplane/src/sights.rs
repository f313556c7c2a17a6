//! Logins at an issuer that show themselves here as tokens, without a login of ours: each is in the trail once, when it is first seen.
//!
//! Once is the store's word, for all replicas. What was asked is remembered for a while, so that not each request asks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::auth::sha256_hex;
use crate::domain::audit;
use crate::domain::policy::Principal;
use crate::store::records::Sight;
use crate::store::{Store, StoreError};

/// The store is to know that a login is still shown, to the day.
const REMEMBERED: Duration = Duration::from_secs(12 * 3600);
/// Logins that are remembered. Overflow: all are forgotten, and asked for again.
const KNOWN_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Sights(Mutex<HashMap<String, Instant>>);

impl Sights {
    /// Somebody showed a token of this login: recorded before anything is done with it, if it is the first.
    pub async fn see(
        &self,
        store: &dyn Store,
        principal: &Principal,
        issuer: &str,
        login: &str,
    ) -> Result<(), StoreError> {
        // No issuer has a line break in its name.
        let hash = sha256_hex(format!("{issuer}\n{login}").as_bytes());
        if self.is_known(&hash) {
            return Ok(());
        }
        let audit = audit::of_organization(principal, "login", json!({ "by": "token" }));
        store.see_session(Sight { hash: hash.clone(), tenant: principal.tenant(), audit }).await?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash, Instant::now());
        Ok(())
    }

    fn is_known(&self, hash: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).is_some_and(|since| since.elapsed() < REMEMBERED)
    }
}
