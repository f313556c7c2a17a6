//! Operations on the screen and the cursor, where `Term`'s own need a guard or xterm does something else.
//!
//! Two rules run through all of them: no operation leaves half a wide character behind (the next one to touch it would
//! act on the ruins, and a keyframe could not show them), and while origin mode is on, the cursor is in the scroll region.

use alacritty_terminal::index::Column;
use alacritty_terminal::term::cell::Flags;
use vte::ansi::{ClearMode, Handler, LineClearMode};

use super::{Core, line};
use crate::terminal::engine::{Buffer, Effects};

impl Core {
    pub(super) fn row(&self) -> usize {
        usize::try_from(self.term.grid().cursor.point.line.0).unwrap_or(0)
    }

    pub(super) fn column(&self) -> usize {
        self.term.grid().cursor.point.column.0
    }

    /// CUP; relative to the scroll region in origin mode.
    pub(super) fn cursor_to(&mut self, row: usize, col: usize) {
        self.term.goto(line(row).0, col);
    }

    pub(super) fn cursor_column(&mut self, col: usize) {
        let last = self.cols() - 1;
        let cursor = &mut self.term.grid_mut().cursor;
        cursor.point.column = Column(col.min(last));
        cursor.input_needs_wrap = false;
    }

    /// Stops at the top margin if it starts below it.
    pub(super) fn cursor_up(&mut self, rows: usize) {
        let top = if self.row() >= self.region().start { self.region().start } else { 0 };
        self.place(self.row().saturating_sub(rows).max(top));
    }

    /// Stops at the bottom margin if it starts above it.
    pub(super) fn cursor_down(&mut self, rows: usize) {
        let bottom = if self.row() < self.region().end { self.region().end } else { self.rows() };
        self.place((self.row() + rows).min(bottom - 1));
    }

    /// VPR, which margins do not stop.
    pub(super) fn cursor_rows_on(&mut self, rows: usize) {
        self.place((self.row() + rows).min(self.rows() - 1));
        self.keep_in_region();
    }

    fn place(&mut self, row: usize) {
        let cursor = &mut self.term.grid_mut().cursor;
        cursor.point.line = line(row);
        cursor.input_needs_wrap = false;
    }

    /// The position that CPR reports, from 1.
    pub(super) fn reported_position(&self) -> (usize, usize) {
        let origin = if self.controls.modes.private(6) == Some(true) { self.region().start } else { 0 };
        (self.row().saturating_sub(origin) + 1, self.column() + 1)
    }

    pub(super) fn tab_forward(&mut self, count: usize) {
        self.tab(|core, col| core.controls.tabs.next(col, core.cols()), count);
    }

    pub(super) fn tab_backward(&mut self, count: usize) {
        self.tab(|core, col| core.controls.tabs.previous(col), count);
    }

    /// With a wrap pending the cursor is beyond the last column, where there are no stops.
    fn tab(&mut self, step: impl Fn(&Self, usize) -> usize, count: usize) {
        if !self.term.grid().cursor.input_needs_wrap {
            let col = (0..count).fold(self.column(), |col, _| step(self, col));
            self.term.grid_mut().cursor.point.column = Column(col);
        }
    }

    pub(super) fn set_tab_stop(&mut self, on: bool) {
        let col = self.column();
        self.controls.tabs.set(col, on);
    }

    /// Blanks the wide character, if any, whose halves are on both sides of the column's left edge.
    pub(super) fn split_wide(&mut self, row: usize, col: usize) {
        if col == 0 || col >= self.cols() {
            return;
        }
        let row = &mut self.term.grid_mut()[line(row)];
        if row[Column(col)].flags.contains(Flags::WIDE_CHAR_SPACER) {
            row[Column(col - 1)].clear_wide();
            row[Column(col)].flags.remove(Flags::WIDE_CHAR_SPACER);
        }
    }

    pub(super) fn insert_chars(&mut self, count: usize) {
        let (row, col, cols) = (self.row(), self.column(), self.cols());
        let count = count.min(cols - col);
        self.unmark(row);
        self.split_wide(row, col);
        self.split_wide(row, cols - count);
        self.term.insert_blank(count);
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    pub(super) fn delete_chars(&mut self, count: usize) {
        let (row, col, cols) = (self.row(), self.column(), self.cols());
        // `Term` clears to the left of the cursor if there are fewer characters than that.
        let count = count.min(cols - col);
        self.unmark(row);
        self.split_wide(row, col);
        self.split_wide(row, col + count);
        self.term.delete_chars(count);
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    pub(super) fn erase_chars(&mut self, count: usize) {
        let (row, col) = (self.row(), self.column());
        self.split_wide(row, col);
        self.split_wide(row, col + count);
        self.term.erase_chars(count);
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    pub(super) fn insert_lines(&mut self, count: usize) {
        if self.region().contains(&self.row()) {
            self.term.insert_blank_lines(count);
            self.unmark_last_row();
            self.term.carriage_return();
        }
    }

    pub(super) fn delete_lines(&mut self, count: usize) {
        if self.region().contains(&self.row()) {
            self.term.delete_lines(count);
            self.term.carriage_return();
        }
    }

    pub(super) fn erase_line(&mut self, mode: u16) {
        let (row, col) = (self.row(), self.column());
        match mode {
            // The cursor is beyond the last column: nothing to erase.
            0 if self.term.grid().cursor.input_needs_wrap => {}
            0 => {
                self.split_wide(row, col);
                self.term.clear_line(LineClearMode::Right);
            }
            1 => {
                self.split_wide(row, col + 1);
                self.term.clear_line(LineClearMode::Left);
            }
            2 => self.term.clear_line(LineClearMode::All),
            _ => {}
        }
    }

    pub(super) fn erase_display(&mut self, mode: u16, effects: &mut Effects<'_>) {
        let (row, col) = (self.row(), self.column());
        match mode {
            // As in `erase_line`, as far as the cursor's own row goes.
            0 if self.term.grid().cursor.input_needs_wrap && row + 1 == self.rows() => {}
            0 if self.term.grid().cursor.input_needs_wrap => self.term.grid_mut().reset_region(line(row + 1)..),
            0 => {
                self.split_wide(row, col);
                self.term.clear_screen(ClearMode::Below);
            }
            1 => {
                self.split_wide(row, col + 1);
                // `Term` forgets the first row if the cursor is in the second.
                if row > 0 {
                    self.term.grid_mut().reset_region(..line(row));
                }
                self.term.clear_screen(ClearMode::Above);
            }
            // Not `Term`'s: that one scrolls the screen into its history, at the cost of looking at every cell first.
            2 => self.term.grid_mut().reset_region(..),
            3 if self.active() == Buffer::Primary => effects.scrollback.clear(),
            _ => {}
        }
    }

    /// DECALN.
    pub(super) fn alignment_pattern(&mut self) {
        self.term.decaln();
        self.cursor_to(0, 0);
    }

    /// DECSTBM; impossible margins are ignored.
    pub(super) fn set_margins(&mut self, top: u16, bottom: u16) {
        let rows = self.rows();
        let top = usize::from(top.max(1));
        let bottom = if bottom == 0 { rows } else { usize::from(bottom).min(rows) };
        if top < bottom {
            self.set_region(top - 1..bottom);
            self.cursor_to(0, 0);
        }
    }
}
