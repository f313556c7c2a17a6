//! Characters and line feeds: everything that fills rows, wraps and scrolls.
//!
//! A row leaves the primary screen only here (and on a resize), and always through [`Core::evict`] first.

use alacritty_terminal::index::{Column, Point};
use alacritty_terminal::term::cell::{Cell, Flags};
use unicode_width::UnicodeWidthChar;
use vte::ansi::Handler;

use super::{Core, LAST_COLUMN_MARKS, ZEROWIDTH_MAX, line};
use crate::terminal::engine::{Buffer, Effects};

impl Core {
    /// A character of one column.
    #[inline]
    pub(super) fn print_narrow(&mut self, c: char, effects: &mut Effects<'_>) {
        if self.term.grid().cursor.input_needs_wrap || self.controls.modes.inserts() {
            self.print_carefully(c, 1, effects);
        } else {
            self.term.input(c);
        }
        self.controls.last_char = Some(c);
    }

    /// Any character.
    pub(super) fn print(&mut self, c: char, effects: &mut Effects<'_>) {
        match c.width() {
            None => self.controls.last_char = None,
            Some(0) => self.print_zerowidth(c),
            Some(1) => self.print_narrow(c, effects),
            Some(_) => {
                let fits = self.column() + 1 < self.cols();
                self.print_carefully(c, 2, effects);
                // Without autowrap a character that does not fit is not printed at all.
                self.controls.last_char = (fits || self.wraps()).then_some(c);
            }
        }
    }

    fn wraps(&self) -> bool {
        self.controls.modes.private(7) == Some(true)
    }

    /// Prints where that may wrap or insert.
    #[cold]
    fn print_carefully(&mut self, c: char, width: usize, effects: &mut Effects<'_>) {
        let (row, col, cols) = (self.row(), self.column(), self.cols());
        let pending = self.term.grid().cursor.input_needs_wrap;
        let wraps = self.wraps() && (pending || col + width > cols);
        let scrolls = row + 1 == self.region().end;
        if wraps && scrolls && self.region().start == 0 && self.active() == Buffer::Primary {
            self.evict(1, row == 0, effects.scrollback);
        }
        if self.controls.modes.inserts() {
            match (pending && wraps, scrolls) {
                (false, _) => self.make_room(row, col, width),
                (true, false) => self.make_room((row + 1).min(self.rows() - 1), 0, width),
                // It is the first one in a new row.
                (true, true) => {}
            }
        }
        self.term.input(c);
        self.unmark_last_row();
        self.unmark_pending_row();
    }

    /// Blanks what inserting a character will push off the row. `Term` rotates these cells to the cursor and would take
    /// halves of wide characters among them for those under the new one.
    fn make_room(&mut self, row: usize, col: usize, width: usize) {
        let cols = self.cols();
        if col + width < cols {
            self.split_wide(row, col);
            self.split_wide(row, cols - width);
            self.term.grid_mut()[line(row)][Column(cols - width)..].fill(Cell::default());
        }
    }

    fn print_zerowidth(&mut self, c: char) {
        self.controls.last_char = None;
        let grid = self.term.grid();
        let Point { line, column } = grid.cursor.point;
        let mut col = if grid.cursor.input_needs_wrap { column.0 } else { column.0.saturating_sub(1) };
        if grid[line][Column(col)].flags.contains(Flags::WIDE_CHAR_SPACER) {
            col = col.saturating_sub(1);
        }
        if grid[line][Column(col)].zerowidth().is_none_or(|already| already.len() < ZEROWIDTH_MAX) {
            self.term.input(c);
        }
    }

    /// The screen's last row has no next one to go on in: its mark is wrong if the text went elsewhere (the cursor was below
    /// the scroll region) or the next row was pushed off.
    pub(super) fn unmark_last_row(&mut self) {
        self.unmark(self.rows() - 1);
    }

    /// Nor does a row go on in the next one while the cursor waits at its end, whatever scrolled under it: a keyframe could
    /// not show both.
    fn unmark_pending_row(&mut self) {
        if self.term.grid().cursor.input_needs_wrap {
            self.unmark(self.row());
        }
    }

    /// Takes from a row the marks that only a last column may have.
    pub(super) fn unmark(&mut self, row: usize) {
        let (row, col) = (line(row), Column(self.cols() - 1));
        let grid = self.term.grid_mut();
        if (&*grid)[row][col].flags.intersects(LAST_COLUMN_MARKS) {
            grid[row][col].flags.remove(LAST_COLUMN_MARKS);
        }
    }

    /// LF, VT, FF.
    pub(super) fn line_feed(&mut self, effects: &mut Effects<'_>) {
        self.index(effects);
        if self.controls.modes.ansi(20) == Some(true) {
            self.term.carriage_return();
        }
    }

    /// IND. A pending wrap is over, as in xterm: the next character goes below, not two rows down.
    pub(super) fn index(&mut self, effects: &mut Effects<'_>) {
        if self.row() + 1 == self.region().end {
            self.evict_for_scroll(1, effects);
        }
        self.term.linefeed();
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    pub(super) fn reverse_index(&mut self) {
        self.term.reverse_index();
        self.unmark_last_row();
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    pub(super) fn scroll_down(&mut self, rows: usize) {
        self.term.scroll_down(rows);
        self.unmark_last_row();
        self.unmark_pending_row();
    }

    pub(super) fn scroll_up(&mut self, rows: usize, effects: &mut Effects<'_>) {
        self.evict_for_scroll(rows, effects);
        self.term.scroll_up(rows);
        self.unmark_pending_row();
    }
}
