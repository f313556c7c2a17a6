//! The shim's two sockets.
//!
//! **Start**: the shim's stdin is a SEQPACKET socket. The supervisor sends one [`ShimStart`] with two fds (the listening socket, the spawn's
//! directory) and, as far as the plan says so, the cgroup and the mount of the session's disk, in this order; the shim answers with [`ShimStarted`] messages until the program was executed or
//! could not be. [`ShimStarted::Born`] waits for an answer of one byte.
//!
//! **Service**: whoever is the supervisor connects to the listening socket. One connection at a time: a new one replaces the old with its first
//! request. A connection whose first request is [`ShimRequest::Listeners`] is apart from that: it is answered and closed. Both sides send packets: `u32 length, u8 kind` (0 JSON, 1 binary frame of [`crate::frame`]), then that many bytes. This protocol grows only by addition: a
//! shim lives for weeks and every later supervisor must speak to it.

use serde::{Deserialize, Serialize};

use crate::api::{ScreenFormat, ScreenResponse};
use crate::exit::Exit;
use crate::id::SessionId;
use crate::jail::JailPlan;
use crate::link::{CommandError, Watched};
use crate::size::WindowSize;

/// Version of the service protocol.
pub const PROTOCOL: u32 = 1;
/// Name of the listening socket in the spawn's directory.
pub const SOCKET: &str = "shim.sock";
/// The exit record in the spawn's directory.
pub const EXIT_FILE: &str = "exit.json";
/// The final screen in the spawn's directory.
pub const FINAL_FILE: &str = "final.json";
/// The final keyframe in the spawn's directory: `u64` offset, then a KEYFRAME payload.
pub const KEYFRAME_FILE: &str = "final.keyframe";
/// The journal's directory in the spawn's directory.
pub const JOURNAL_DIR: &str = "journal";

/// Bytes before a packet's body.
pub const PACKET_HEADER_BYTES: usize = 5;
/// A packet is never larger: the largest is a screen with 10,000 rows of scrollback.
pub const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Kind of a packet with JSON.
pub const PACKET_JSON: u8 = 0;
/// Kind of a packet with a binary frame.
pub const PACKET_FRAME: u8 = 1;

/// The start message is one SEQPACKET datagram; below the kernel's default socket buffer of 208 KiB.
pub const START_BYTES_MAX: usize = 190 * 1024;

/// The supervisor's answer to [`ShimStarted::Born`]: init is in its cgroups. Closing the socket instead ends the start.
pub const ATTACHED: [u8; 1] = *b"+";

/// What a shim needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShimStart {
    /// The session.
    pub session: SessionId,
    /// The spawn.
    pub spawn: u32,
    /// Size of the terminal.
    pub size: WindowSize,
    /// The most the journal keeps on disk.
    pub journal_bytes_max: u64,
    /// The jail.
    pub plan: JailPlan,
}

/// What a shim tells about its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ShimStarted {
    /// Init is there, does nothing yet, and waits to be put into its cgroups. Only if the plan says `attach`; answered by [`ATTACHED`].
    Born {
        /// Host pid of the jail's init.
        init_pid: i32,
    },
    /// The program runs.
    Executed {
        /// Host pid of the jail's init.
        init_pid: i32,
    },
    /// Nothing runs. The exit record is on disk.
    Failed {
        /// The record.
        exit: Exit,
    },
}

/// Supervisor to shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ShimRequest {
    /// The first message.
    Hello {
        /// The newest protocol the supervisor speaks.
        protocol: u32,
    },
    /// See [`crate::link::PlaneMessage::Watch`].
    Watch {
        /// Number of the stream.
        stream: u32,
        /// First byte, or none for a keyframe.
        from: Option<u64>,
        /// Output below this may be sent; relative to the keyframe if `from` is none.
        limit: u64,
    },
    /// See [`crate::link::PlaneMessage::Credit`].
    Credit {
        /// The stream.
        stream: u32,
        /// Absolute offset.
        limit: u64,
    },
    /// Send a KEYFRAME on this stream.
    Keyframe {
        /// The stream.
        stream: u32,
    },
    /// Stop sending.
    Unwatch {
        /// The stream.
        stream: u32,
    },
    /// Stop sending on every stream: the link was lost.
    UnwatchAll,
    /// Change the size.
    Resize {
        /// Id of the request.
        id: u64,
        /// The size.
        size: WindowSize,
    },
    /// Write to the program.
    Input {
        /// Id of the request.
        id: u64,
        /// The bytes, base64.
        bytes_base64: String,
    },
    /// The screen.
    Screen {
        /// Id of the request.
        id: u64,
        /// How it is written.
        format: ScreenFormat,
        /// Rows of scrollback.
        scrollback: u32,
    },
    /// Only as the first and only request of a connection: duplicates of the jail's listeners, please. Answered by [`ShimEvent::Listeners`], with
    /// which they come (`SCM_RIGHTS`), and closed.
    Listeners,
    /// End the spawn. Asking twice hurries: the earlier deadline counts.
    Stop {
        /// Time between asking and killing.
        grace_ms: u64,
        /// Kill at once.
        force: bool,
    },
}

