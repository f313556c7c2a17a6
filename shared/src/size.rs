//! The size of a terminal, parsed once at the edge so that nothing inside has to doubt it.

use serde::{Deserialize, Serialize};

/// A terminal narrower or lower than this cannot show a prompt; engines misbehave at one column.
pub const COLS_MIN: u16 = 2;
/// See [`COLS_MIN`].
pub const ROWS_MIN: u16 = 1;
/// Wider than any real screen; bounds what one grid can cost: 500 x 500 cells of 24 bytes are 6 MB.
pub const COLS_MAX: u16 = 500;
/// See [`COLS_MAX`].
pub const ROWS_MAX: u16 = 500;

/// Columns and rows of a terminal, both within the limits above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "RawSize")]
pub struct WindowSize {
    cols: u16,
    rows: u16,
}

/// A size outside the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("size {cols}x{rows} is impossible: cols {COLS_MIN}-{COLS_MAX}, rows {ROWS_MIN}-{ROWS_MAX}")]
pub struct InvalidSize {
    cols: u64,
    rows: u64,
}

impl WindowSize {
    /// What a session gets when nobody says otherwise.
    pub const DEFAULT: Self = Self { cols: 120, rows: 40 };

    /// A size, if it is within the limits.
    pub fn new(cols: u16, rows: u16) -> Result<Self, InvalidSize> {
        let fits = (COLS_MIN..=COLS_MAX).contains(&cols) && (ROWS_MIN..=ROWS_MAX).contains(&rows);
        if fits { Ok(Self { cols, rows }) } else { Err(InvalidSize { cols: cols.into(), rows: rows.into() }) }
    }

    /// The nearest size within the limits: for sizes that come from a terminal rather than from a request.
    #[must_use]
    pub fn clamped(cols: u16, rows: u16) -> Self {
        Self { cols: cols.clamp(COLS_MIN, COLS_MAX), rows: rows.clamp(ROWS_MIN, ROWS_MAX) }
    }

    /// Columns.
    #[must_use]
    pub fn cols(self) -> u16 {
        self.cols
    }

    /// Rows.
    #[must_use]
    pub fn rows(self) -> u16 {
        self.rows
    }
}

impl Default for WindowSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The size as JSON writes it; wide integers so that 70000 is an impossible size and not a parse error.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSize {
    cols: u64,
    rows: u64,
}

impl TryFrom<RawSize> for WindowSize {
    type Error = InvalidSize;

    fn try_from(raw: RawSize) -> Result<Self, InvalidSize> {
        let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        Self::new(narrow(raw.cols), narrow(raw.rows)).map_err(|_| InvalidSize { cols: raw.cols, rows: raw.rows })
    }
}

impl From<WindowSize> for RawSize {
    fn from(size: WindowSize) -> Self {
        Self { cols: size.cols.into(), rows: size.rows.into() }
    }
}
