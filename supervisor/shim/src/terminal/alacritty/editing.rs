//! Operations on the screen and the cursor, where `Term`'s own need a guard or xterm does something else.
//!
//! Two rules run through all of them: no operation leaves half a wide character behind (the next one to touch it would
//! act on the ruins, and a keyframe could not show them), and while origin mode is on, the cursor is in the scroll region.

use alacritty_terminal::grid::Grid;
use alacritty_terminal::index::{Column, Line, Point};
use alacritty_terminal::term::cell::{Cell, Flags};
use unicode_width::UnicodeWidthChar;
use vte::ansi::{CharsetIndex, ClearMode, Handler, LineClearMode, NamedMode, NamedPrivateMode, StandardCharset};

use super::{Core, LAST_COLUMN_MARKS, ZEROWIDTH_MAX, is_default_background, line};
use crate::terminal::engine::{Buffer, Effects};

impl Core {
    pub(super) fn row(&self) -> usize {
        usize::try_from(self.term.grid().cursor.point.line.0).unwrap_or(0)
    }

    pub(super) fn column(&self) -> usize {
        self.term.grid().cursor.point.column.0
    }

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
    fn unmark(&mut self, row: usize) {
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
    fn split_wide(&mut self, row: usize, col: usize) {
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
            0 if self.term.grid().cursor.input_needs_wrap => {
                // As in `erase_line`.
                if row + 1 < self.rows() {
                    self.term.grid_mut().reset_region(line(row + 1)..);
                }
            }
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

    /// DECSC. Neither a pending wrap nor an open link is saved, as in xterm.js.
    pub(super) fn save_cursor(&mut self) {
        self.term.save_cursor_position();
        let saved = &mut self.term.grid_mut().saved_cursor;
        saved.input_needs_wrap = false;
        saved.template.set_hyperlink(None);
    }

    /// DECRC.
    pub(super) fn restore_cursor(&mut self) {
        let link = self.term.grid().cursor.template.hyperlink();
        self.term.restore_cursor_position();
        self.term.grid_mut().cursor.template.set_hyperlink(link);
        self.keep_in_region();
    }

    /// Origin mode confines the cursor, however it got where it is.
    fn keep_in_region(&mut self) {
        if self.controls.modes.private(6) == Some(true) {
            let region = self.region();
            let row = self.row().clamp(region.start, region.end - 1);
            self.term.grid_mut().cursor.point.line = line(row);
        }
    }

    pub(super) fn use_charset(&mut self, index: CharsetIndex) {
        self.term.set_active_charset(index);
        self.controls.charset = index as u8;
    }

    pub(super) fn set_ansi_mode(&mut self, mode: u16, on: bool) {
        self.controls.modes.set_ansi(mode, on);
        match (mode, on) {
            (4, true) => self.term.set_mode(NamedMode::Insert.into()),
            (4, false) => self.term.unset_mode(NamedMode::Insert.into()),
            _ => {}
        }
    }

    pub(super) fn set_private_mode(&mut self, mode: u16, on: bool) {
        match (mode, on) {
            (47 | 1047, true) => self.show_alternate(),
            (47 | 1047, false) => self.show_primary(),
            (1048, true) => self.save_cursor(),
            (1048, false) => self.restore_cursor(),
            (1049, true) => {
                self.save_cursor();
                self.show_alternate();
            }
            (1049, false) => {
                self.show_primary();
                self.restore_cursor();
            }
            _ => self.controls.modes.set_private(mode, on),
        }
        let named = match mode {
            6 => NamedPrivateMode::Origin,
            7 => NamedPrivateMode::LineWrap,
            _ => return,
        };
        if on {
            self.term.set_private_mode(named.into())
        } else {
            self.term.unset_private_mode(named.into())
        }
        if mode == 6 {
            self.cursor_to(0, 0);
        }
    }

    /// The alternate screen starts empty, with the cursor where it was and no margins.
    fn show_alternate(&mut self) {
        if self.hidden_primary.is_some() {
            return;
        }
        let mut grid: Grid<Cell> = Grid::new(self.rows(), self.cols(), 0);
        grid.cursor = self.term.grid().cursor.clone();
        if !is_default_background(grid.cursor.template.bg) {
            grid.reset_region(..);
        }
        self.hidden_primary = Some(std::mem::replace(self.term.grid_mut(), grid));
        self.set_region(0..self.rows());
    }

    fn show_primary(&mut self) {
        let Some(mut primary) = self.hidden_primary.take() else { return };
        primary.cursor = self.term.grid().cursor.clone();
        *self.term.grid_mut() = primary;
        self.controls.kitty[Buffer::Alternate as usize] = Default::default();
        self.set_region(self.regions[Buffer::Primary as usize].clone());
        self.keep_in_region();
    }

    /// RIS.
    pub(super) fn reset(&mut self, effects: &mut Effects<'_>) {
        if let Some(primary) = self.hidden_primary.take() {
            *self.term.grid_mut() = primary;
        }
        self.term.reset_state();
        self.controls.reset();
        self.regions = [0..self.rows(), 0..self.rows()];
        effects.scrollback.clear();
    }

    /// DECSTR.
    pub(super) fn soft_reset(&mut self) {
        self.controls.soft_reset();
        self.term.set_active_charset(CharsetIndex::G0);
        self.term.unset_mode(NamedMode::Insert.into());
        self.term.unset_private_mode(NamedPrivateMode::Origin.into());
        self.term.set_private_mode(NamedPrivateMode::LineWrap.into());
        self.set_region(0..self.rows());
        let grid = self.term.grid_mut();
        grid.cursor.template = Cell::default();
        for index in [CharsetIndex::G0, CharsetIndex::G1, CharsetIndex::G2, CharsetIndex::G3] {
            grid.cursor.charsets[index] = StandardCharset::Ascii;
        }
        grid.saved_cursor = Default::default();
        grid.saved_cursor.point = Point::new(Line(0), Column(0));
    }
}
