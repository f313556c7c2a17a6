//! Answers to device queries: one function for each, from values the engine reads at the query's own byte.
//!
//! The terminal answers on the host and nowhere else: programs give an answer as little as 100 ms, and a second answer
//! from a viewer would be a phantom keystroke. An answer is written whole or not at all.
//!
//! Left unanswered on purpose: reading the clipboard (OSC 52 `?`) and the title (CSI 20 t, 21 t), which would type text of
//! someone's choosing into the program; kitty's keyboard and graphics queries and XTGETTCAP, which promise input that the
//! ways in cannot encode; DA3 and DECRQSS, which nobody needs.

use agentapi_shared::WindowSize;
use vte::ansi::Rgb;

use super::controls::ModeReport;
use super::render::put;
use super::theme;

/// Answers kept for a program that asks faster than it reads. Overflow: further answers are dropped whole until the
/// owner has taken these; a program that far behind reads none of them in time.
pub const REPLIES_BYTES_MAX: usize = 64 << 10;
/// The size of a cell in pixels that CSI 14 t and 16 t report: there is no real one, but the ratio is a usual one.
const CELL_PIXELS: (u32, u32) = (10, 20);

/// How a string answer ends: as the query did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminator {
    /// BEL.
    Bell,
    /// ESC \
    String,
}

impl Terminator {
    fn text(self) -> &'static str {
        match self {
            Self::Bell => "\x07",
            Self::String => "\x1b\\",
        }
    }
}

fn answer(replies: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    let before = replies.len();
    put(replies, args);
    if replies.len() > REPLIES_BYTES_MAX {
        replies.truncate(before);
    }
}

/// DA1: a VT220 with ANSI colour. Not 52: a clipboard write reaches viewers only as bytes, and may come to nothing.
pub fn primary_attributes(replies: &mut Vec<u8>) {
    answer(replies, format_args!("\x1b[?62;22c"));
}

/// DA2, as xterm.js gives it: programs take the number for an xterm patch level.
pub fn secondary_attributes(replies: &mut Vec<u8>) {
    answer(replies, format_args!("\x1b[>0;276;0c"));
}

/// XTVERSION.
pub fn version(replies: &mut Vec<u8>) {
    answer(replies, format_args!("\x1bP>|agentapi {}\x1b\\", env!("CARGO_PKG_VERSION")));
}

/// DSR: 5 is answered with "ready", 6 with the cursor's position.
pub fn status(replies: &mut Vec<u8>, query: u16, (row, col): (usize, usize)) {
    match query {
        5 => answer(replies, format_args!("\x1b[0n")),
        6 => answer(replies, format_args!("\x1b[{row};{col}R")),
        _ => {}
    }
}

/// DECDSR: 6 is the cursor's position, 996 whether the colours are dark (1) or light (2).
pub fn private_status(replies: &mut Vec<u8>, query: u16, (row, col): (usize, usize)) {
    match query {
        6 => answer(replies, format_args!("\x1b[?{row};{col}R")),
        996 => answer(replies, format_args!("\x1b[?997;{}n", if theme::IS_DARK { 1 } else { 2 })),
        _ => {}
    }
}

/// DECRQM for an ANSI mode.
pub fn ansi_mode(replies: &mut Vec<u8>, mode: u16, report: ModeReport) {
    answer(replies, format_args!("\x1b[{mode};{}$y", report as u8));
}

/// DECRQM for a DEC mode.
pub fn private_mode(replies: &mut Vec<u8>, mode: u16, report: ModeReport) {
    answer(replies, format_args!("\x1b[?{mode};{}$y", report as u8));
}

/// XTWINOPS: the size in pixels (14), of a cell (16), in characters (18).
pub fn window(replies: &mut Vec<u8>, operation: u16, size: WindowSize) {
    let (width, height) = CELL_PIXELS;
    let (cols, rows) = (u32::from(size.cols()), u32::from(size.rows()));
    match operation {
        14 => answer(replies, format_args!("\x1b[4;{};{}t", rows * height, cols * width)),
        16 => answer(replies, format_args!("\x1b[6;{height};{width}t")),
        18 => answer(replies, format_args!("\x1b[8;{rows};{cols}t")),
        _ => {}
    }
}

/// OSC 4, 10, 11, 12; `name` is the number that was asked for.
pub fn color(replies: &mut Vec<u8>, name: &str, color: Rgb, terminator: Terminator) {
    let Rgb { r, g, b } = color;
    let end = terminator.text();
    answer(replies, format_args!("\x1b]{name};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}{end}"));
}

/// OSC 7501 `?`: the program status protocol is spoken here; said by giving the query back.
pub fn program_status(replies: &mut Vec<u8>, terminator: Terminator) {
    answer(replies, format_args!("\x1b]7501;?{}", terminator.text()));
}
