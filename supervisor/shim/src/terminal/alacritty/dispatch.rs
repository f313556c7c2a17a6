//! From parsed sequences to operations: one short table for each kind of sequence.
//!
//! Counts are bounded by the size of the screen, so that no sequence costs more than a screenful. Queries are answered
//! right here, from the state at their own byte, which makes every answer exact and puts them in order.

use vte::ansi::{CharsetIndex, Handler, StandardCharset};
use vte::{Params, Perform};

use super::Core;
use crate::terminal::TerminalEvent;
use crate::terminal::engine::{Buffer, Effects};
use crate::terminal::responder;

/// Runs what the parser finds.
pub(super) struct Dispatch<'a, 'b> {
    pub(super) core: &'a mut Core,
    pub(super) effects: &'a mut Effects<'b>,
}

/// The parameters of a CSI sequence.
struct Numbers<'a>(&'a Params);

impl Numbers<'_> {
    /// The parameter at `index`; 0 if it is missing.
    fn raw(&self, index: usize) -> u16 {
        self.0.iter().nth(index).and_then(|param| param.first().copied()).unwrap_or(0)
    }

    /// A count: 0 and missing mean 1; never more than `max`.
    fn count(&self, max: usize) -> usize {
        usize::from(self.raw(0).max(1)).min(max)
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().filter_map(|param| param.first().copied())
    }
}

impl Perform for Dispatch<'_, '_> {
    #[inline]
    fn print(&mut self, c: char) {
        // Everything below DEL that gets here is printable ASCII.
        if c < '\x7f' {
            self.core.print_narrow(c, self.effects);
        } else {
            self.core.print(c, self.effects);
        }
    }

