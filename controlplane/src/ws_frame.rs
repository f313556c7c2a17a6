//! The header of a WebSocket frame from a server (RFC 6455 section 5.2): two bytes and at most eight of length, never a mask.

/// FIN and text.
const TEXT: u8 = 0x81;
/// FIN and binary.
const BINARY: u8 = 0x82;

/// The longest header.
pub(crate) const HEAD_BYTES_MAX: usize = 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// A header, and how much of the array it is.
pub(crate) fn head(kind: Kind, payload_bytes: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    head[0] = match kind {
        Kind::Text => TEXT,
        Kind::Binary => BINARY,
    };
    let length = match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short), _) if short < 126 => {
            head[1] = short;
            2
        }
        (_, Ok(medium)) => {
            head[1] = 126;
            head[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    (head, length)
}
