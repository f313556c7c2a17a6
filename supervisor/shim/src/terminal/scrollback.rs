//! Rows that scrolled off the top of the primary screen, kept as SGR text in a bounded store.
//!
//! A row starts with default attributes and ends with them, so that any run of rows can be shown by itself. Rows lie one
//! after another in blocks of bytes; the oldest block goes as a whole. 10,000 lines of a log take well under 1 MiB,
//! where the engine's own history would take 28.

use std::collections::VecDeque;

/// Rows that can be asked for. Overflow: the oldest rows are forgotten.
pub const ROWS_MAX: usize = 10_000;
/// Bytes of all blocks together, whichever limit comes first. Overflow: as above.
pub const BYTES_MAX: usize = 1 << 20;
/// A block this long takes no further row: small enough that dropping one loses little, large enough to be cheap.
const BLOCK_BYTES: usize = 16 << 10;
/// Longest row: 500 cells that each change both colours stay below it. Overflow: kept as plain text, cut at a character.
const ROW_BYTES_MAX: usize = 24 << 10;
/// Length (2 bytes) and flags in front of a row.
const HEADER_BYTES: usize = 3;

const _: () = assert!(ROW_BYTES_MAX <= u16::MAX as usize);

/// What a row's text does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowFlags {
    /// The text goes on in the next row.
    pub wrapped: bool,
    /// The last column was left empty because a wide character did not fit.
    pub short: bool,
    /// The first character is a wide one.
    pub starts_wide: bool,
}

impl RowFlags {
    fn bits(self) -> u8 {
        u8::from(self.wrapped) | u8::from(self.short) << 1 | u8::from(self.starts_wide) << 2
    }

    fn from_bits(bits: u8) -> Self {
        Self { wrapped: bits & 1 != 0, short: bits & 2 != 0, starts_wide: bits & 4 != 0 }
    }
}

/// A row of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRow<'a> {
    /// Text with SGR and OSC 8 sequences.
    pub ansi: &'a [u8],
    /// What it does not say.
    pub flags: RowFlags,
    /// It is as wide as the terminal is now, so that a wrapped one can be printed into its successor.
    pub current_width: bool,
}

#[derive(Debug, Default)]
struct Block {
    rows: usize,
    bytes: Vec<u8>,
}

/// The store.
#[derive(Debug, Default)]
pub struct Scrollback {
    blocks: VecDeque<Block>,
    rows: usize,
    bytes: usize,
    /// Rows since the width last changed.
    rows_of_width: usize,
}

impl Scrollback {
    /// Rows that can be asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.min(ROWS_MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row; `write` writes its text, `plain` does if that is too long.
    pub fn push(&mut self, flags: RowFlags, write: impl FnOnce(&mut Vec<u8>), plain: impl FnOnce(&mut Vec<u8>)) {
        let block = self.open_block();
        let start = block.bytes.len();
        block.bytes.extend([0, 0, flags.bits()]);
        let text = start + HEADER_BYTES;
        write(&mut block.bytes);
        if block.bytes.len() - text > ROW_BYTES_MAX {
            block.bytes.truncate(text);
            plain(&mut block.bytes);
            cut_at_char(&mut block.bytes, text, ROW_BYTES_MAX);
        }
        let length = u16::try_from(block.bytes.len() - text).unwrap_or(u16::MAX);
        block.bytes[start..start + 2].copy_from_slice(&length.to_le_bytes());
        block.rows += 1;
        self.bytes += block.bytes.len() - start;
        self.rows += 1;
        self.rows_of_width += 1;
        self.trim();
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// From now on rows have another width.
    pub fn width_changed(&mut self) {
        self.rows_of_width = 0;
    }

    /// The newest `count` rows, oldest first.
    pub fn tail(&self, count: usize) -> impl Iterator<Item = StoredRow<'_>> {
        let skip = self.rows - count.min(self.len());
        let old_width = self.rows.saturating_sub(self.rows_of_width);
        let rows = self.blocks.iter().flat_map(|block| BlockRows(&block.bytes)).enumerate().skip(skip);
        rows.map(move |(index, (flags, ansi))| StoredRow { ansi, flags, current_width: index >= old_width })
    }

