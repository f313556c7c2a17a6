//! The newest output of one stream, by absolute offset, in a bounded memory.
//!
//! Invariants: chunks are contiguous from `tail` to `head`; what is dropped is always the oldest. A mark says from which offset on the
//! terminal has which size; it lies on the border between two chunks, because it comes in order with the output.

use std::collections::VecDeque;

use agentapi_shared::WindowSize;
use bytes::Bytes;

/// Output kept for all viewers of a session together. Overflow: the oldest is dropped; who still needs it reads the host's journal.
pub(super) const RING_BYTES: usize = 512 * 1024;

/// What a chunk costs beside its bytes; many tiny ones must not cost more than the ring may.
const CHUNK_OVERHEAD_BYTES: usize = 96;

/// Sizes kept. Overflow: the oldest is forgotten; a program is not resized this often within one ring.
const MARKS_MAX: usize = 256;

/// Payloads below this size are copied, so that they do not keep the whole read buffer of the link alive.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Grows by one with each.
    pub(super) seq: u64,
    /// First offset with the new size.
    pub(super) offset: u64,
    /// The size.
    pub(super) size: WindowSize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<(u64, Bytes)>,
    tail: u64,
    head: u64,
    cost: usize,
    marks: VecDeque<Mark>,
    next_mark: u64,
    /// The size at `tail`, as far as it is known.
    size: WindowSize,
}

impl Ring {
    /// An empty ring that begins at an offset.
    pub(super) fn new(at: u64, size: WindowSize) -> Self {
        Self { chunks: VecDeque::new(), tail: at, head: at, cost: 0, marks: VecDeque::new(), next_mark: 1, size }
    }

