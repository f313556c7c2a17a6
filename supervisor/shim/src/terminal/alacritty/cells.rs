//! Cells as the rest of the terminal sees them, and rows on their way to the scrollback.

use alacritty_terminal::grid::Row;
use alacritty_terminal::index::Column;
use alacritty_terminal::term::cell::{Cell, Flags};

use crate::terminal::engine::{Attrs, CellKind, CellView, Color, NamedColor, Style};
use crate::terminal::render::{Addressing, Pen, STYLE_BITS, push_char, write_plain};
use crate::terminal::scrollback::{RowFlags, Scrollback};

/// Marks of cells that are not a character of one column.
const NOT_ONE_COLUMN: Flags = Flags::WIDE_CHAR.union(Flags::WIDE_CHAR_SPACER).union(Flags::LEADING_WIDE_CHAR_SPACER);

pub(super) fn row_wraps(row: &Row<Cell>) -> bool {
    row.last().is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE))
}

pub(super) fn push_row(row: &Row<Cell>, next: Option<&Row<Cell>>, forced_wrap: bool, scrollback: &mut Scrollback) {
    let cells = &row[..];
    let wrapped = forced_wrap || row_wraps(row);
    let ends = (cells.last().map(view), next.map(|row| view(&row[Column(0)])));
    let flags = RowFlags {
        wrapped,
        short: wrapped && matches!(ends, (Some(last), Some(next)) if last.is_left_by(&next)),
        starts_wide: cells[0].flags.contains(Flags::WIDE_CHAR),
    };
    let shown = if wrapped { cells.len() } else { occupied(cells) };
    // A row that will not be followed by its wide character must still reach the last column.
    let filled = move |cell| {
        let view = view(cell);
        let filler = view.kind == CellKind::Leading && !flags.short;
        if filler { CellView { kind: CellKind::Narrow, ..view } } else { view }
    };
    let cells = &cells[..shown];
    scrollback.push(
        flags,
        |out| {
            let mut pen = Pen::default();
            for cell in cells {
                // Most cells look like the one before: for a flood of output this loop is what counts.
                if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
                    continue;
                }
                let plain = cell.extra.is_none() && !cell.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER);
                if plain && pen.is(plain_style(cell)) {
                    push_char(out, cell.c);
                } else {
                    pen.write_cells(out, std::iter::once(filled(cell)), Addressing::None);
                }
            }
            pen.reset(out);
        },
        |out| write_plain(out, cells.iter().map(filled)),
    );
}

/// Cells up to the last one that is not blank.
fn occupied(cells: &[Cell]) -> usize {
    // Spelled out, because most of a flood of short lines is spent on the empty part of its rows.
    let blank = |cell: &Cell| {
        cell.c == ' '
            && matches!(cell.bg, Color::Named(NamedColor::Background))
            && matches!(cell.fg, Color::Named(NamedColor::Foreground))
            && cell.flags.bits() & STYLE_BITS == 0
            && (cell.extra.is_none() || view(cell).is_blank())
    };
    cells.iter().rposition(|cell| !blank(cell)).map_or(0, |last| last + 1)
}

pub(super) fn style_of(cell: &Cell) -> Style {
    Style { underline: cell.underline_color(), ..plain_style(cell) }
}

/// The style of a cell that has nothing rare about it.
#[inline]
fn plain_style(cell: &Cell) -> Style {
    Style { fg: cell.fg, bg: cell.bg, underline: None, attrs: Attrs(cell.flags.bits() & STYLE_BITS) }
}

pub(super) fn view(cell: &Cell) -> CellView<'_> {
    let kind = if !cell.flags.intersects(NOT_ONE_COLUMN) {
        CellKind::Narrow
    } else if cell.flags.contains(Flags::WIDE_CHAR) {
        CellKind::Wide
    } else if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
        CellKind::Spacer
    } else {
        CellKind::Leading
    };
    CellView {
        ch: cell.c,
        zerowidth: cell.zerowidth().unwrap_or_default(),
        style: style_of(cell),
        link: if cell.extra.is_some() { cell.hyperlink() } else { None },
        kind,
    }
}
