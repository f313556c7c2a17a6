//! What the supervisor asks for.

use std::time::{Duration, Instant};

use agentapi_shared::frame::{FrameType, Header, INPUT_BYTES_MAX};
use agentapi_shared::link::CommandError;
use agentapi_shared::shim::{PROTOCOL, ShimEvent, ShimOutcome, ShimRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Service;
use crate::connection::Packet;
use crate::input::Origin;

/// So long an acknowledgement of typed input waits, and with it the journal and the screen of what the program says to it, most often its echo.
/// Done at once they would compete for the processors with every process that passes the echo on to the person who waits for it.
const ACK_HOLD: Duration = Duration::from_millis(2);

impl Service {
    pub(super) fn serve_connection(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let packets = connection.flush().and_then(|()| connection.read());
        match packets {
            Ok(packets) => self.obey(packets),
            Err(_) => self.disconnect(),
        }
    }

    /// Does what the supervisor asks for.
    pub(super) fn obey(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            match packet {
                Packet::Request(request) => self.request(request),
                Packet::Frame(header, bytes) => self.input_frame(header, bytes),
            }
        }
    }

    fn request(&mut self, request: ShimRequest) {
        if !matches!(request, ShimRequest::Credit { .. }) {
            self.settle_echo();
        }
        match request {
            ShimRequest::Hello { protocol } => {
                let hello = ShimEvent::Hello {
                    protocol: protocol.min(PROTOCOL),
                    session: self.start.session,
                    spawn: self.start.spawn,
                    init_pid: self.init.as_raw(),
                    size: self.output.marks.newest(),
                    next_offset: self.output.ring.end(),
                };
                self.send(&hello);
            }
            ShimRequest::Watch { stream, from, limit } => self.watch(stream, from, limit),
            ShimRequest::Credit { stream, limit } => self.streams.credit(stream, limit),
            ShimRequest::Keyframe { stream } => self.parser.keyframe(stream),
            ShimRequest::Unwatch { stream } => self.streams.remove(stream),
            ShimRequest::UnwatchAll => self.streams.clear(),
            ShimRequest::Resize { id, size } => {
                let outcome = self.resize(size).map_or_else(ShimOutcome::Error, |()| ShimOutcome::Done);
                self.send(&ShimEvent::Reply { id, outcome });
            }
            ShimRequest::Input { id, bytes_base64 } => match BASE64_STANDARD.decode(bytes_base64) {
                Ok(bytes) => self.type_in(Origin::Request { id }, bytes),
                Err(_) => {
                    self.answer_input(Origin::Request { id }, Err(CommandError::new("invalid", "input is not base64")))
                }
            },
            ShimRequest::Screen { id, format, scrollback } => self.parser.screen(id, format, scrollback),
            ShimRequest::Stop { grace_ms, force } => self.stop(grace_ms, force),
            // Descriptors are handed out to newcomers only: on this connection nobody expects them.
            ShimRequest::Listeners => {}
        }
    }

    fn watch(&mut self, stream: u32, from: Option<u64>, limit: u64) {
        if !self.streams.has_room_for(stream) {
            let error = CommandError::new("busy", "too many streams of this session are open");
            return self.send(&ShimEvent::WatchFailed { stream, error });
        }
        let Some(connection) = &mut self.connection else { return };
        match self.streams.watch(stream, from, limit, &self.output, connection) {
            Ok(true) => {}
            Ok(false) => self.parser.keyframe(stream),
            Err(_) => self.disconnect(),
        }
    }

    fn input_frame(&mut self, header: Header, bytes: Vec<u8>) {
        if header.frame_type != FrameType::Input || bytes.len() > INPUT_BYTES_MAX {
            // The supervisor checks what viewers send; such a frame is a defect of its own.
            return self.disconnect();
        }
        self.type_in(Origin::Frame { stream: header.stream, seq: header.position }, bytes);
    }

    /// Queues input, and writes at once what the terminal takes: a keystroke does not wait for the next turn.
    fn type_in(&mut self, origin: Origin, bytes: Vec<u8>) {
        if self.ending.terminal_closed {
            self.answer_input(origin, Err(CommandError::new("not_running", "the program has ended")));
        } else if self.input.push(origin, bytes) {
            self.write_input();
        } else {
            let detail = "the program does not read its input: 1 MiB waits already";
            self.answer_input(origin, Err(CommandError::new("input_full", detail)));
        }
    }

    /// Tells whoever sent a piece what became of it.
    pub(super) fn answer_input(&mut self, origin: Origin, outcome: Result<u64, CommandError>) {
        let event = match origin {
            Origin::Reply => return,
            Origin::Frame { stream, seq } => {
                self.held.push(ShimEvent::InputDone { stream, seq, error: outcome.err() });
                self.held_until.get_or_insert_with(|| Instant::now() + ACK_HOLD);
                return;
            }
            Origin::Request { id } => {
                let offset = self.output.ring.end();
                let outcome =
                    outcome.map_or_else(ShimOutcome::Error, |written| ShimOutcome::Written { written, offset });
                ShimEvent::Reply { id, outcome }
            }
        };
        self.send(&event);
    }

    /// Sends the acknowledgements that were held back, and records the echo.
    pub(super) fn release_held(&mut self) {
        self.held_until = None;
        self.settle_echo();
        for event in std::mem::take(&mut self.held) {
            self.send(&event);
        }
    }
}
