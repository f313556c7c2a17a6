//! The control messages of `agentapi.terminal.v1`, between the control plane and a viewer. `docs/protocol.md` tells the whole protocol.
//!
//! Bytes travel in binary frames (see [`crate::frame`]); these are the text frames. A receiver ignores a `type` it does not know.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::id::{SessionId, ViewerId};
use crate::size::WindowSize;
use crate::state::SpawnState;

/// Subprotocol of a viewer's WebSocket.
pub const SUBPROTOCOL: &str = "agentapi.terminal.v1";

/// How far output may be sent beyond what the viewer says it has parsed. xterm.js stops answering above about 500 kB of unparsed input.
pub const WINDOW_BYTES: u64 = 256 * 1024;

/// How often, in parsed bytes, a viewer should acknowledge.
pub const ACK_EVERY_BYTES: u64 = 32 * 1024;

/// A text frame of a viewer is never larger; its messages are some hundred bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Close codes beyond those of RFC 6455.
pub mod close {
    /// The server ends; connect again.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame or message that cannot be read.
    pub const MALFORMED: u16 = 4400;
    /// The credential expired or was revoked.
    pub const UNAUTHORIZED: u16 = 4401;
    /// The session was purged.
    pub const SESSION_GONE: u16 = 4404;
    /// The viewer acknowledged what was never sent.
    pub const VIOLATION: u16 = 4409;
    /// Another connection took this one's place, as its client asked.
    pub const REPLACED: u16 = 4410;
}

/// What a viewer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewerMode {
    /// Look and type.
    Rw,
    /// Look only.
    Ro,
}

/// What happens when a viewer is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Catchup {
    /// Skip to the newest screen: once it is more than [`LAG_BYTES_MAX`] or [`LAG_MS_MAX`] behind, it gets one keyframe.
    #[default]
    Screen,
    /// Never skip a byte; what left memory is read again from the host's journal.
    Bytes,
}

/// Beyond this many bytes a `catchup=screen` viewer skips.
pub const LAG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Beyond this many milliseconds without credit a `catchup=screen` viewer skips.
pub const LAG_MS_MAX: u64 = 1000;

/// How a spawn's output continues for this viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// A keyframe follows; the viewer had nothing before.
    Fresh,
    /// Output follows from exactly the offset asked for.
    Resumed,
    /// The offset asked for is no longer kept (or never was); a keyframe follows.
    Gap,
}

/// Server to viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first message.
    Hello {
        /// The session.
        session: SessionId,
        /// Number of this viewer, unique within the session's connections.
        viewer: u64,
        /// What it may do.
        mode: ViewerMode,
        /// Its catch-up rule.
        catchup: Catchup,
        /// See [`WINDOW_BYTES`].
        window: u64,
        /// Names this connection: the next one says `replaces` with it, so that one that broke unseen is in nobody's way. None: an older release.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<ViewerId>,
    },
    /// The frames that follow belong to this spawn, until the next such message.
    Spawn {
        /// Number of the spawn; `stream` of its frames.
        spawn: u32,
        /// Its state now.
        state: SpawnState,
        /// Its size at `offset`.
        size: WindowSize,
        /// How output continues.
        resume: Resume,
        /// Where output continues. With `fresh` and `gap` the keyframe's position says it more exactly.
        offset: u64,
    },
    /// From this offset on the terminal has this size. Ordered with the output.
    Resized {
        /// Spawn.
        spawn: u32,
        /// Offset.
        offset: u64,
        /// The new size.
        size: WindowSize,
    },
    /// Who owns the size now.
    SizeOwner {
        /// The viewer, or none.
        viewer: Option<u64>,
    },
    /// The state of the newest spawn, or the reach of its host, changed.
    State {
        /// Spawn.
        spawn: u32,
        /// Its state.
        state: SpawnState,
        /// Whether the host is connected; while it is not, output and input wait.
        reachable: bool,
    },
    /// All output of the spawn was sent and it is over. The connection stays open for the next spawn.
    Ended {
        /// Spawn.
        spawn: u32,
        /// End of its output.
        offset: u64,
        /// How it ended.
        exit: Exit,
    },
    /// Input with this sequence number was written to the program.
    InputAck {
        /// The INPUT frame's position.
        seq: u64,
    },
    /// Input with this sequence number was not written.
    InputRefused {
        /// The INPUT frame's position.
        seq: u64,
        /// `read_only`, `not_running`, `input_full`, `unreachable`.
        code: String,
        /// One sentence.
        detail: String,
    },
}

/// Viewer to server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Everything of this spawn below the offset is parsed. A keyframe is acknowledged with its position.
    Ack {
        /// Spawn.
        spawn: u32,
        /// Offset of the first byte not yet parsed.
        offset: u64,
    },
    /// The size this viewer would like; applied when, or as soon as, it owns the size.
    Resize {
        /// Columns and rows of its own window.
        size: WindowSize,
    },
    /// Makes this viewer the owner of the size, until another types or takes it.
    TakeSize,
}
