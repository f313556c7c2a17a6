//! `agentapi.link.v1`: the one WebSocket of a host to the control plane, opened by the host.
//!
//! Four channels share it: **terminals** (watch, credit and binary frames), **requests** in both directions (an id, one reply), **byte streams**
//! (frame types 16-31, reserved) and the host's **outbox** (durable there until acknowledged here). Text frames carry these messages.
//! A receiver ignores a `type` it does not know; a release speaks with one older and one newer.
//!
//! The control plane owns what is wanted (`generation` rises with each change of mind), the host owns what is ([`SpawnReport`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::api::{Posture, SandboxPolicy, SandboxRequest, ScreenFormat, ScreenResponse, Workspace};
use crate::egress::EgressDecision;
use crate::exit::Exit;
use crate::id::{EventId, HostId, SessionId};
use crate::size::WindowSize;
use crate::state::SpawnState;

/// Subprotocol of the link's WebSocket.
pub const SUBPROTOCOL: &str = "agentapi.link.v1";
/// Path of the link on the control plane.
pub const PATH: &str = "/api/v1/link";
/// Version in the hello.
pub const PROTOCOL: u32 = 2;

/// A text frame of the link is never larger: an inventory of 10,000 spawns or a screen with its scrollback fit.
pub const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The host pings this often, so that a dead path is noticed although nothing is sent.
pub const PING_SECONDS: u64 = 10;
/// Either side gives the connection up after this long without a frame.
pub const DEAD_SECONDS: u64 = 25;
/// How far output of one stream may run ahead of what was granted: more than a viewer's window, less than what a slow link takes minutes for.
pub const STREAM_WINDOW_BYTES: u64 = 1024 * 1024;

/// How a watched stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The number that `watch` gave.
    pub stream: u32,
    /// Size at the first byte to come.
    pub size: WindowSize,
    /// Oldest offset still kept.
    pub first_offset: u64,
    /// Where this stream starts.
    pub offset: u64,
    /// Whether that is the offset asked for; false if it was past retention, and a keyframe follows.
    pub resumed: bool,
}

/// Host to control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostMessage {
    /// The first message.
    Hello(Box<HostHello>),
    /// The state of a spawn changed. Ends come through the outbox instead.
    Report(SpawnReport),
    /// One item of the outbox, in order. Sent again after a reconnect until acknowledged.
    Outbox {
        /// Grows by one per item, also over restarts of the supervisor.
        seq: u64,
        /// The item.
        item: OutboxItem,
    },
    /// The answer to a command.
    Reply {
        /// The command's id.
        id: u64,
        /// Its outcome.
        outcome: Outcome,
    },
    /// A watched stream is open.
    Watched(Watched),
    /// A stream could not be opened or read on. It is closed.
    WatchFailed {
        /// The stream.
        stream: u32,
        /// What happened.
        error: CommandError,
    },
    /// From this offset on the terminal has this size. In order with the stream's output.
    Resized {
        /// The stream.
        stream: u32,
        /// First offset with the new size.
        offset: u64,
        /// The size.
        size: WindowSize,
    },
    /// The spawn is over and the stream has sent all of it. It is closed.
    StreamEnded {
        /// The stream.
        stream: u32,
        /// End of output.
        offset: u64,
    },
    /// The facts of the hello have changed, such as by an agent that was installed.
    Facts(Box<HostFacts>),
    /// An INPUT frame was written, or not.
    InputDone {
        /// The stream it came on.
        stream: u32,
        /// Its sequence number.
        seq: u64,
        /// Why it was not.
        error: Option<CommandError>,
    },
}

/// Control plane to host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlaneMessage {
    /// The answer to the hello.
    Welcome {
        /// Id of this host.
        host: HostId,
    },
    /// Everything in the outbox up to this number is stored.
    OutboxAck {
        /// Sequence number.
        seq: u64,
    },
    /// Something to do for a session. Commands of one session run in order, those of different sessions side by side.
    Command {
        /// Unique on this connection.
        id: u64,
        /// The session.
        session: SessionId,
        /// What to do.
        command: Box<Command>,
    },
    /// Send the output of a spawn on a stream.
    Watch {
        /// Number chosen by the control plane, never used twice on a connection.
        stream: u32,
        /// The session.
        session: SessionId,
        /// The spawn.
        spawn: u32,
        /// First byte wanted; none: start with a keyframe of now.
        from: Option<u64>,
        /// Output below this offset may be sent. With `from` none it counts from the keyframe's position instead.
        limit: u64,
    },
    /// Output below this offset may be sent.
    Credit {
        /// The stream.
        stream: u32,
        /// Absolute offset; one that is lower than before changes nothing.
        limit: u64,
    },
    /// Send one KEYFRAME frame of now on this stream, beside its output.
    Keyframe {
        /// The stream.
        stream: u32,
    },
    /// Stop sending.
    Unwatch {
        /// The stream.
        stream: u32,
    },
}

/// Who the host is and what it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostHello {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the supervisor.
    pub version: String,
    /// Facts shown to people.
    pub facts: HostFacts,
    /// Every spawn that lives here, and every ended one that is not yet acknowledged.
    pub inventory: Vec<SpawnReport>,
}

/// Facts about a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// Its name.
    pub hostname: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// `root`, `user` or `none`: how sessions are isolated here.
    pub isolation: String,
    /// Directories below which a `path` workspace may lie.
    pub workspace_roots: Vec<String>,
    /// Profiles of the sandbox that sessions may name.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// What this host lacks of the whole isolation, in the words of a posture, allowed or not.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// The agents this host knows, whether they are there, and what to do if not.
    pub agents: Vec<AgentFacts>,
}