    /// Oldest offset that is there.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Offset after the newest byte.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Appends output. Bytes that are there already are left out; after a hole the ring begins anew.
    pub(super) fn push(&mut self, offset: u64, payload: Bytes) {
        let skip = self.head.saturating_sub(offset);
        if skip >= payload.len() as u64 {
            return;
        }
        if offset > self.head {
            *self = Self { next_mark: self.next_mark, ..Self::new(offset, self.newest_size()) };
        }
        let fresh = payload.slice(usize::try_from(skip).unwrap_or(0)..);
        let kept = if fresh.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&fresh) } else { fresh };
        self.cost += kept.len() + CHUNK_OVERHEAD_BYTES;
        let at = self.head;
        self.head += kept.len() as u64;
        self.chunks.push_back((at, kept));
        // The newest chunk stays, however large it is: something must be there to be sent.
        while self.cost > RING_BYTES && self.chunks.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((at, bytes)) = self.chunks.pop_front() {
            self.cost -= bytes.len() + CHUNK_OVERHEAD_BYTES;
            self.tail = at + bytes.len() as u64;
            self.forget_marks_before_tail();
        }
    }

    fn forget_marks_before_tail(&mut self) {
        while self.marks.front().is_some_and(|mark| mark.offset < self.tail) || self.marks.len() > MARKS_MAX {
            if let Some(mark) = self.marks.pop_front() {
                self.size = mark.size;
            }
        }
    }

    /// Drops everything below an offset: of a private ring what was sent is of no more use.
    pub(super) fn drop_below(&mut self, offset: u64) {
        while self.chunks.front().is_some_and(|(at, bytes)| at + bytes.len() as u64 <= offset) {
            self.drop_oldest();
        }
    }

    /// From `offset` on the terminal has this size. One that it has already is no change: a stream from its very beginning starts with such a mark.
    pub(super) fn mark(&mut self, offset: u64, size: WindowSize) {
        if size == self.newest_size() {
            return;
        }
        self.marks.push_back(Mark { seq: self.next_mark, offset, size });
        self.next_mark += 1;
        self.forget_marks_before_tail();
    }

    /// Number of the newest mark.
    pub(super) fn last_mark(&self) -> u64 {
        self.next_mark - 1
    }

    /// The first mark after number `seen` that is due at `offset`; ones that lie before it are of no more use to that viewer.
    pub(super) fn due_mark(&self, offset: u64, seen: u64) -> Option<Mark> {
        self.marks.iter().find(|mark| mark.seq > seen && mark.offset == offset).copied()
    }

    /// The newest mark strictly below an offset: where a viewer that comes from elsewhere goes on.
    pub(super) fn last_mark_below(&self, offset: u64) -> u64 {
        let below = self.marks.iter().rev().find(|mark| mark.offset < offset);
        below.map_or_else(|| self.marks.front().map_or(self.last_mark(), |first| first.seq - 1), |mark| mark.seq)
    }

    /// The size at an offset.
    pub(super) fn size_at(&self, offset: u64) -> WindowSize {
        self.marks.iter().rev().find(|mark| mark.offset <= offset).map_or(self.size, |mark| mark.size)
    }

    /// The newest size.
    pub(super) fn newest_size(&self) -> WindowSize {
        self.marks.back().map_or(self.size, |mark| mark.size)
    }

    /// The bytes from an offset to the end of their chunk, if they are there.
    pub(super) fn at(&self, offset: u64) -> Option<Bytes> {
        if offset < self.tail || offset >= self.head {
            return None;
        }
        let index = self.chunks.partition_point(|(at, bytes)| at + bytes.len() as u64 <= offset);
        let (at, bytes) = self.chunks.get(index)?;
        Some(bytes.slice(usize::try_from(offset - at).ok()?..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte_at(offset: u64) -> u8 {
        offset.to_le_bytes()[0] ^ offset.to_le_bytes()[1]
    }

    fn bytes(from: u64, len: usize) -> Bytes {
        (from..from + len as u64).map(byte_at).collect::<Vec<_>>().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_there_is_exact_and_bounded(start in 0u64..1000, pushes in proptest::collection::vec((0u64..50, 1usize..70_000), 1..60)) {
            let mut ring = Ring::new(start, WindowSize::DEFAULT);
            for (overlap, len) in pushes {
                let from = ring.head().saturating_sub(overlap).max(start);
                ring.push(from, bytes(from, len));
                prop_assert!(ring.cost <= RING_BYTES + 70_000 + CHUNK_OVERHEAD_BYTES);
                let mut at = ring.tail();
                while let Some(chunk) = ring.at(at) {
                    prop_assert!(!chunk.is_empty());
                    prop_assert_eq!(&chunk, &bytes(at, chunk.len()));
                    at += chunk.len() as u64;
                }
                prop_assert_eq!(at, ring.head());
            }
        }
    }

    #[test]
    fn a_hole_begins_anew() {
        let mut ring = Ring::new(0, WindowSize::DEFAULT);
        ring.push(0, bytes(0, 10));
        ring.push(20, bytes(20, 5));
        assert_eq!((ring.tail(), ring.head(), ring.at(5)), (20, 25, None));
    }

    #[test]
    fn marks_come_due_once_and_in_order() {
        let size = |cols| WindowSize::clamped(cols, 24);
        let mut ring = Ring::new(0, size(80));
        ring.push(0, bytes(0, 10));
        ring.mark(10, size(90));
        ring.mark(10, size(91));
        ring.mark(10, size(91));
        ring.push(10, bytes(10, 10));
        ring.mark(20, size(92));
        assert_eq!(ring.due_mark(9, 0), None);
        let first = ring.due_mark(10, 0).unwrap();
        let second = ring.due_mark(10, first.seq).unwrap();
        assert_eq!((first.size, second.size, ring.due_mark(10, second.seq)), (size(90), size(91), None));
        assert_eq!((ring.size_at(9), ring.size_at(10), ring.newest_size()), (size(80), size(91), size(92)));
        // Coming from elsewhere: marks at the very offset are told again, older ones not.
        assert_eq!((ring.last_mark_below(10), ring.last_mark_below(15), ring.last_mark_below(20)), (0, 2, 2));
    }

    #[test]
    fn tiny_chunks_cost_what_they_cost() {
        let mut ring = Ring::new(0, WindowSize::DEFAULT);
        for offset in 0..100_000 {
            ring.push(offset, bytes(offset, 1));
        }
        assert!(ring.chunks.len() <= RING_BYTES / CHUNK_OVERHEAD_BYTES);
        assert_eq!(ring.head(), 100_000);
    }
}
