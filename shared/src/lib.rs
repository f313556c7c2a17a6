//! What every AgentAPI process agrees on: ids, limits, states, wire protocols, agent manifests, and the runtime kit of the daemons.
//!
//! Without features it has no async runtime and no TLS, because the shim links it and every page of the shim counts a thousand times.

pub mod agent;
pub mod api;
#[cfg(feature = "audit")]
pub mod audit;
pub mod egress;
pub mod exit;
pub mod frame;
pub mod id;
pub mod jail;
pub mod journal;
pub mod link;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod shim;
pub mod size;
pub mod state;
pub mod sys;
pub mod viewer;

pub use exit::{Exit, ExitReason};
pub use id::{ApiKeyId, EventId, HostId, InvitationId, OrgId, SessionId, SpawnNumber, UserId, ViewerId};
pub use size::WindowSize;
pub use state::SpawnState;
