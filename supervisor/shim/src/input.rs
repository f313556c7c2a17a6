//! Input on its way to the program: whole pieces in order, acknowledged once written, answers to queries first.

use std::collections::VecDeque;
use std::io::{self, Write};

/// Unwritten input. Overflow: the piece is refused and its sender told, because the program does not read.
pub(crate) const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Unwritten answers to queries. Overflow: dropped; a program that asks this much without reading does not wait for the answers.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Who is told when a piece is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An INPUT frame.
    Frame { stream: u32, seq: u64 },
    /// A request.
    Request { id: u64 },
    /// The screen's answers.
    Reply,
}

#[derive(Debug)]
struct Piece {
    origin: Origin,
    bytes: Vec<u8>,
    written: usize,
}

/// The queue in front of the PTY.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pieces: VecDeque<Piece>,
    waiting: usize,
}

impl Input {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Queues a piece; false if there is no room for it.
    pub(crate) fn push(&mut self, origin: Origin, bytes: Vec<u8>) -> bool {
        let fits = self.waiting + bytes.len() <= INPUT_BYTES_MAX;
        if fits {
            self.waiting += bytes.len();
            self.pieces.push_back(Piece { origin, bytes, written: 0 });
        }
        fits
    }

    /// Queues answers in front of everything that is not yet begun: what asked for them waits, and must not read keystrokes instead.
    pub(crate) fn push_replies(&mut self, bytes: Vec<u8>) {
        let replies: usize =
            self.pieces.iter().filter(|piece| piece.origin == Origin::Reply).map(|piece| piece.bytes.len()).sum();
        if replies + bytes.len() > REPLY_BYTES_MAX {
            return;
        }
        self.waiting += bytes.len();
        let begun = self.pieces.iter().take_while(|piece| piece.written > 0 || piece.origin == Origin::Reply).count();
        self.pieces.insert(begun, Piece { origin: Origin::Reply, bytes, written: 0 });
    }

    /// Writes what the program's terminal takes; those whose pieces are through, with their length.
    pub(crate) fn write(&mut self, to: &mut dyn Write) -> io::Result<Vec<(Origin, u64)>> {
        let mut done = Vec::new();
        while let Some(piece) = self.pieces.front_mut() {
            let rest = piece.bytes.get(piece.written..).unwrap_or_default();
            if rest.is_empty() {
                self.waiting -= piece.bytes.len();
                done.push((piece.origin, piece.bytes.len() as u64));
                self.pieces.pop_front();
                continue;
            }
            match to.write(rest) {
                Ok(count) => piece.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Gives up on everything; whose it was.
    pub(crate) fn abandon(&mut self) -> Vec<Origin> {
        self.waiting = 0;
        self.pieces.drain(..).map(|piece| piece.origin).collect()
    }
}
