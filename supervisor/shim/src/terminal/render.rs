//! Cells to text: plain, or with SGR and OSC 8 sequences that set exactly what changed.
//!
//! The pen is explicit, so that a caller can write rows that stand alone (scrollback) as well as a whole screen in one
//! stroke (keyframe). The order of the cells is never left: where a terminal might disagree about a character's width,
//! the column is addressed again before the next one.

use std::io::Write;

use alacritty_terminal::term::cell::Flags;

use super::engine::{Attrs, CellKind, CellView, Color, Link, NamedColor, Style};

/// SGR 5; the engine has no name for it, the bit is free in its cells.
pub const BLINK: u16 = 1 << 15;
const UNDERLINES: u16 = Flags::ALL_UNDERLINES.bits();

/// Attribute bits and their SGR parameters, without the underlines.
const ATTRS: [(u16, &str); 7] = [
    (Flags::BOLD.bits(), "1"),
    (Flags::DIM.bits(), "2"),
    (Flags::ITALIC.bits(), "3"),
    (BLINK, "5"),
    (Flags::INVERSE.bits(), "7"),
    (Flags::HIDDEN.bits(), "8"),
    (Flags::STRIKEOUT.bits(), "9"),
];

/// Underline bits and their SGR parameters.
const UNDERLINE_STYLES: [(u16, &str); 5] = [
    (Flags::UNDERLINE.bits(), "4"),
    (Flags::DOUBLE_UNDERLINE.bits(), "4:2"),
    (Flags::UNDERCURL.bits(), "4:3"),
    (Flags::DOTTED_UNDERLINE.bits(), "4:4"),
    (Flags::DASHED_UNDERLINE.bits(), "4:5"),
];

/// Every bit that a style may have.
pub const STYLE_BITS: u16 = {
    let mut bits = UNDERLINES;
    let mut i = 0;
    while i < ATTRS.len() {
        bits |= ATTRS[i].0;
        i += 1;
    }
    bits
};

/// Whether columns are addressed again after characters whose width terminals disagree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// Text alone.
    None,
    /// CHA after such a character.
    Columns,
}

/// The attributes that the text written so far has left in force.
#[derive(Debug)]
pub struct Pen {
    style: Style,
    link: Option<Link>,
}

impl Default for Pen {
    fn default() -> Self {
        Self { style: Style::PLAIN, link: None }
    }
}

impl Pen {
    /// Writes what changes the pen to this.
    pub fn set(&mut self, out: &mut Vec<u8>, style: Style, link: Option<&Link>) {
        if self.style != style {
            write_sgr(out, self.style, style);
            self.style = style;
        }
        if self.link.as_ref() != link {
            write_link(out, link);
            self.link = link.cloned();
        }
    }

    /// Back to default attributes and no link.
    pub fn reset(&mut self, out: &mut Vec<u8>) {
        self.set(out, Style::PLAIN, None);
    }

    /// Whether a cell of this style without a link needs nothing but its character.
    #[inline]
    #[must_use]
    pub fn is(&self, style: Style) -> bool {
        self.style == style && self.link.is_none()
    }

    /// Writes cells from the first column on; spaces at the end are the caller's to leave out.
    pub fn write_cells<'a>(
        &mut self,
        out: &mut Vec<u8>,
        cells: impl Iterator<Item = CellView<'a>>,
        addressing: Addressing,
    ) {
        let mut unsure = false;
        for (col, cell) in cells.enumerate() {
            if matches!(cell.kind, CellKind::Spacer | CellKind::Leading) {
                continue;
            }
            if unsure && addressing == Addressing::Columns {
                write_csi(out, col + 1, b'G');
            }
            if cell.style != self.style || cell.link.is_some() || self.link.is_some() {
                self.set(out, cell.style, cell.link.as_ref());
            }
            push_char(out, cell.ch);
            cell.zerowidth.iter().for_each(|c| push_char(out, *c));
            unsure = cell.kind == CellKind::Wide || !cell.zerowidth.is_empty() || has_disputed_width(cell.ch);
        }
    }
}

/// Adds the text of cells without attributes.
pub fn write_plain<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = CellView<'a>>) {
    for cell in cells.filter(|cell| !matches!(cell.kind, CellKind::Spacer | CellKind::Leading)) {
        push_char(out, cell.ch);
        cell.zerowidth.iter().for_each(|c| push_char(out, *c));
    }
}

/// The text of a row written by [`Pen::write_cells`], without its sequences.
#[must_use]
pub fn strip_sequences(ansi: &[u8]) -> String {
    let mut text = Vec::with_capacity(ansi.len());
    let mut rest = ansi;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail.first()) {
            // Ours are CSI ... m and OSC 8 ... ESC \, and nothing else.
            (0x1b, Some(b'[')) => after(tail, |window| window[0] == b'm', 1),
            (0x1b, Some(_)) => after(tail, |window| window == b"\x1b\\", 2),
            _ => {
                text.push(byte);
                tail
            }
        };
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn after(bytes: &[u8], found: impl Fn(&[u8]) -> bool, width: usize) -> &[u8] {
    let end = bytes.windows(width).position(found).map_or(bytes.len(), |at| at + width);
    &bytes[end..]
}

