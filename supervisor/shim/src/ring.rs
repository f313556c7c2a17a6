//! The newest output in memory, and every change of size that is still of interest.
//!
//! The ring serves streams that keep up; what fell out of it is read from the journal. When the program is quiet it is given back.

use std::collections::VecDeque;

use agentapi_shared::WindowSize;

/// Output kept in memory: a quarter of a second of the fastest program. Overflow: the oldest bytes go; streams read them from the journal.
pub(crate) const RING_BYTES_MAX: usize = 256 * 1024;
/// Changes of size remembered. Overflow: the oldest go, and the oldest one kept stands for them.
const MARKS_MAX: usize = 1024;

/// The newest bytes, by offset.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    /// Offset after the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Offset of the oldest byte.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let kept = bytes.get(bytes.len().saturating_sub(RING_BYTES_MAX)..).unwrap_or_default();
        let overflow = (self.bytes.len() + kept.len()).saturating_sub(RING_BYTES_MAX);
        self.bytes.drain(..overflow.min(self.bytes.len()));
        self.bytes.extend(kept);
    }

    /// Up to `max` bytes from `offset` on, in the one or two pieces in which they lie; none if they are not here.
    pub(crate) fn slices(&self, offset: u64, max: usize) -> Option<(&[u8], &[u8])> {
        let skip = usize::try_from(offset.checked_sub(self.start())?).ok()?;
        let (a, b) = self.bytes.as_slices();
        let first = a.get(skip..).unwrap_or_default();
        let first = first.get(..max).unwrap_or(first);
        let second = b.get(skip.saturating_sub(a.len())..).unwrap_or_default();
        let second = second.get(..max - first.len()).unwrap_or(second);
        Some((first, second))
    }

    /// Gives the memory back; streams go on from the journal.
    pub(crate) fn release(&mut self) {
        self.bytes = VecDeque::new();
    }
}

/// Sizes by the offset from which they hold, and by their number, so that a stream knows which it has told.
#[derive(Debug)]
pub(crate) struct Marks {
    kept: VecDeque<(u64, WindowSize)>,
    dropped: u64,
}

impl Marks {
    pub(crate) fn new(initial: WindowSize) -> Self {
        Self { kept: VecDeque::from([(0, initial)]), dropped: 0 }
    }

    pub(crate) fn push(&mut self, offset: u64, size: WindowSize) {
        self.kept.push_back((offset, size));
        if self.kept.len() > MARKS_MAX {
            self.kept.pop_front();
            self.dropped += 1;
        }
    }

    /// The size now.
    pub(crate) fn newest(&self) -> WindowSize {
        self.kept.back().map_or(WindowSize::DEFAULT, |(_, size)| *size)
    }

    /// The size that holds at `offset`.
    pub(crate) fn at(&self, offset: u64) -> WindowSize {
        let before = self.kept.partition_point(|(from, _)| *from <= offset);
        self.kept.get(before.saturating_sub(1)).map_or(WindowSize::DEFAULT, |(_, size)| *size)
    }

    /// How many changes there were up to and including `offset`.
    pub(crate) fn count_to(&self, offset: u64) -> u64 {
        self.dropped + self.kept.partition_point(|(from, _)| *from <= offset) as u64
    }

    /// How many changes there were before `offset`.
    pub(crate) fn count_before(&self, offset: u64) -> u64 {
        self.dropped + self.kept.partition_point(|(from, _)| *from < offset) as u64
    }

    /// The change with that number, or the oldest kept after it.
    pub(crate) fn get(&self, number: u64) -> Option<(u64, WindowSize)> {
        self.kept.get(usize::try_from(number.saturating_sub(self.dropped)).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_the_newest_bytes(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..150_000), 1..8), max in 1usize..100_000) {
            let mut ring = Ring::default();
            let mut all = Vec::new();
            for chunk in &chunks {
                ring.push(chunk);
                all.extend_from_slice(chunk);
            }
            prop_assert_eq!(ring.end(), all.len() as u64);
            let start = all.len().saturating_sub(RING_BYTES_MAX);
            prop_assert_eq!(ring.start(), start as u64);
            let mut read = Vec::new();
            while ((start + read.len()) as u64) < ring.end() {
                let (a, b) = ring.slices((start + read.len()) as u64, max).unwrap();
                prop_assert!((1..=max).contains(&(a.len() + b.len())));
                read.extend_from_slice(a);
                read.extend_from_slice(b);
            }
            prop_assert_eq!(read, &all[start..]);
            if start > 0 {
                prop_assert!(ring.slices(start as u64 - 1, 1).is_none());
            }
        }
    }

    #[test]
    fn sizes_hold_from_their_offset_on() {
        let (small, large) = (WindowSize::clamped(10, 10), WindowSize::clamped(100, 100));
        let mut marks = Marks::new(small);
        marks.push(5, large);
        assert_eq!((marks.at(0), marks.at(4), marks.at(5), marks.newest()), (small, small, large, large));
        assert_eq!((marks.count_before(5), marks.count_to(5)), (1, 2));
        assert_eq!((marks.get(1), marks.get(2)), (Some((5, large)), None));
    }
}
