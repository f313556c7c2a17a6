//! Logins of browsers with an issuer behind them, as the store keeps them.

use agentapi_shared::{ApiKeyId, OrgId, UserId};
use time::OffsetDateTime;

use super::{AuditEntry, TenantContext, UserHolder};

/// Whose a login is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginHolder {
    /// Somebody in an organisation.
    Member(UserHolder),
    /// Somebody in none.
    Newcomer(NewcomerHolder),
}

impl LoginHolder {
    /// The member, if it is one.
    #[must_use]
    pub fn member(self) -> Option<UserHolder> {
        match self {
            Self::Member(holder) => Some(holder),
            Self::Newcomer(_) => None,
        }
    }
}

/// A person who proved who they are and is in no organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewcomerHolder {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
}

/// A code for one login, to be made. Of the code there is a hash only.
#[derive(Debug, Clone)]
pub struct NewLoginCode {
    /// Of the code.
    pub hash: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// The API key that it is made with, and that the login ends with.
    pub made_by: Option<ApiKeyId>,
}

/// A secret that is kept and used again, encrypted with a key that the store does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key opens it.
    pub key_id: String,
    /// Nonce, secret, tag.
    pub ciphertext: Vec<u8>,
}

/// A login of a browser, to be made.
#[derive(Debug, Clone)]
pub struct NewLogin {
    /// Who.
    pub user: UserId,
    /// Where; none: in the first organisation that they came to, or in none if there is none.
    pub org: Option<OrgId>,
    /// The hash of its cookie.
    pub cookie: String,
    /// When it ends, whatever its issuer says.
    pub expires_at: OffsetDateTime,
    /// Who vouched for them.
    pub by: String,
    /// The login at the issuer that it is of.
    pub auth_session: Option<String>,
    /// What keeps that alive.
    pub refresh: Option<Sealed>,
    /// Its record, where the store does not write one of its own.
    pub audit: AuditEntry,
}

/// What came of a wish to use what keeps a login alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshTaken {
    /// Nobody else uses it until then.
    Taken(Sealed),
    /// Somebody does, for at most as long as they said.
    Busy,
    /// There is none: no such login, or none with an issuer behind it.
    Gone,
}

/// Somebody shows a token of a login at their issuer.
#[derive(Debug, Clone)]
pub struct Sight {
    /// SHA-256 of issuer and login.
    pub hash: String,
    /// In whose name, and where, it is recorded if it was never seen.
    pub tenant: TenantContext,
    /// The record.
    pub audit: AuditEntry,
}
