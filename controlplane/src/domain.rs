//! What may be done, by whom, and what follows from it. Names no HTTP types: `api` translates.

pub mod api_keys;
pub mod audit;
mod change;
pub mod enrolments;
pub mod hosts;
pub mod keys;
pub mod logins;
pub mod members;
pub mod organizations;
pub mod policy;
pub mod rules;
pub mod sessions;
pub mod trail;
pub mod validate;
pub mod viewers;

use agentapi_shared::api::FieldError;
use agentapi_shared::link::CommandError;

use crate::store::StoreError;
use crate::store::records::Replay;

pub use change::change;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// No such session for this caller.
    #[error("no session has this id")]
    SessionNotFound,
    /// No such host for this caller.
    #[error("no host has this id")]
    HostNotFound,
    /// No such thing for this caller.
    #[error("no {what} has this id")]
    NotFound {
        /// Stable word.
        code: &'static str,
        /// What it would be.
        what: &'static str,
    },
    /// Something about the caller stands against it.
    #[error("{detail}")]
    Unfit {
        /// Stable word.
        code: &'static str,
        /// One sentence.
        detail: &'static str,
    },
    /// There is no room for more.
    #[error("{detail}")]
    Quota {
        /// Stable word.
        code: &'static str,
        /// One sentence.
        detail: &'static str,
    },
    /// The session has no such spawn.
    #[error("this session has no spawn {0}")]
    SpawnNotFound(u32),
    /// The caller's role does not allow it.
    #[error("your role does not allow this")]
    Forbidden,
    /// Fields at fault.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The state of the session does not allow it now.
    #[error("{detail}")]
    Conflict {
        /// Stable word.
        code: &'static str,
        /// One sentence.
        detail: String,
    },
    /// The idempotency key was used for another request, or is at work.
    #[error("the idempotency key was used before")]
    Idempotency(Replay),
    /// The host that holds the session is not connected.
    #[error("the host of this session is not connected")]
    HostUnreachable,
    /// The host did not answer in time.
    #[error("the host did not answer in time")]
    HostTimeout,
    /// Too much is under way.
    #[error("{0}")]
    Busy(&'static str),
    /// The host refused.
    #[error("the host refused: {0}")]
    Host(CommandError),
    /// The store.
    #[error("the store did not do it")]
    Store(#[source] StoreError),
}

impl From<StoreError> for DomainError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(word) => refused(&word),
            StoreError::Quota(word) => quota(&word),
            StoreError::Forbidden => Self::Forbidden,
            other => Self::Store(other),
        }
    }
}

const ADDRESS_NOT_CONFIRMED: DomainError = DomainError::Unfit {
    code: "address_not_confirmed",
    detail: "whoever logs you in does not say that your mail address is yours: confirm it there, and log in again",
};

fn refused(word: &str) -> DomainError {
    let (code, detail) = match word {
        "address_not_confirmed" => return ADDRESS_NOT_CONFIRMED,
        "agent_not_allowed" => return validate::fault("agent", "your organisation does not allow this agent"),
        "sandbox_not_allowed" => return validate::fault("sandbox", "your organisation does not allow such a sandbox"),
        "last_owner" => ("last_owner", "an organisation keeps an owner: make somebody else one first"),
        "already_member" => ("already_member", "you are in this organisation already"),
        "api_key_rotation" => {
            ("api_key_rotation", "two live keys of yours have this name: revoke one of them, or take another name")
        }
        _ => ("conflict", "the store refuses it"),
    };
    DomainError::Conflict { code, detail: detail.to_owned() }
}

fn quota(word: &str) -> DomainError {
    let (code, detail) = match word {
        "quota_sessions_per_day" => (
            "quota_sessions_per_day",
            "your organisation has made as many sessions today as it may; the day ends at 00:00 UTC",
        ),
        "quota_organizations" => (
            "quota_organizations",
            "you are the founder of as many organisations as one person may be (founded-organizations-max): whoever operates this control plane can make you another",
        ),
        "quota_viewers" => (
            "quota_viewers",
            "as many terminals of your organisation are attached as it may have at once: detach one of them, or try again later",
        ),
        _ => ("quota_sessions", "as many sessions of your organisation live as it may have: stop one of them"),
    };
    DomainError::Quota { code, detail }
}

impl DomainError {
    /// A missing row means a missing session.
    #[must_use]
    pub fn of_session(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::SessionNotFound,
            other => other.into(),
        }
    }

    /// A missing row means a missing thing of this kind: its word, and what it is.
    #[must_use]
    pub fn of((code, what): (&'static str, &'static str), error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound { code, what },
            other => other.into(),
        }
    }
}
