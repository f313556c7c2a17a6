//! The screen engine: `alacritty_terminal`'s grid and editing operations behind the [`Engine`] trait.
//!
//! Its `Term` is driven operation by operation (see `dispatch`) rather than through its own byte parser, because that one
//! holds back synchronized updates, answers queries in its own name and runs counts of 65,535 as told. Three more things
//! are kept here instead of in `Term`:
//! - **Rows that scroll off** are taken just before they do, so `Term` has no history (its history costs 1,000 spare rows
//!   and loses what does not fit).
//! - **The alternate screen.** `Term` cannot show its hidden screen, which a keyframe needs, and keeps a full grid for it
//!   from the start. We swap the grid ourselves and make the alternate one when a program asks for it.
//! - **Tab stops, modes, title**: `controls`, because `Term` keeps its own private.
//!
//! Where `Term` and xterm differ, this follows xterm, because the viewers run xterm.js.

mod cells;
mod dispatch;
mod editing;
mod osc;
mod printing;
mod resize;
mod sgr;
mod switching;

use std::ops::Range;

use agentapi_shared::WindowSize;
use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::{Cursor, Dimensions, Grid};
use alacritty_terminal::index::Line;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::term::{Config, Term};
use vte::ansi::{CharsetIndex, Handler, StandardCharset};

use self::cells::{push_row, row_wraps, style_of, view};
use super::controls::Controls;
use super::engine::{Buffer, CellView, Charset, Color, CursorState, Effects, Engine, Rgb, Style};
use super::scrollback::Scrollback;

/// Zero-width characters kept in one cell; more are dropped, or one cell would grow for ever.
const ZEROWIDTH_MAX: usize = 8;

/// Marks that are right in a row's last column only.
const LAST_COLUMN_MARKS: Flags = Flags::WRAPLINE.union(Flags::LEADING_WIDE_CHAR_SPACER);

/// Rows of a scroll region, from 0.
type Region = Range<usize>;

/// The engine.
pub struct AlacrittyEngine {
    parser: vte::Parser,
    core: Core,
}

impl std::fmt::Debug for AlacrittyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the screen's content: it may end up in a log.
        f.debug_struct("AlacrittyEngine").field("size", &self.core.size).finish_non_exhaustive()
    }
}

/// The screen without the parser that drives it.
struct Core {
    term: Term<VoidListener>,
    /// The primary screen while the alternate one is in `term`.
    hidden_primary: Option<Grid<Cell>>,
    /// Scroll regions of the primary and the alternate screen, as xterm.js has them; `term` has that of the shown one.
    regions: [Region; 2],
    controls: Controls,
    size: WindowSize,
    links: LinkBudget,
}

/// Bytes of links that cells may hold, so that hostile output cannot fill every cell with a long one of its own.
#[derive(Default)]
struct LinkBudget {
    /// Bytes accepted since the cells were last counted.
    accepted: usize,
}

/// A size in the engine's terms.
#[derive(Clone, Copy)]
struct Extent {
    rows: usize,
    cols: usize,
}

impl From<WindowSize> for Extent {
    fn from(size: WindowSize) -> Self {
        Self { rows: size.rows().into(), cols: size.cols().into() }
    }
}

impl Dimensions for Extent {
    fn total_lines(&self) -> usize {
        self.rows
    }

    fn screen_lines(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.cols
    }
}

/// A row number for the engine's indexing; rows are at most 500.
fn line(row: usize) -> Line {
    Line(i32::try_from(row).unwrap_or(i32::MAX))
}