/// CSI with one number.
pub fn write_csi(out: &mut Vec<u8>, number: impl std::fmt::Display, last: u8) {
    put(out, format_args!("\x1b[{number}{}", char::from(last)));
}

/// Formats into the buffer.
pub fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _infallible = out.write_fmt(args);
}

/// Adds a character.
#[inline]
pub fn push_char(out: &mut Vec<u8>, c: char) {
    if c.is_ascii() {
        out.push(c as u8);
    } else {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Characters that some terminal draws with another width: symbols that became emoji, and everything from there on
/// except box drawing, blocks and braille, which fill whole screens.
fn has_disputed_width(c: char) -> bool {
    let stable = matches!(u32::from(c), 0..=0x218f | 0x2500..=0x25a1 | 0x2800..=0x28ff);
    !stable || c == '\u{ad}'
}

fn write_link(out: &mut Vec<u8>, link: Option<&Link>) {
    match link {
        None => out.extend_from_slice(b"\x1b]8;;\x1b\\"),
        Some(link) if link.id().is_empty() => put(out, format_args!("\x1b]8;;{}\x1b\\", link.uri())),
        Some(link) => put(out, format_args!("\x1b]8;id={};{}\x1b\\", link.id(), link.uri())),
    }
}

fn write_sgr(out: &mut Vec<u8>, from: Style, to: Style) {
    if to == Style::PLAIN {
        out.extend_from_slice(b"\x1b[m");
        return;
    }
    out.extend_from_slice(b"\x1b[");
    let first = out.len();
    // Attributes can be taken away one by one, but the codes overlap (22 ends bold and dim): start over instead.
    let lost = from.attrs.0 & !to.attrs.0 != 0 || (from.underline.is_some() && to.underline.is_none());
    let from = if lost {
        out.extend_from_slice(b"0;");
        Style::PLAIN
    } else {
        from
    };
    let gained = Attrs(to.attrs.0 & !from.attrs.0);
    for (bit, parameter) in ATTRS.iter().chain(&UNDERLINE_STYLES) {
        if gained.has(*bit) {
            put(out, format_args!("{parameter};"));
        }
    }
    if from.fg != to.fg {
        write_color(out, to.fg, 30);
    }
    if from.bg != to.bg {
        write_color(out, to.bg, 40);
    }
    if let (true, Some(color)) = (from.underline != to.underline, to.underline) {
        match color {
            // With colons: a terminal that does not know 58 would read the numbers as attributes of their own.
            Color::Spec(rgb) => put(out, format_args!("58:2::{}:{}:{};", rgb.r, rgb.g, rgb.b)),
            Color::Indexed(index) => put(out, format_args!("58:5:{index};")),
            Color::Named(_) => {}
        }
    }
    if out.len() == first {
        out.push(b'm');
    } else {
        let last = out.len() - 1;
        out[last] = b'm';
    }
}

/// `base`: 30 for the foreground, 40 for the background.
fn write_color(out: &mut Vec<u8>, color: Color, base: u8) {
    match color {
        Color::Spec(rgb) => write_parameters(out, &[base + 8, 2, rgb.r, rgb.g, rgb.b]),
        Color::Indexed(index) => write_parameters(out, &[base + 8, 5, index]),
        Color::Named(name) => match u8::try_from(name as usize) {
            Ok(dark @ 0..=7) => write_parameters(out, &[base + dark]),
            Ok(bright @ 8..=15) => write_parameters(out, &[base + 60 + bright - 8]),
            _ => write_parameters(out, &[base + 9]),
        },
    }
}

/// Digits by hand: on a screen of 24-bit colours nearly every byte of a keyframe comes from here.
fn write_parameters(out: &mut Vec<u8>, parameters: &[u8]) {
    for &n in parameters {
        if n >= 100 {
            out.push(b'0' + n / 100);
        }
        if n >= 10 {
            out.push(b'0' + n / 10 % 10);
        }
        out.extend_from_slice(&[b'0' + n % 10, b';']);
    }
}

/// The named colours that SGR can set; anything else is the default.
#[must_use]
pub fn named(index: u16) -> Option<NamedColor> {
    use NamedColor as N;
    const NAMES: [NamedColor; 16] = [
        N::Black,
        N::Red,
        N::Green,
        N::Yellow,
        N::Blue,
        N::Magenta,
        N::Cyan,
        N::White,
        N::BrightBlack,
        N::BrightRed,
        N::BrightGreen,
        N::BrightYellow,
        N::BrightBlue,
        N::BrightMagenta,
        N::BrightCyan,
        N::BrightWhite,
    ];
    NAMES.get(usize::from(index)).copied()
}
