//! What a token of Supabase Auth has to say, and when.

use std::str::FromStr as _;

use agentapi_shared::UserId;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{Caller, TokenError};
use crate::store::records::CallerToken;

/// How far the clocks of issuer and control plane may be apart.
const LEEWAY_S: i64 = 30;
/// Whom the project's tokens are for, and the role that PostgREST takes on for them.
const AUTHENTICATED: &str = "authenticated";
/// A UUID as everybody writes it: other forms are read by some and not by others.
const UUID_CHARS: usize = 36;

/// The claims that count. Those that a user can write themselves (`user_metadata`) are not among them.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    role: String,
    session_id: Option<String>,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    is_anonymous: bool,
    client_id: Option<String>,
}

/// One, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::identity) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(in crate::identity) fn is_several(&self) -> bool {
        matches!(self, Self::Several(several) if several.len() > 1)
    }

    pub(in crate::identity) fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

/// Whether a token is good at a time.
pub(in crate::identity) fn check_times(
    exp: i64,
    not_before: [Option<i64>; 2],
    now: OffsetDateTime,
) -> Result<OffsetDateTime, TokenError> {
    let seconds = now.unix_timestamp();
    if not_before.into_iter().flatten().any(|start| start > seconds.saturating_add(LEEWAY_S)) {
        return Err(TokenError::Early);
    }
    if exp <= seconds.saturating_sub(LEEWAY_S) {
        return Err(TokenError::Expired);
    }
    OffsetDateTime::from_unix_timestamp(exp).map_err(|_| TokenError::Malformed)
}

impl Claims {
    pub(super) fn caller(self, issuer: &str, now: OffsetDateTime, token: &str) -> Result<Caller, TokenError> {
        if self.iss != issuer {
            return Err(TokenError::Issuer);
        }
        if !self.aud.has(AUTHENTICATED) {
            return Err(TokenError::Audience);
        }
        let expires_at = check_times(self.exp, [self.nbf, self.iat], now)?;
        if self.role != AUTHENTICATED {
            return Err(TokenError::Role);
        }
        if self.is_anonymous {
            return Err(TokenError::Anonymous);
        }
        if self.client_id.is_some() {
            return Err(TokenError::Application);
        }
        if self.sub.len() != UUID_CHARS {
            return Err(TokenError::Subject);
        }
        let user = UserId::from_str(&self.sub).map_err(|_| TokenError::Subject)?;
        let email = self.email.filter(|email| !email.is_empty());
        Ok(Caller {
            user,
            session: self.session_id,
            email_verified: self.email_verified && email.is_some(),
            email,
            expires_at,
            token: CallerToken::new(token),
        })
    }
}
