//! How a spawn ended: one record for journal, link, store and API.

use serde::{Deserialize, Serialize};

/// The end of a spawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exit {
    /// Exit status of the program, when it ended by itself.
    pub code: Option<i32>,
    /// Name of the signal that ended it, such as `SIGKILL`.
    pub signal: Option<String>,
    /// Why it ended, as a stable word.
    pub reason: ExitReason,
    /// One sentence for a person: what happened and, where something can be done, what.
    pub detail: String,
}

/// Why a spawn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The program ended by itself.
    Exited,
    /// A signal that nobody here sent ended it.
    Signaled,
    /// It was asked to stop and did, within the grace period.
    Stopped,
    /// It was stopped by force: at once on request, or after the grace period.
    Killed,
    /// The command could not be executed.
    ExecFailed,
    /// The jail could not be set up; nothing ran.
    JailFailed,
    /// The host refused or could not carry out the start; nothing ran.
    StartFailed,
    /// The shim died, and everything it held with it.
    ShimLost,
    /// The host was rebooted under it.
    HostRebooted,
    /// The values of its environment were lost before a host accepted it.
    EnvironmentLost,
    /// The host is gone for good.
    HostLost,
}

impl ExitReason {
    /// Whether the spawn counts as `exited`; every other reason is a failure.
    #[must_use]
    pub fn is_exit(self) -> bool {
        matches!(self, Self::Exited | Self::Signaled | Self::Stopped | Self::Killed)
    }
}
