//! The screen as data and as text, for people and programs that read it rather than show it.

use agentapi_shared::WindowSize;

use super::engine::{CellView, Engine};
use super::render::{Addressing, Pen, strip_sequences, write_plain};
use super::scrollback::Scrollback;

/// What the screen shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// Its size.
    pub size: WindowSize,
    /// Where the cursor is.
    pub cursor: ScreenCursor,
    /// The title; empty if none.
    pub title: String,
    /// Its rows from the top, as many as the size says.
    pub lines: Vec<ScreenLine>,
}

/// The cursor on the screen, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenCursor {
    /// Row from the top.
    pub row: u16,
    /// Column from the left.
    pub col: u16,
    /// Whether it is shown.
    pub visible: bool,
}

/// A row of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenLine {
    /// Its text without spaces at the end.
    pub text: String,
    /// Whether the text goes on in the next row.
    pub wrapped: bool,
}

pub(super) fn read<E: Engine>(engine: &E) -> Screen {
    let buffer = engine.active();
    let cursor = engine.cursor();
    let lines = (0..engine.size().rows()).map(|row| {
        let wrapped = engine.wraps(buffer, row);
        ScreenLine { text: row_text(engine, row), wrapped }
    });
    Screen {
        size: engine.size(),
        cursor: ScreenCursor {
            row: cursor.row,
            col: cursor.col,
            visible: engine.controls().modes.private(25) == Some(true),
        },
        title: engine.controls().title.clone(),
        lines: lines.collect(),
    }
}

pub(super) fn text<E: Engine>(engine: &E, scrollback: &Scrollback, scrollback_rows: usize) -> String {
    let old = scrollback.tail(scrollback_rows).map(|row| strip_sequences(row.ansi).trim_end_matches(' ').to_owned());
    let shown = (0..engine.size().rows()).map(|row| row_text(engine, row));
    old.chain(shown).collect::<Vec<_>>().join("\n")
}

pub(super) fn ansi<E: Engine>(engine: &E, scrollback: &Scrollback, scrollback_rows: usize) -> String {
    let old = scrollback.tail(scrollback_rows).map(|row| row.ansi.to_vec());
    let shown = (0..engine.size().rows()).map(|row| {
        let cells: Vec<CellView<'_>> = engine.row(engine.active(), row).collect();
        let occupied = cells.iter().rposition(|cell| !cell.is_blank()).map_or(0, |last| last + 1);
        let mut out = Vec::new();
        let mut pen = Pen::default();
        pen.write_cells(&mut out, cells.into_iter().take(occupied), Addressing::None);
        pen.reset(&mut out);
        out
    });
    let lines: Vec<Vec<u8>> = old.chain(shown).collect();
    String::from_utf8_lossy(&lines.join(&b'\n')).into_owned()
}

fn row_text<E: Engine>(engine: &E, row: u16) -> String {
    let mut out = Vec::new();
    write_plain(&mut out, engine.row(engine.active(), row));
    let mut text = String::from_utf8_lossy(&out).into_owned();
    text.truncate(text.trim_end_matches(' ').len());
    text
}
