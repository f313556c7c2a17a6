//! Strict verification of the JWTs of a Supabase project. PostgREST takes tokens without `exp`, without `aud` and from any issuer, so whoever
//! forwards a token has to have looked at it.
//!
//! Which algorithm a key is for is a property of the key: the header's word is compared, never followed. Keys come from the project's secret
//! (HS256) and from the place where the issuer publishes them (ES256, RS256), and from nowhere that a token names.

mod claims;
mod keys;
mod remote;
mod token;

use std::sync::Arc;

use agentapi_shared::UserId;
use jsonwebtoken::DecodingKey;
use reqwest::Client;
use time::OffsetDateTime;

pub use remote::KeysError;

pub(super) use claims::{Audience, check_times};
pub(super) use keys::{Algorithm, PublicKey};
pub(super) use remote::RemoteKeys;
pub(super) use token::Compact;

use self::claims::Claims;
use super::project::ProjectKeys;
use crate::clock;
use crate::store::records::CallerToken;

/// Why a token is not taken. Nothing of the token is in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// Larger than any token.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64 with JSON in them.
    #[error("the token is no JWT")]
    Malformed,
    /// It demands something of whoever reads it.
    #[error("the token has a critical header")]
    Critical,
    /// Its header names another algorithm than its key is for, or one that is not taken.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// No such key, also after a look at where keys are published.
    #[error("the token's key is not known")]
    Key,
    /// Not signed with the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp`.
    #[error("the token is over")]
    Expired,
    /// `nbf` or `iat`.
    #[error("the token is not good yet")]
    Early,
    /// `iss`.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud`.
    #[error("the token is for somebody else")]
    Audience,
    /// `sub`.
    #[error("the token's subject is no user")]
    Subject,
    /// `role`.
    #[error("the token's role is not that of a user")]
    Role,
    /// A user whom nobody knows.
    #[error("the token is of an anonymous user")]
    Anonymous,
    /// It was made for an application that acts for the user.
    #[error("the token was given to another application")]
    Application,
    /// `nonce`: made for another login.
    #[error("the token is of another login")]
    Nonce,
    /// The keys cannot be had now: no fault of the token.
    #[error("the issuer's keys cannot be had")]
    Unavailable(#[source] Arc<KeysError>),
}

impl TokenError {
    /// Whether the same token may be good later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Why tokens of a project cannot be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// Its keys.
    #[error(
        "cannot get the keys by which tokens of {issuer} are verified; is SUPABASE_URL right, and reached from here?"
    )]
    Keys {
        /// `iss`.
        issuer: String,
        /// Why.
        source: KeysError,
    },
    /// There are none.
    #[error(
        "{issuer} publishes no key and SUPABASE_JWT_SECRET is not set, so no token could be verified; set it, or move \
         the project to signing keys (in its settings, under JWT keys)"
    )]
    NoKeys {
        /// `iss`.
        issuer: String,
    },
}

/// Who brought a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user: `sub`.
    pub user: UserId,
    /// The login that the token is of.
    pub session: Option<String>,
    /// Their address.
    pub email: Option<String>,
    /// Whether the issuer says of the address that it is theirs. Supabase Auth does not in its tokens; `login` asks it.
    pub email_verified: bool,
    /// The token's end.
    pub expires_at: OffsetDateTime,
    /// What the database is asked with.
    pub token: CallerToken,
}

/// Verifies the tokens of a project.
#[derive(Debug)]
pub struct Verifier {
    project: ProjectKeys,
    issuer: String,
    /// None: no Supabase Auth is there, only the secret.
    published: Option<RemoteKeys>,
}

impl Verifier {
    /// Gets the keys; none if the project says no issuer, so that nobody logs in with its tokens.
    pub async fn start(project: ProjectKeys, client: Client) -> Result<Option<Self>, VerifierError> {
        let Some(issuer) = project.issuer().map(str::to_owned) else { return Ok(None) };
        let published = project
            .auth_url()
            .map(|auth| RemoteKeys::new(client, super::project::below(auth, ".well-known/jwks.json")));
        let count = match &published {
            Some(keys) => keys.start().await,
            None => Ok(0),
        };
        let count = count.map_err(|source| VerifierError::Keys { issuer: issuer.clone(), source })?;
        if count == 0 && project.jwt_secret().is_none() {
            return Err(VerifierError::NoKeys { issuer });
        }
        Ok(Some(Self { project, issuer, published }))
    }

    /// Tells who brought a token, or why it is not taken.
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let compact = Compact::of(token)?;
        let payload = self.payload(&compact).await?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        claims.caller(&self.issuer, clock::now(), token)
    }

    async fn payload(&self, compact: &Compact<'_>) -> Result<Vec<u8>, TokenError> {
        if compact.algorithm != Algorithm::Hs256 {
            let published = self.published.as_ref().ok_or(TokenError::Algorithm)?;
            return published.payload(compact).await;
        }
        // A key that is published signs with its own algorithm alone.
        let is_published = compact.kid.as_deref().zip(self.published.as_ref());
        if is_published.is_some_and(|(kid, published)| published.knows(kid)) {
            return Err(TokenError::Algorithm);
        }
        let secret = self.project.jwt_secret().ok_or(TokenError::Algorithm)?;
        compact.payload(&PublicKey::new(Algorithm::Hs256, DecodingKey::from_secret(secret.expose().as_bytes())))
    }
}

#[cfg(test)]
mod tests;