/// Shim to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ShimEvent {
    /// The answer to hello.
    Hello {
        /// Version spoken.
        protocol: u32,
        /// The session.
        session: SessionId,
        /// The spawn.
        spawn: u32,
        /// Host pid of the jail's init.
        init_pid: i32,
        /// Size now.
        size: WindowSize,
        /// Offset of the next byte.
        next_offset: u64,
    },
    /// The answer to [`ShimRequest::Listeners`]: one descriptor for each port, in this order.
    Listeners {
        /// On 127.0.0.1 inside.
        ports: Vec<u16>,
    },
    /// See [`crate::link::HostMessage::Watched`].
    Watched(Watched),
    /// A stream could not be opened. It is closed.
    WatchFailed {
        /// The stream.
        stream: u32,
        /// Why.
        error: CommandError,
    },
    /// See [`crate::link::HostMessage::Resized`].
    Resized {
        /// The stream.
        stream: u32,
        /// Offset.
        offset: u64,
        /// Size.
        size: WindowSize,
    },
    /// A request with an id was carried out.
    Reply {
        /// Id of the request.
        id: u64,
        /// What came of it.
        outcome: ShimOutcome,
    },
    /// An INPUT frame was written, or not.
    InputDone {
        /// The stream.
        stream: u32,
        /// Its sequence number.
        seq: u64,
        /// Why not.
        error: Option<CommandError>,
    },
    /// The program ended. Record, screen and keyframe are on disk; the shim is about to go. What streams still miss is in the journal.
    Exited {
        /// End of output.
        offset: u64,
        /// How it ended.
        exit: Exit,
    },
}

/// The outcome of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimOutcome {
    /// Done, nothing to tell.
    Done,
    /// Input was written.
    Written {
        /// Bytes.
        written: u64,
        /// Offset of the output then.
        offset: u64,
    },
    /// The screen.
    Screen(Box<ScreenResponse>),
    /// It was not done.
    Error(CommandError),
}

/// `final.json`: what is left of a terminal after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalScreen {
    /// The screen with all of its scrollback, as text.
    pub screen: ScreenResponse,
    /// The same rows with colours.
    pub ansi: String,
}

impl FinalScreen {
    /// The screen as a request wants it.
    #[must_use]
    pub fn respond(&self, format: ScreenFormat, scrollback: u32) -> ScreenResponse {
        let all = match format {
            ScreenFormat::Text => &self.screen.text,
            ScreenFormat::Ansi => &self.ansi,
        };
        let lines: Vec<&str> = all.split('\n').collect();
        let wanted = usize::from(self.screen.size.rows()).saturating_add(scrollback as usize);
        let text = lines.get(lines.len().saturating_sub(wanted)..).unwrap_or_default().join("\n");
        ScreenResponse { text, ..self.screen.clone() }
    }
}

/// Starts a packet; the body follows.
#[must_use]
pub fn packet_header(kind: u8, body_bytes: usize) -> [u8; PACKET_HEADER_BYTES] {
    // A body above PACKET_BYTES_MAX is never made; saturating makes the receiver refuse it rather than misread it.
    let [a, b, c, d] = u32::try_from(body_bytes).unwrap_or(u32::MAX).to_le_bytes();
    [a, b, c, d, kind]
}

/// Reads a packet's header: length of the body and its kind; none if it is too long or of no known kind.
#[must_use]
pub fn parse_packet_header(header: [u8; PACKET_HEADER_BYTES]) -> Option<(usize, u8)> {
    let [a, b, c, d, kind] = header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    (length <= PACKET_BYTES_MAX && kind <= PACKET_FRAME).then_some((length, kind))
}
