//! Identifiers. Every id is a UUIDv7 (RFC 9562) made by the application, so that it sorts by time and needs no database.
//!
//! Each concept has a type of its own: a host's id cannot be passed where a session's is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A string that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} id: expected a UUID such as 0197c1a2-7d4e-7c3b-9f52-3d5c7b1a2e4f")]
pub struct InvalidId {
    kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later in order than every one made before it on this machine.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Its 128 bits.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }

            /// An id with a fixed value, for rows that exist from the first migration on.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(Uuid::from_u128(value))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::from_str(text).map(Self).map_err(|_| InvalidId { kind: $kind })
            }
        }
    };
}

id!(
    /// An organisation: the tenant that owns sessions.
    OrgId,
    "organisation"
);
id!(
    /// A person or a program that acts.
    UserId,
    "user"
);
id!(
    /// A worker machine with one supervisor.
    HostId,
    "host"
);
id!(
    /// A session: stable over all its spawns, until purged.
    SessionId,
    "session"
);
id!(
    /// One connection of a viewer to a session's terminal.
    ViewerId,
    "viewer"
);
id!(
    /// An API key.
    ApiKeyId,
    "API key"
);
id!(
    /// An invitation into an organisation.
    InvitationId,
    "invitation"
);
id!(
    /// One entry of the audit trail, or one item of a host's outbox.
    EventId,
    "event"
);

/// The number of a spawn within its session: 1 for the first run, one more for each restart.
pub type SpawnNumber = u32;
