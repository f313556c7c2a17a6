//! The secret by which functions know that the control plane sent a request: random, registered by a job, replaced every so often.
//!
//! A tenant's own token may execute the functions of callers; without this secret they do nothing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::HeaderValue;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::client::Client;
use super::error::Failure;

/// A secret is used for so long.
const USED: Duration = Duration::from_secs(3600);
/// And good for twice that, its own and those of other replicas: nobody's ends while it is used.
const GOOD_SECONDS: u64 = 7200;

#[derive(Debug, Clone)]
struct Registered {
    secret: HeaderValue,
    since: Instant,
}

/// The secret of this process.
#[derive(Debug, Default)]
pub(super) struct Proof {
    registered: RwLock<Option<Registered>>,
    /// One at a time registers; the others wait for it, or go on with the secret before.
    turn: Mutex<()>,
}

impl Proof {
    fn known(&self) -> Option<Registered> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The secret to send now.
    pub(super) async fn current(self: &Arc<Self>, client: &Client) -> Result<HeaderValue, Failure> {
        let Some(known) = self.known() else { return self.renew(client, None).await };
        if known.since.elapsed() < USED {
            return Ok(known.secret);
        }
        // The one before is good for a while: it is replaced by whoever comes first.
        if let Ok(_turn) = self.turn.try_lock() {
            match register(client).await {
                Ok(next) => return Ok(self.keep(next)),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the proof of the control plane was not replaced")
                }
            }
        }
        Ok(known.secret)
    }

    /// Another secret than the one that was refused.
    pub(super) async fn renew(&self, client: &Client, refused: Option<&HeaderValue>) -> Result<HeaderValue, Failure> {
        let _turn = self.turn.lock().await;
        match self.known() {
            Some(known) if Some(&known.secret) != refused => Ok(known.secret),
            _ => Ok(self.keep(register(client).await?)),
        }
    }

    #[cfg(test)]
    pub(super) fn assume(&self) {
        self.keep(HeaderValue::from_static("assumed"));
    }

    fn keep(&self, secret: HeaderValue) -> HeaderValue {
        let next = Registered { secret: secret.clone(), since: Instant::now() };
        *self.registered.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        secret
    }
}

async fn register(client: &Client) -> Result<HeaderValue, Failure> {
    let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    client.register(json!({ "p_hash": hash, "p_valid_s": GOOD_SECONDS, "p_others_end_s": GOOD_SECONDS })).await?;
    let mut secret = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    secret.set_sensitive(true);
    Ok(secret)
}
