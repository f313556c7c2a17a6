//! Modes, the two screens, saved cursors and resets.

use alacritty_terminal::grid::Grid;
use alacritty_terminal::term::cell::Cell;
use vte::ansi::{CharsetIndex, Handler, NamedMode, NamedPrivateMode, StandardCharset};

use super::{Core, is_default_background, line};
use crate::terminal::engine::{Buffer, Effects};

impl Core {
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
    pub(super) fn keep_in_region(&mut self) {
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
    }
}
