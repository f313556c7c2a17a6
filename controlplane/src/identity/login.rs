//! Logging people in with somebody else's word for who they are: a project's Supabase Auth, by password, or any OpenID Connect issuer.
//!
//! It says who somebody is. Whether they are a member of anything, and that their browser is logged in, is for the store.

mod oidc;
mod refresh;
mod supabase;

use super::fetch::FetchError;
use super::seal::SealError;
use super::verify::TokenError;

pub use oidc::{Begun, Callback, LIFETIME as BEGUN_LIFETIME, Oidc, OidcSettings, Person};
pub use refresh::{RefreshError, Refresher};
pub use supabase::{Grant, SupabaseAuth};

/// Why somebody is not logged in. None holds anything secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Which of the two is not said.
    #[error("the address or the password is wrong")]
    Refused,
    /// A link in a mail has to be followed first.
    #[error("the address is not confirmed yet; follow the link in the mail that was sent to it")]
    Unconfirmed,
    /// By the issuer.
    #[error("the issuer takes no more attempts for a while")]
    TooMany,
    /// It ended there: logged out, removed, or not used for too long.
    #[error("the login is over; log in again")]
    Over,
    /// The answer of an issuer belongs to no login of this browser.
    #[error("this login was not begun in this browser, or too long ago; begin again")]
    NotBegun,
    /// In its own words, which are a code.
    #[error("the issuer did not log you in: {code}")]
    Issuer {
        /// Such as `access_denied`.
        code: String,
    },
    /// What it says of itself cannot be used.
    #[error("the issuer's description cannot be used: {reason}")]
    Description {
        /// What is wrong.
        reason: &'static str,
    },
    /// Its token.
    #[error("the issuer's token is not taken")]
    Token(#[from] TokenError),
    /// It is not there, or something is wrong between it and us.
    #[error("the issuer cannot be asked")]
    Unavailable(#[source] FetchError),
    /// Our own keys.
    #[error("cannot keep a secret")]
    Seal(#[from] SealError),
}
