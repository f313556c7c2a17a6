//! The supervisor's connection: packets in, packets out, never blocking.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agentapi_shared::frame::{HEADER_BYTES, Header};
use agentapi_shared::shim::{
    PACKET_FRAME, PACKET_HEADER_BYTES, PACKET_JSON, ShimEvent, ShimRequest, packet_header, parse_packet_header,
};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Unsent bytes. Overflow: the connection is dropped, as its other end has stopped reading; the supervisor connects again and asks anew.
const OUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Something the supervisor sent.
#[derive(Debug)]
pub(crate) enum Packet {
    Request(ShimRequest),
    Frame(Header, Vec<u8>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, inbound: Vec::new(), outbound: Vec::new(), sent: 0 })
    }

    /// Whether everything handed over so far has left.
    pub(crate) fn is_clear(&self) -> bool {
        self.outbound.is_empty()
    }

    /// Reads what is there. An error, also the end of the connection, means that it is over.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Packet>> {
        let mut packets = Vec::new();
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.inbound.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    self.parse(&mut packets)?;
                    if count < READ_BYTES {
                        return Ok(packets);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(packets),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn parse(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut rest = self.inbound.as_slice();
        while let Some((header, body)) = rest.split_first_chunk::<PACKET_HEADER_BYTES>() {
            let (length, kind) = parse_packet_header(*header).ok_or_else(|| malformed("packet header"))?;
            let Some(body) = body.get(..length) else { break };
            rest = rest.get(PACKET_HEADER_BYTES + length..).unwrap_or_default();
            if kind == PACKET_FRAME {
                let (header, payload) = Header::parse(body).map_err(|error| malformed(&error.to_string()))?;
                packets.push(Packet::Frame(header, payload.to_vec()));
            } else if let Ok(request) = serde_json::from_slice(body) {
                packets.push(Packet::Request(request));
            }
            // A request of a later protocol is not for us; the supervisor knows our version from the hello.
        }
        let consumed = self.inbound.len() - rest.len();
        self.inbound.drain(..consumed);
        if self.inbound.is_empty() {
            self.inbound = Vec::new();
        }
        Ok(())
    }

    /// Sends a message, or keeps what the socket does not take now.
    pub(crate) fn send(&mut self, event: &ShimEvent) -> io::Result<()> {
        let body = serde_json::to_vec(event)?;
        self.send_packet(PACKET_JSON, &[&body])
    }

    /// Sends a message with descriptors, at once or not at all: the connection must not have been sent anything before.
    pub(crate) fn send_with_descriptors(&self, event: &ShimEvent, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(event)?;
        let head = packet_header(PACKET_JSON, body.len());
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[] } else { rights.as_slice() };
        let parts = [IoSlice::new(&head), IoSlice::new(&body)];
        let sent = sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
        // A new socket has room for some hundred bytes.
        if sent == head.len() + body.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends a binary frame, or keeps what the socket does not take now.
    pub(crate) fn send_frame(&mut self, header: Header, payload: (&[u8], &[u8])) -> io::Result<()> {
        self.send_packet(PACKET_FRAME, &[&header.to_bytes(), payload.0, payload.1])
    }

    fn send_packet(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        debug_assert!(kind == PACKET_JSON || length >= HEADER_BYTES);
        let head = packet_header(kind, length);
        let mut written = 0;
        if self.is_clear() {
            let mut slices = vec![IoSlice::new(&head)];
            slices.extend(parts.iter().map(|part| IoSlice::new(part)));
            written = match self.socket.write_vectored(&slices) {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
                Err(error) => return Err(error),
            };
        }
        for part in std::iter::once(head.as_slice()).chain(parts.iter().copied()) {
            let skip = written.min(part.len());
            self.outbound.extend_from_slice(part.get(skip..).unwrap_or_default());
            written -= skip;
        }
        if self.outbound.len() - self.sent > OUT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the supervisor does not read"));
        }
        Ok(())
    }

    /// Sends what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.outbound.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbound = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

impl Connection {
    /// Sends what was kept, waiting for the other side, but not for long.
    pub(crate) fn finish(&mut self, patience: Duration) {
        let blocking = self.socket.set_nonblocking(false).and_then(|()| self.socket.set_write_timeout(Some(patience)));
        if blocking.is_ok() {
            let rest = self.outbound.get(self.sent..).unwrap_or_default();
            // Whoever does not get it reads the records.
            let _sent = self.socket.write_all(rest);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
