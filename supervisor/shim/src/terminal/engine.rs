//! The narrow seam to the screen engine: what the rest of the terminal may know about cells, cursors and modes.
//!
//! Everything outside `alacritty` (keyframe writer, screen text, tests) works on these types alone, so that another
//! engine can be put behind them. An engine gets whole escape sequences (the scanner sees to it) and tells what
//! scrolled off through [`Effects`]; it keeps no scrollback of its own.

use std::ops::Range;

use agentapi_shared::WindowSize;
pub use alacritty_terminal::term::cell::Hyperlink as Link;
pub use vte::ansi::{Color, NamedColor, Rgb};

use super::controls::Controls;
use super::scrollback::Scrollback;
use super::{Feedback, TerminalEvent};

/// Which of the two screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The screen with scrollback.
    Primary,
    /// The one full-screen programs switch to.
    Alternate,
}

/// Attributes of a cell apart from its colours; the bits are those of the engine, so that reading a cell is a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attrs(pub u16);

impl Attrs {
    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: u16) -> bool {
        self.0 & other == other
    }
}

/// How a cell looks, apart from its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Foreground.
    pub fg: Color,
    /// Background.
    pub bg: Color,
    /// Colour of the underline, if it differs from the text's.
    pub underline: Option<Color>,
    /// Bold, italic and so on.
    pub attrs: Attrs,
}

impl Style {
    /// What SGR 0 sets.
    pub const PLAIN: Self = Self {
        fg: Color::Named(NamedColor::Foreground),
        bg: Color::Named(NamedColor::Background),
        underline: None,
        attrs: Attrs(0),
    };
}

/// How many columns a cell's character takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// One column.
    Narrow,
    /// Two columns: a [`CellKind::Spacer`] follows.
    Wide,
    /// The right half of a wide character.
    Spacer,
    /// A last column left empty because a wide character did not fit and went to the next row.
    Leading,
}

/// One cell, borrowed from the engine.
#[derive(Debug, Clone)]
pub struct CellView<'a> {
    /// The character; a space if there is none.
    pub ch: char,
    /// Zero-width characters that follow it.
    pub zerowidth: &'a [char],
    /// How it looks.
    pub style: Style,
    /// The OSC 8 link that it belongs to.
    pub link: Option<Link>,
    /// Its width.
    pub kind: CellKind,
}

impl CellView<'_> {
    /// Nothing to see: a space in default colours.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let empty = self.ch == ' ' && self.kind != CellKind::Spacer && self.zerowidth.is_empty();
        empty && self.style == Style::PLAIN && self.link.is_none()
    }
}

impl CellView<'_> {
    /// Whether this last column is empty because `next`, the first character of the next row, is wide and did not fit.
    #[must_use]
    pub fn is_left_by(&self, next: &CellView<'_>) -> bool {
        let reason = self.kind == CellKind::Leading && next.kind == CellKind::Wide;
        reason && self.ch == ' ' && self.zerowidth.is_empty() && self.style == next.style && self.link == next.link
    }
}

/// A designated character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charset {
    /// US-ASCII.
    #[default]
    Ascii,
    /// DEC special graphics: line drawing.
    Graphics,
}

/// A cursor with everything that saving and restoring it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorState {
    /// Row from the top, from 0.
    pub row: u16,
    /// Column from the left, from 0; always on the screen.
    pub col: u16,
    /// The last column was just written: the next character goes to the next row.
    pub pending_wrap: bool,
    /// The pen.
    pub style: Style,
    /// The open link.
    pub link: Option<Link>,
    /// G0 to G3.
    pub charsets: [Charset; 4],
}

impl Default for CursorState {
    /// That of a fresh terminal.
    fn default() -> Self {
        let charsets = [Charset::Ascii; 4];
        Self { row: 0, col: 0, pending_wrap: false, style: Style::PLAIN, link: None, charsets }
    }
}

/// Where an engine puts what leaves it.
#[derive(Debug)]
pub struct Effects<'a> {
    /// Rows that scroll off the top of the primary screen.
    pub scrollback: &'a mut Scrollback,
    /// Answers and events.
    pub feedback: &'a mut Feedback,
}

impl Effects<'_> {
    /// Adds an event; a later one of the same kind replaces the earlier, so the list stays as short as the kinds are.
    pub fn event(&mut self, event: TerminalEvent) {
        self.feedback.push(event);
    }
}

/// A terminal screen.
pub trait Engine: Send + Sized {
    /// A fresh one.
    fn new(size: WindowSize) -> Self;
    /// Its size.
    fn size(&self) -> WindowSize;
    /// Runs output: text and whole escape sequences. A character cut at the end is completed by the next call.
    fn feed(&mut self, bytes: &[u8], effects: &mut Effects<'_>);
    /// Changes the size; rows that no longer fit go to the scrollback.
    fn resize(&mut self, size: WindowSize, scrollback: &mut Scrollback);
    /// Gives back memory that only a busy terminal needs.
    fn compact(&mut self);
    /// Which screen is shown.
    fn active(&self) -> Buffer;
    /// The cells of a row; empty if that screen is not there.
    fn row(&self, buffer: Buffer, row: u16) -> impl Iterator<Item = CellView<'_>>;
    /// Whether the row's text goes on in the next one.
    fn wraps(&self, buffer: Buffer, row: u16) -> bool;
    /// The cursor of the shown screen.
    fn cursor(&self) -> CursorState;
    /// The saved cursor of a screen.
    fn saved_cursor(&self, buffer: Buffer) -> CursorState;
    /// The scroll region of a screen, rows from 0.
    fn region(&self, buffer: Buffer) -> Range<u16>;
    /// Modes, tab stops, title and the like.
    fn controls(&self) -> &Controls;
    /// A colour the program changed: 0-255 of the palette, then foreground, background, cursor.
    fn color(&self, index: usize) -> Option<Rgb>;
}