/// A row or column number for the outside; both are at most 500.
fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl Core {
    fn new(size: WindowSize) -> Self {
        let extent = Extent::from(size);
        let mut core = Self {
            term: Term::new(config(0), &extent, VoidListener),
            hidden_primary: None,
            regions: [0..extent.rows, 0..extent.rows],
            controls: Controls::default(),
            size,
            links: LinkBudget::default(),
        };
        core.drop_spare_screen();
        core
    }

    fn active(&self) -> Buffer {
        if self.hidden_primary.is_some() { Buffer::Alternate } else { Buffer::Primary }
    }

    fn grid(&self, buffer: Buffer) -> Option<&Grid<Cell>> {
        match (buffer, &self.hidden_primary) {
            (Buffer::Primary, Some(hidden)) => Some(hidden),
            (Buffer::Primary, None) | (Buffer::Alternate, Some(_)) => Some(self.term.grid()),
            (Buffer::Alternate, None) => None,
        }
    }

    fn rows(&self) -> usize {
        self.size.rows().into()
    }

    fn cols(&self) -> usize {
        self.size.cols().into()
    }

    /// `Term` has a grid of its own for the alternate screen, which is not used: reduces it to almost nothing.
    fn drop_spare_screen(&mut self) {
        let saved = self.term.grid().saved_cursor.clone();
        self.term.swap_alt();
        *self.term.grid_mut() = Grid::new(1, 2, 0);
        self.term.swap_alt();
        self.term.grid_mut().saved_cursor = saved;
    }

    /// The scroll region of the shown screen.
    fn region(&self) -> &Region {
        &self.regions[self.active() as usize]
    }

    /// Sets the scroll region of the shown screen; the cursor stays where it is.
    fn set_region(&mut self, region: Region) {
        let cursor = self.term.grid().cursor.clone();
        self.term.set_scrolling_region(region.start + 1, Some(region.end));
        self.term.grid_mut().cursor = cursor;
        self.regions[self.active() as usize] = region;
    }

    /// Sends the top rows of the primary screen to the scrollback; the caller scrolls them off. `forced_wrap`: the last
    /// one is about to be marked as wrapped.
    fn evict(&self, rows: usize, forced_wrap: bool, scrollback: &mut Scrollback) {
        let grid = self.term.grid();
        for row in 0..rows.min(self.rows()) {
            let next = (row + 1 < self.rows()).then(|| &grid[line(row + 1)]);
            let forced = forced_wrap && row + 1 == rows;
            push_row(&grid[line(row)], next, forced, scrollback);
        }
    }

    /// The same before an operation that scrolls the whole region up by `rows`, if that region begins at the top.
    fn evict_for_scroll(&self, rows: usize, effects: &mut Effects<'_>) {
        let region = self.region();
        if region.start == 0 && self.hidden_primary.is_none() {
            self.evict(rows.min(region.end), false, effects.scrollback);
        }
    }

    fn cursor_state(cursor: &Cursor<Cell>) -> CursorState {
        let charset = |index: CharsetIndex| match cursor.charsets[index] {
            StandardCharset::Ascii => Charset::Ascii,
            StandardCharset::SpecialCharacterAndLineDrawing => Charset::Graphics,
        };
        CursorState {
            row: u16::try_from(cursor.point.line.0).unwrap_or(0),
            col: narrow(cursor.point.column.0),
            pending_wrap: cursor.input_needs_wrap,
            style: style_of(&cursor.template),
            link: cursor.template.hyperlink(),
            charsets: [CharsetIndex::G0, CharsetIndex::G1, CharsetIndex::G2, CharsetIndex::G3].map(charset),
        }
    }
}

impl Engine for AlacrittyEngine {
    fn new(size: WindowSize) -> Self {
        Self { parser: vte::Parser::new(), core: Core::new(size) }
    }

    fn size(&self) -> WindowSize {
        self.core.size
    }

    fn feed(&mut self, bytes: &[u8], effects: &mut Effects<'_>) {
        let mut dispatch = dispatch::Dispatch { core: &mut self.core, effects };
        self.parser.advance(&mut dispatch, bytes);
    }

    fn resize(&mut self, size: WindowSize, scrollback: &mut Scrollback) {
        if size != self.core.size {
            self.core.resize(size, scrollback);
        }
    }

    fn compact(&mut self) {
        self.core.term.grid_mut().truncate();
    }

    fn active(&self) -> Buffer {
        self.core.active()
    }

    fn row(&self, buffer: Buffer, row: u16) -> impl Iterator<Item = CellView<'_>> {
        let row = self.core.grid(buffer).map(|grid| &grid[line(row.into())][..]);
        row.unwrap_or_default().iter().map(view)
    }

    fn wraps(&self, buffer: Buffer, row: u16) -> bool {
        self.core.grid(buffer).is_some_and(|grid| row_wraps(&grid[line(row.into())]))
    }

    fn cursor(&self) -> CursorState {
        Core::cursor_state(&self.core.term.grid().cursor)
    }

    fn saved_cursor(&self, buffer: Buffer) -> CursorState {
        Core::cursor_state(&self.core.grid(buffer).unwrap_or(self.core.term.grid()).saved_cursor)
    }

    fn region(&self, buffer: Buffer) -> Range<u16> {
        let region = &self.core.regions[buffer as usize];
        narrow(region.start)..narrow(region.end)
    }

    fn controls(&self) -> &Controls {
        &self.core.controls
    }

    fn color(&self, index: usize) -> Option<Rgb> {
        self.core.term.colors()[index]
    }
}

fn config(history: usize) -> Config {
    Config { scrolling_history: history, ..Config::default() }
}

/// Whether a colour is the default background, for which erasing needs no colour.
fn is_default_background(color: Color) -> bool {
    color == Style::PLAIN.bg
}
