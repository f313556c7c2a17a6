//! What may be done, by whom, and what follows from it. Names no HTTP types: `api` translates.

pub mod audit;
mod change;
pub mod hosts;
pub mod keys;
pub mod policy;
pub mod rules;
pub mod sessions;
pub mod trail;
pub mod validate;

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
        Self::Store(error)
    }
}

impl DomainError {
    /// A missing row means a missing session.
    #[must_use]
    pub fn of_session(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::SessionNotFound,
            StoreError::Forbidden => Self::Forbidden,
            other => Self::Store(other),
        }
    }
}