    fn execute(&mut self, byte: u8) {
        self.core.controls.last_char = None;
        match byte {
            0x07 => self.effects.event(TerminalEvent::Bell),
            0x08 => self.core.term.backspace(),
            0x09 => self.core.tab_forward(1),
            0x0a..=0x0c => self.core.line_feed(self.effects),
            0x0d => self.core.term.carriage_return(),
            0x0e => self.core.use_charset(CharsetIndex::G1),
            0x0f => self.core.use_charset(CharsetIndex::G0),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        // The string terminator ends nothing by itself, and the scanner adds some: it must leave no trace.
        if ignore || (intermediates.is_empty() && byte == b'\\') {
            return;
        }
        self.core.controls.last_char = None;
        let core = &mut *self.core;
        match (intermediates, byte) {
            ([], b'7') => core.save_cursor(),
            ([], b'8') => core.restore_cursor(),
            ([], b'=') => core.controls.modes.set_private(66, true),
            ([], b'>') => core.controls.modes.set_private(66, false),
            ([], b'D') => core.index(self.effects),
            ([], b'E') => {
                core.index(self.effects);
                core.term.carriage_return();
            }
            ([], b'H') => core.set_tab_stop(true),
            ([], b'M') => core.reverse_index(),
            ([], b'Z') => responder::primary_attributes(&mut self.effects.feedback.replies),
            ([], b'c') => core.reset(self.effects),
            ([], b'n') => core.use_charset(CharsetIndex::G2),
            ([], b'o') => core.use_charset(CharsetIndex::G3),
            ([b'#'], b'8') => core.alignment_pattern(),
            ([slot @ b'('..=b'+'], set) => {
                let slot = match slot {
                    b'(' => CharsetIndex::G0,
                    b')' => CharsetIndex::G1,
                    b'*' => CharsetIndex::G2,
                    _ => CharsetIndex::G3,
                };
                // National sets differ from ASCII in a few signs only; what matters is to leave line drawing.
                let set =
                    if set == b'0' { StandardCharset::SpecialCharacterAndLineDrawing } else { StandardCharset::Ascii };
                core.term.configure_charset(slot, set);
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, last: char) {
        let repeated = self.core.controls.last_char.take();
        if ignore {
            return;
        }
        let numbers = Numbers(params);
        match intermediates {
            [] if last == 'b' => self.repeat(repeated, &numbers),
            [] => self.plain_csi(params, &numbers, last),
            [b'?'] => self.private_csi(&numbers, last),
            _ => self.other_csi(&numbers, intermediates, last),
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], bell_terminated: bool) {
        self.core.controls.last_char = None;
        self.core.run_osc(params, bell_terminated, self.effects);
    }
}

impl Dispatch<'_, '_> {
    fn repeat(&mut self, repeated: Option<char>, numbers: &Numbers<'_>) {
        let Some(c) = repeated else { return };
        // More than a screenful leaves what a screenful leaves.
        for _ in 0..numbers.count(self.core.rows() * self.core.cols()) {
            self.print(c);
        }
        self.core.controls.last_char = None;
    }

    fn plain_csi(&mut self, params: &Params, numbers: &Numbers<'_>, last: char) {
        let core = &mut *self.core;
        let (rows, cols) = (core.rows(), core.cols());
        match last {
            '@' => core.insert_chars(numbers.count(cols)),
            'A' => core.cursor_up(numbers.count(rows)),
            'B' => core.cursor_down(numbers.count(rows)),
            'e' => core.cursor_rows_on(numbers.count(rows)),
            'C' | 'a' => core.term.move_forward(numbers.count(cols)),
            'D' => core.term.move_backward(numbers.count(cols)),
            'E' => {
                core.cursor_down(numbers.count(rows));
                core.term.carriage_return();
            }
            'F' => {
                core.cursor_up(numbers.count(rows));
                core.term.carriage_return();
            }
            'G' | '`' => core.cursor_column(numbers.count(cols) - 1),
            'H' | 'f' => core.cursor_to(numbers.count(rows) - 1, usize::from(numbers.raw(1).max(1)) - 1),
            'I' => core.tab_forward(numbers.count(cols)),
            'J' => core.erase_display(numbers.raw(0), self.effects),
            'K' => core.erase_line(numbers.raw(0)),
            'L' => core.insert_lines(numbers.count(rows)),
            'M' => core.delete_lines(numbers.count(rows)),
            'P' => core.delete_chars(numbers.count(cols)),
            'S' => core.scroll_up(numbers.count(rows), self.effects),
            // With five parameters it is highlight tracking.
            'T' if params.len() < 5 => core.scroll_down(numbers.count(rows)),
            'X' => core.erase_chars(numbers.count(cols)),
            'Z' => core.tab_backward(numbers.count(cols)),
            'd' => core.cursor_to(numbers.count(rows) - 1, core.column()),
            'g' if numbers.raw(0) == 0 => core.set_tab_stop(false),
            'g' if numbers.raw(0) == 3 => core.controls.tabs.clear(cols),
            'h' => numbers.all().for_each(|mode| core.set_ansi_mode(mode, true)),
            'l' => numbers.all().for_each(|mode| core.set_ansi_mode(mode, false)),
            'm' => core.select_graphic_rendition(params),
            'r' => core.set_margins(numbers.raw(0), numbers.raw(1)),
            's' => core.save_cursor(),
            'u' => core.restore_cursor(),
            't' => self.window(numbers),
            'c' if numbers.raw(0) == 0 => responder::primary_attributes(&mut self.effects.feedback.replies),
            'n' => responder::status(&mut self.effects.feedback.replies, numbers.raw(0), self.core.reported_position()),
            _ => {}
        }
    }

    fn private_csi(&mut self, numbers: &Numbers<'_>, last: char) {
        let core = &mut *self.core;
        match last {
            'h' => numbers.all().for_each(|mode| core.set_private_mode(mode, true)),
            'l' => numbers.all().for_each(|mode| core.set_private_mode(mode, false)),
            'J' => core.erase_display(numbers.raw(0), self.effects),
            'K' => core.erase_line(numbers.raw(0)),
            'W' if numbers.raw(0) == 5 => core.controls.tabs = Default::default(),
            'n' => {
                let position = self.core.reported_position();
                responder::private_status(&mut self.effects.feedback.replies, numbers.raw(0), position);
            }
            _ => {}
        }
    }

    fn other_csi(&mut self, numbers: &Numbers<'_>, intermediates: &[u8], last: char) {
        let core = &mut *self.core;
        let replies = &mut self.effects.feedback.replies;
        let screen = core.active() as usize;
        match (intermediates, last) {
            ([b'>'], 'c') if numbers.raw(0) == 0 => responder::secondary_attributes(replies),
            ([b'>'], 'q') if numbers.raw(0) == 0 => responder::version(replies),
            ([b'>'], 'm') if numbers.raw(0) == 4 => {
                core.controls.modify_other_keys = u8::try_from(numbers.raw(1)).unwrap_or(0).min(2);
            }
            ([b'>'], 'n') if numbers.raw(0) == 4 => core.controls.modify_other_keys = 0,
            ([b'>'], 'u') => core.controls.kitty[screen].push(kitty_flags(numbers.raw(0))),
            ([b'<'], 'u') => core.controls.kitty[screen].pop(numbers.raw(0).max(1)),
            ([b'='], 'u') => core.controls.kitty[screen].change(kitty_flags(numbers.raw(0)), numbers.raw(1)),
            ([b' '], 'q') => core.controls.cursor_style = u8::try_from(numbers.raw(0)).unwrap_or(0).min(6),
            ([b'!'], 'p') => core.soft_reset(),
            ([b'$'], 'p') => {
                let mode = numbers.raw(0);
                responder::ansi_mode(replies, mode, core.controls.modes.report_ansi(mode));
            }
            ([b'?', b'$'], 'p') => {
                let mode = numbers.raw(0);
                let alternate = core.active() == Buffer::Alternate;
                responder::private_mode(replies, mode, core.controls.modes.report_private(mode, alternate));
            }
            _ => {}
        }
    }

    fn window(&mut self, numbers: &Numbers<'_>) {
        let operation = numbers.raw(0);
        match operation {
            22 if numbers.raw(1) != 1 => self.core.controls.push_title(),
            23 if numbers.raw(1) != 1 => {
                if self.core.controls.pop_title() {
                    self.effects.event(TerminalEvent::Title(self.core.controls.title.clone()));
                }
            }
            _ => responder::window(&mut self.effects.feedback.replies, operation, self.core.size),
        }
    }
}

/// The five flags that the keyboard protocol has.
fn kitty_flags(number: u16) -> u8 {
    u8::try_from(number & 0x1f).unwrap_or(0)
}
