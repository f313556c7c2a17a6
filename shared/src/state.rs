//! The life of a spawn as a pure table. The actor that owns a spawn only performs what the table allows.
//!
//! ```text
//! pending -> starting -> running -> stopping -> exited | failed | lost
//! ```
//! Every state before the end may be left for an end; no event leaves an end.

use serde::{Deserialize, Serialize};

/// State of a spawn, shown on the session as that of its newest spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SpawnState {
    /// Wanted, not yet accepted by a host.
    Pending,
    /// A host is setting it up.
    Starting,
    /// The program runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It ended.
    Exited,
    /// It could not run, or was lost on its host.
    Failed,
    /// Its host is gone for good.
    Lost,
}

/// What can happen to a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnEvent {
    /// A host took it.
    Accepted,
    /// Its program was executed.
    Executed,
    /// Somebody wants it to end.
    StopRequested,
    /// It ended as a program does.
    Ended,
    /// It could not run, or its shim or host failed under it.
    Broke,
    /// Its host was given up.
    HostGivenUp,
}

/// An event that the table does not allow in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a spawn that is {state:?}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: SpawnState,
    /// What should have happened.
    pub event: SpawnEvent,
}

impl SpawnState {
    /// Every state, in order of life.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Starting, Self::Running, Self::Stopping, Self::Exited, Self::Failed, Self::Lost];

    /// Whether the spawn is over.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Exited | Self::Failed | Self::Lost)
    }

    /// The word used in JSON, tables and filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// The state with that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The state after `event`. An event that says what is already so changes nothing.
    pub fn apply(self, event: SpawnEvent) -> Result<Self, IllegalTransition> {
        use SpawnEvent as E;
        use SpawnState as S;
        let next = match (self, event) {
            (state, _) if state.is_ended() => return Err(IllegalTransition { state, event }),
            (_, E::HostGivenUp) => S::Lost,
            (_, E::Broke) => S::Failed,
            (_, E::Ended) => S::Exited,
            (S::Pending | S::Starting, E::Accepted) => S::Starting,
            (S::Pending | S::Starting | S::Running, E::Executed) => S::Running,
            // What was asked to stop stays so, whatever its start still reports.
            (state @ (S::Running | S::Stopping), E::Accepted) | (state @ S::Stopping, E::Executed) => state,
            (_, E::StopRequested) => S::Stopping,
            (S::Exited | S::Failed | S::Lost, _) => return Err(IllegalTransition { state: self, event }),
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [SpawnEvent; 6] = [
        SpawnEvent::Accepted,
        SpawnEvent::Executed,
        SpawnEvent::StopRequested,
        SpawnEvent::Ended,
        SpawnEvent::Broke,
        SpawnEvent::HostGivenUp,
    ];

    fn rank(state: SpawnState) -> usize {
        if state.is_ended() { 4 } else { SpawnState::ALL.iter().position(|s| *s == state).unwrap_or(0) }
    }

    proptest! {
        #[test]
        fn no_event_sequence_goes_back_or_leaves_an_end(events in proptest::collection::vec(0usize..6, 0..30)) {
            let mut state = SpawnState::Pending;
            for event in events.into_iter().map(|i| EVENTS[i]) {
                match state.apply(event) {
                    Ok(next) => {
                        prop_assert!(!state.is_ended());
                        prop_assert!(rank(next) >= rank(state), "{state:?} + {event:?} -> {next:?}");
                        state = next;
                    }
                    Err(refused) => {
                        prop_assert!(state.is_ended());
                        prop_assert_eq!(refused, IllegalTransition { state, event });
                    }
                }
            }
        }
    }

    #[test]
    fn every_word_is_read_back() {
        for state in SpawnState::ALL {
            assert_eq!(SpawnState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_string(&state).ok(), Some(format!("\"{}\"", state.as_str())));
        }
        assert_eq!(SpawnState::parse("unreachable"), None);
    }
}