    /// Gives back what the newest block has to spare.
    pub fn compact(&mut self) {
        if let Some(block) = self.blocks.back_mut() {
            block.bytes.shrink_to_fit();
        }
    }

    fn open_block(&mut self) -> &mut Block {
        let full = self.blocks.back().is_none_or(|block| block.bytes.len() >= BLOCK_BYTES);
        if full {
            if let Some(block) = self.blocks.back_mut() {
                block.bytes.shrink_to_fit();
            }
            self.blocks.push_back(Block::default());
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// Drops the oldest blocks that the limits allow no longer; never the one being written.
    fn trim(&mut self) {
        while let Some(oldest) = self.blocks.front()
            && self.blocks.len() > 1
            && (self.bytes > BYTES_MAX || self.rows - oldest.rows >= ROWS_MAX)
        {
            self.rows -= oldest.rows;
            self.bytes -= oldest.bytes.len();
            self.blocks.pop_front();
        }
        self.rows_of_width = self.rows_of_width.min(self.rows);
    }
}

fn cut_at_char(bytes: &mut Vec<u8>, from: usize, max: usize) {
    if bytes.len() - from > max {
        let mut end = from + max;
        while end > from && bytes[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        bytes.truncate(end);
    }
}

/// Rows of a block in order.
struct BlockRows<'a>(&'a [u8]);

impl<'a> Iterator for BlockRows<'a> {
    type Item = (RowFlags, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.0.split_at_checked(HEADER_BYTES)?;
        let (row, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([header[0], header[1]])))?;
        self.0 = rest;
        Some((RowFlags::from_bits(header[2]), row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(store: &mut Scrollback, text: &str) {
        store.push(RowFlags::default(), |out| out.extend(text.bytes()), |_| ());
    }

    #[test]
    fn keeps_the_newest_rows_in_order() {
        let mut store = Scrollback::default();
        (0..30_000).for_each(|n| push(&mut store, &n.to_string()));
        assert_eq!(store.len(), ROWS_MAX);
        let rows: Vec<_> = store.tail(ROWS_MAX).map(|row| String::from_utf8_lossy(row.ansi).into_owned()).collect();
        assert_eq!((rows.len(), rows[0].as_str(), rows[9_999].as_str()), (ROWS_MAX, "20000", "29999"));
        assert_eq!(store.tail(1).next().map(|row| row.ansi.to_vec()), Some(b"29999".to_vec()));
    }

    #[test]
    fn is_bounded_in_bytes_and_by_row() {
        let mut store = Scrollback::default();
        (0..1_000).for_each(|_| push(&mut store, &"x".repeat(9_000)));
        assert!(store.bytes() <= BYTES_MAX && store.bytes() > BYTES_MAX - 2 * BLOCK_BYTES, "{}", store.bytes());
        let plain = "ü".repeat(ROW_BYTES_MAX);
        store.push(RowFlags::default(), |o| o.extend([b'x'; 2 * BLOCK_BYTES]), |o| o.extend(plain.bytes()));
        let row = store.tail(1).next().map(|row| row.ansi.to_vec()).unwrap_or_default();
        assert_eq!(String::from_utf8(row).map(|text| text.len()), Ok(ROW_BYTES_MAX));
    }

    #[test]
    fn rows_remember_whether_they_have_the_current_width() {
        let mut store = Scrollback::default();
        push(&mut store, "old");
        store.width_changed();
        push(&mut store, "new");
        assert_eq!(store.tail(9).map(|row| row.current_width).collect::<Vec<_>>(), [false, true]);
        store.clear();
        assert_eq!((store.len(), store.bytes(), store.tail(9).count()), (0, 0, 0));
    }
}
