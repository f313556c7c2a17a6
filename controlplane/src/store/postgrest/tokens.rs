//! Tokens for callers who brought none that the database takes: whoever came with an API key or a cookie.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentapi_shared::UserId;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::store::records::{CallerToken, TenantContext};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// None can be made for anybody, as things are configured.
    #[error("there is nothing to make tokens with")]
    Never,
    /// This one could not be made now.
    #[error("a token could not be made")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes tokens in whose name the database decides.
pub trait TokenSource: Send + Sync + std::fmt::Debug {
    /// A token of this user, good for long enough to be used at once.
    fn token(&self, tenant: &TenantContext) -> Result<CallerToken, NoToken>;
}

/// How long a token is good.
const GOOD: Duration = Duration::from_secs(300);
/// How long it is used: PostgREST checks a signature once and remembers the token, so one is used for a while, and ends well after its use.
const USED: Duration = Duration::from_secs(180);
/// Tokens that are kept. Overflow: all are forgotten and made again when they are needed.
const KEPT_MAX: usize = 10_000;

/// Tokens signed with the secret of a project that has one (HS256).
pub struct SharedSecret {
    key: hmac::Key,
    made: Mutex<HashMap<UserId, (CallerToken, Instant)>>,
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

impl SharedSecret {
    /// With the secret of the project.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), made: Mutex::default() }
    }

    /// A token with these claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
        let tag = hmac::sign(&self.key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }
}

impl TokenSource for SharedSecret {
    fn token(&self, tenant: &TenantContext) -> Result<CallerToken, NoToken> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, since)) = made.get(&tenant.user)
            && since.elapsed() < USED
        {
            return Ok(token.clone());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| NoToken::Failed(error.into()))?;
        let claims = json!({
            "sub": tenant.user, "role": "authenticated", "aud": "authenticated", "iat": now.as_secs(),
            "exp": (now + GOOD).as_secs(),
        });
        let token = CallerToken::new(&self.sign(&claims));
        if made.len() >= KEPT_MAX {
            made.clear();
        }
        made.insert(tenant.user, (token.clone(), Instant::now()));
        Ok(token)
    }
}
