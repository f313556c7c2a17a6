//! Changing the size: what reflows, what scrolls off, and setting straight what the engine leaves crooked.

use agentapi_shared::WindowSize;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::cell::Flags;

use super::cells::push_row;
use super::{Core, Extent, LAST_COLUMN_MARKS, config, line};
use crate::terminal::scrollback::Scrollback;

impl Core {
    pub(super) fn resize(&mut self, size: WindowSize, scrollback: &mut Scrollback) {
        let alternate = self.hidden_primary.take().map(|primary| std::mem::replace(self.term.grid_mut(), primary));
        let (old, new) = (Extent::from(self.size), Extent::from(size));
        // Rows first, as the engine itself would: those above the cursor that do not fit go to the scrollback.
        let cursor_row = usize::try_from(self.term.grid().cursor.point.line.0).unwrap_or(0);
        self.evict((cursor_row + 1).saturating_sub(new.rows), false, scrollback);
        self.term.resize(Extent { rows: new.rows, cols: old.cols });
        if new.cols != old.cols {
            self.resize_columns(new, scrollback);
        }
        self.size = size;
        self.controls.last_char = None;
        self.controls.tabs.reset_from(old.cols.min(new.cols));
        self.regions = [0..new.rows, 0..new.rows];
        self.settle_after_resize();
        if let Some(mut grid) = alternate {
            grid.resize(false, new.rows, new.cols);
            grid.truncate();
            self.hidden_primary = Some(std::mem::replace(self.term.grid_mut(), grid));
            self.settle_after_resize();
        }
        self.drop_spare_screen();
    }

    /// Text reflows into the new width; rows that it takes more of than the screen has go to the scrollback.
    fn resize_columns(&mut self, new: Extent, scrollback: &mut Scrollback) {
        // Enough history for every cell of the screen to get a row of its own.
        self.term.set_options(config(self.rows().max(new.rows) * self.cols()));
        self.term.resize(new);
        // The engine scrolls for the rows that reflowing adds even if there are empty ones at the bottom: take those
        // away there and pull as many down again from above.
        let spare = self.empty_rows_at_bottom(new.rows).min(self.term.grid().history_size());
        self.term.resize(Extent { rows: new.rows - spare, cols: new.cols });
        self.term.resize(new);
        let grid = self.term.grid();
        scrollback.width_changed();
        for row in (1..=grid.history_size()).rev() {
            let at = Line(-i32::try_from(row).unwrap_or(i32::MAX));
            push_row(&grid[at], Some(&grid[at + 1]), false, scrollback);
        }
        self.term.set_options(config(0));
    }

    /// Rows below the cursor and all text.
    fn empty_rows_at_bottom(&self, rows: usize) -> usize {
        let grid = self.term.grid();
        let below_cursor = rows - 1 - usize::try_from(grid.cursor.point.line.0).unwrap_or(0);
        (0..below_cursor).take_while(|up| grid[line(rows - 1 - up)].is_clear()).count()
    }

    /// What the engine leaves crooked: spare rows, halves of wide characters, a pending wrap far from the last column.
    fn settle_after_resize(&mut self) {
        let last = self.cols() - 1;
        let grid = self.term.grid_mut();
        grid.truncate();
        if grid.cursor.input_needs_wrap && grid.cursor.point.column.0 < last {
            grid.cursor.input_needs_wrap = false;
            grid.cursor.point.column.0 += 1;
        }
        (0..self.rows()).for_each(|row| self.heal_row(row));
        self.unmark_last_row();
    }

    /// Blanks halves of wide characters in a row, and takes away marks that are no longer in its last column.
    fn heal_row(&mut self, row: usize) {
        let cols = self.cols();
        let cells = &mut self.term.grid_mut()[line(row)][..];
        for col in 0..cols {
            let flags = cells[col].flags;
            let followed = col + 1 < cols && cells[col + 1].flags.contains(Flags::WIDE_CHAR_SPACER);
            if flags.contains(Flags::WIDE_CHAR) && !followed {
                cells[col].clear_wide();
            }
            let led = col > 0 && cells[col - 1].flags.contains(Flags::WIDE_CHAR);
            if flags.contains(Flags::WIDE_CHAR_SPACER) && !led {
                cells[col].flags.remove(Flags::WIDE_CHAR_SPACER);
            }
            if col + 1 < cols {
                cells[col].flags.remove(LAST_COLUMN_MARKS);
            }
        }
    }
}
