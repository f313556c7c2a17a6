//! Select Graphic Rendition: parameters to attributes of the pen.

use alacritty_terminal::term::cell::Cell;
use vte::ansi::{Attr, Color, Handler, Rgb};
use vte::{Params, ParamsIter};

use super::Core;
use crate::terminal::render::{BLINK, named};

impl Core {
    /// Runs SGR.
    pub(super) fn select_graphic_rendition(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            match param {
                [5 | 6] => set_blink(&mut self.term.grid_mut().cursor.template, true),
                [25] => set_blink(&mut self.term.grid_mut().cursor.template, false),
                _ => {
                    if let Some(attr) = attribute(param, &mut params) {
                        self.term.terminal_attribute(attr);
                    }
                }
            }
        }
    }
}

fn set_blink(template: &mut Cell, on: bool) {
    let bits = if on { template.flags.bits() | BLINK } else { template.flags.bits() & !BLINK };
    template.flags = alacritty_terminal::term::cell::Flags::from_bits_retain(bits);
}

fn attribute(param: &[u16], rest: &mut ParamsIter<'_>) -> Option<Attr> {
    Some(match *param {
        [0] => Attr::Reset,
        [1] => Attr::Bold,
        [2] => Attr::Dim,
        [3] => Attr::Italic,
        [4, 0] | [24] => Attr::CancelUnderline,
        // 21 is a double underline in xterm; only the Linux console ends bold with it.
        [4, 2] | [21] => Attr::DoubleUnderline,
        [4, 3] => Attr::Undercurl,
        [4, 4] => Attr::DottedUnderline,
        [4, 5] => Attr::DashedUnderline,
        [4, ..] => Attr::Underline,
        [7] => Attr::Reverse,
        [8] => Attr::Hidden,
        [9] => Attr::Strike,
        [22] => Attr::CancelBoldDim,
        [23] => Attr::CancelItalic,
        [27] => Attr::CancelReverse,
        [28] => Attr::CancelHidden,
        [29] => Attr::CancelStrike,
        [38, ref color @ ..] => Attr::Foreground(extended(color, rest)?),
        [48, ref color @ ..] => Attr::Background(extended(color, rest)?),
        [58, ref color @ ..] => Attr::UnderlineColor(Some(extended(color, rest)?)),
        [39] => Attr::Foreground(crate::terminal::engine::Style::PLAIN.fg),
        [49] => Attr::Background(crate::terminal::engine::Style::PLAIN.bg),
        [59] => Attr::UnderlineColor(None),
        [n @ 30..=37] => Attr::Foreground(Color::Named(named(n - 30)?)),
        [n @ 40..=47] => Attr::Background(Color::Named(named(n - 40)?)),
        [n @ 90..=97] => Attr::Foreground(Color::Named(named(n - 90 + 8)?)),
        [n @ 100..=107] => Attr::Background(Color::Named(named(n - 100 + 8)?)),
        _ => return None,
    })
}

/// The colour after 38, 48 or 58: with colons in the same parameter, with semicolons in the next ones.
fn extended(inline: &[u16], rest: &mut ParamsIter<'_>) -> Option<Color> {
    match inline {
        [] => {
            let mut next = || rest.next().and_then(|param| param.first().copied());
            match next()? {
                2 => rgb(next()?, next()?, next()?),
                5 => indexed(next()?),
                _ => None,
            }
        }
        [2, r, g, b] | [2, _, r, g, b, ..] => rgb(*r, *g, *b),
        [5, index, ..] => indexed(*index),
        _ => None,
    }
}

fn rgb(r: u16, g: u16, b: u16) -> Option<Color> {
    let byte = |n: u16| u8::try_from(n).ok();
    Some(Color::Spec(Rgb { r: byte(r)?, g: byte(g)?, b: byte(b)? }))
}

fn indexed(index: u16) -> Option<Color> {
    u8::try_from(index).ok().map(Color::Indexed)
}
