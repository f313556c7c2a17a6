//! Binary frames: the same fixed header on every WebSocket and on the shim's socket.
//!
//! ```text
//!  0       1       2               6                              14
//!  +-------+-------+---------------+------------------------------+----------
//!  | type  | flags | stream (u32)  | position (u64)               | payload
//!  +-------+-------+---------------+------------------------------+----------
//! ```
//! Integers are little endian. `stream` names what the payload belongs to: on the link and on the shim's socket the number that
//! `watch` gave, on a viewer's socket the number of the spawn. `position` is an offset in the spawn's output, or for INPUT a sequence number.

use crate::size::WindowSize;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 14;

/// A payload is never larger: a PTY read is at most 64 KiB, a keyframe with its scrollback fits in 2 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Input of one frame; a paste that is larger is cut into several, so that a Ctrl-C can overtake the rest.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Flag: the payload is compressed. Reserved; nothing sends it yet and a receiver refuses it.
pub const FLAG_COMPRESSED: u8 = 1;
/// Flag of a KEYFRAME: output before it was skipped for this receiver.
pub const FLAG_SKIPPED: u8 = 2;

/// What a frame carries. 16 to 31 are reserved for byte streams (files, uploads, recordings, HTTP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Terminal output; position is the offset of its first byte.
    Output = 1,
    /// The state of the terminal at an offset, as escape sequences; see [`Keyframe`].
    Keyframe = 2,
    /// Older scrollback. Reserved.
    Rows = 3,
    /// Bytes for the program; position is the sender's sequence number.
    Input = 4,
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub frame_type: FrameType,
    /// `FLAG_*`.
    pub flags: u8,
    /// Whose payload it is.
    pub stream: u32,
    /// Offset or sequence number.
    pub position: u64,
}

/// A frame that cannot be read; the connection it came on is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header.
    #[error("binary frame of {0} bytes is shorter than its header of {HEADER_BYTES}")]
    Short(usize),
    /// A type this version does not know.
    #[error("binary frame of unknown type {0}")]
    UnknownType(u8),
    /// A flag this version does not know, or one that was not negotiated.
    #[error("binary frame with unknown flags {0:#04x}")]
    UnknownFlags(u8),
    /// A keyframe without its size, or with an impossible one.
    #[error("keyframe with a malformed size")]
    KeyframeSize,
}

impl Header {
    /// The header of a frame without flags.
    #[must_use]
    pub fn new(frame_type: FrameType, stream: u32, position: u64) -> Self {
        Self { frame_type, flags: 0, stream, position }
    }

    /// The 14 bytes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.frame_type as u8;
        out[1] = self.flags;
        out[2..6].copy_from_slice(&self.stream.to_le_bytes());
        out[6..14].copy_from_slice(&self.position.to_le_bytes());
        out
    }

    /// Header and payload in one buffer.
    #[must_use]
    pub fn with_payload(self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&self.to_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Splits a frame into header and payload.
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let Some((header, payload)) = frame.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Short(frame.len()));
        };
        let [kind, flags, s0, s1, s2, s3, position @ ..] = *header;
        let frame_type = match kind {
            1 => FrameType::Output,
            2 => FrameType::Keyframe,
            3 => FrameType::Rows,
            4 => FrameType::Input,
            other => return Err(FrameError::UnknownType(other)),
        };
        let allowed = if frame_type == FrameType::Keyframe { FLAG_SKIPPED } else { 0 };
        if flags & !allowed != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let stream = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok((Self { frame_type, flags, stream, position: u64::from_le_bytes(position) }, payload))
    }
}

/// The payload of a KEYFRAME: `u16 cols, u16 rows`, then escape sequences for a terminal of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyframe<'a> {
    /// The size the sequences are written for.
    pub size: WindowSize,
    /// What to feed into the terminal.
    pub bytes: &'a [u8],
}

impl<'a> Keyframe<'a> {
    /// The payload on the wire.
    #[must_use]
    pub fn to_payload(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.bytes.len());
        out.extend_from_slice(&self.size.cols().to_le_bytes());
        out.extend_from_slice(&self.size.rows().to_le_bytes());
        out.extend_from_slice(self.bytes);
        out
    }

    /// Reads a payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (&[c0, c1, r0, r1], bytes) = payload.split_first_chunk::<4>().ok_or(FrameError::KeyframeSize)?;
        let (cols, rows) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1]));
        let size = WindowSize::new(cols, rows).map_err(|_| FrameError::KeyframeSize)?;
        Ok(Self { size, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_header_survives_the_wire(kind in 1u8..=4, stream: u32, position: u64, payload: Vec<u8>) {
            let types = [FrameType::Output, FrameType::Keyframe, FrameType::Rows, FrameType::Input];
            let header = Header::new(types[usize::from(kind) - 1], stream, position);
            let frame = header.with_payload(&payload);
            prop_assert_eq!(Header::parse(&frame), Ok((header, payload.as_slice())));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok((header, payload)) = Header::parse(&bytes) {
                prop_assert_eq!(header.with_payload(payload), bytes);
            }
        }

        #[test]
        fn any_keyframe_survives_the_wire(cols in 2u16..=500, rows in 1u16..=500, bytes: Vec<u8>) {
            let size = WindowSize::clamped(cols, rows);
            let payload = Keyframe { size, bytes: &bytes }.to_payload();
            prop_assert_eq!(Keyframe::parse(&payload), Ok(Keyframe { size, bytes: &bytes }));
        }
    }

    #[test]
    fn frames_that_nobody_negotiated_are_refused() {
        let mut frame = Header::new(FrameType::Output, 1, 2).with_payload(b"x");
        frame[1] = FLAG_COMPRESSED;
        assert_eq!(Header::parse(&frame), Err(FrameError::UnknownFlags(1)));
        frame[0] = 17;
        assert_eq!(Header::parse(&frame), Err(FrameError::UnknownType(17)));
        assert_eq!(Header::parse(&frame[..13]), Err(FrameError::Short(13)));
        assert_eq!(Keyframe::parse(&[0, 0, 1, 0]), Err(FrameError::KeyframeSize));
    }
}