/// One agent on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentFacts {
    /// Name in `POST /sessions`.
    pub name: String,
    /// Whether its program was found.
    pub installed: bool,
    /// What it says of its version.
    pub version: Option<String>,
    /// The command that installs it.
    pub install: Option<String>,
}

/// What a host says about one spawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpawnReport {
    /// The session.
    pub session: SessionId,
    /// The spawn.
    pub spawn: u32,
    /// The generation the host acts on.
    pub generation: u64,
    /// Rises with each report of this spawn; an older one is ignored.
    pub seq: u64,
    /// Its state.
    pub state: SpawnState,
    /// Its size now.
    pub size: WindowSize,
    /// The command as it was run; known from `running` on.
    pub command: Vec<String>,
    /// When the program was executed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// How it is isolated; known from `running` on.
    #[serde(default)]
    pub posture: Option<Box<Posture>>,
}

/// What must not be lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OutboxItem {
    /// A spawn ended.
    Ended(SpawnReport),
    /// Something the host did that belongs in the audit trail.
    Audit {
        /// Id of the entry, so that a second delivery is seen.
        id: EventId,
        /// When.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
        /// The session.
        session: Option<SessionId>,
        /// Such as `spawn.readopted`.
        action: String,
        /// More, without secrets.
        detail: Value,
    },
    /// What the egress gateway decided about one connection.
    Egress(EgressDecision),
}

/// The outcome of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done(CommandResult),
    /// It was not.
    Error(CommandError),
}

/// Why a host did not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct CommandError {
    /// Stable word: `not_found`, `not_running`, `already_running`, `stale_generation`, `invalid`, `input_full`, `refused`, `busy`, `timeout`, `internal`.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
}

impl CommandError {
    /// An error with a stable code and a sentence.
    #[must_use]
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
}

/// What a host can be asked to do for a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one at a time is held, on its way")]
pub enum Command {
    /// Start a spawn. A host that already has it answers as if it had just accepted it.
    Start(StartSpawn),
    /// End a spawn. One that is over, or unknown, is answered as done.
    Stop {
        /// The spawn.
        spawn: u32,
        /// The generation that wants this.
        generation: u64,
        /// Time between asking and killing, in milliseconds.
        grace_ms: u64,
        /// Kill at once.
        force: bool,
    },
    /// Remove everything of the session from the host; refused while a spawn lives.
    Purge,
    /// Write to the program.
    Input {
        /// The spawn.
        spawn: u32,
        /// The bytes, base64.
        bytes_base64: String,
    },
    /// Change the size of the terminal.
    Resize {
        /// The spawn.
        spawn: u32,
        /// The size.
        size: WindowSize,
    },
    /// The screen, of a living or an ended spawn.
    Screen {
        /// The spawn.
        spawn: u32,
        /// Plain text or with colours.
        format: ScreenFormat,
        /// Rows of scrollback before the screen.
        scrollback: u32,
    },
}

/// All that is needed to start a spawn.
#[derive(Clone, Serialize, Deserialize)]
pub struct StartSpawn {
    /// Its number.
    pub spawn: u32,
    /// The generation that wants it.
    pub generation: u64,
    /// Name of an agent manifest, or `custom`.
    pub agent: String,
    /// The program and its arguments for `custom`; for other agents empty.
    pub command: Vec<String>,
    /// Further arguments for an agent.
    pub args: Vec<String>,
    /// Environment asked for by the user. Secret: never logged; none on a restart, where the host has kept it.
    pub env: Option<BTreeMap<String, String>>,
    /// Size of the terminal.
    pub size: WindowSize,
    /// Where the agent works.
    pub workspace: Workspace,
    /// How it is to be isolated.
    #[serde(default)]
    pub sandbox: SandboxRequest,
    /// What the session's organisation allows; it narrows the profile too.
    #[serde(default, skip_serializing_if = "SandboxPolicy::is_empty")]
    pub policy: SandboxPolicy,
}

impl std::fmt::Debug for StartSpawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartSpawn").field("spawn", &self.spawn).field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// What a command gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum CommandResult {
    /// Nothing to tell.
    Done,
    /// The host accepted a start; reports follow.
    Accepted,
    /// Input was written.
    Written {
        /// Bytes.
        written: u64,
        /// Offset of the output at that moment: what the program says to it comes later.
        offset: u64,
    },
    /// The screen.
    Screen(Box<ScreenResponse>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::ShimEvent;

    #[test]
    fn how_a_stream_begins_is_written_alike_by_shims_and_hosts() {
        let watched = Watched { stream: 3, size: WindowSize::DEFAULT, first_offset: 1, offset: 7, resumed: true };
        let wire = serde_json::json!({
            "type": "watched", "stream": 3, "size": { "cols": 120, "rows": 40 }, "first_offset": 1, "offset": 7, "resumed": true,
        });
        assert_eq!(serde_json::to_value(HostMessage::Watched(watched)).unwrap(), wire);
        assert_eq!(serde_json::to_value(ShimEvent::Watched(watched)).unwrap(), wire);
        let read: ShimEvent = serde_json::from_value(wire).unwrap();
        assert!(matches!(read, ShimEvent::Watched(read) if read == watched));
    }
}
