//! The terminal of a spawn: what a screen would show after the output so far, and the answers a terminal owes.
//!
//! Synchronous and owned by one thread at a time; who feeds it, when, and where replies go is the owner's affair. Output in
//! any portions gives the same state and the same answers. Nothing in here grows without bound, whatever is fed: rows
//! that scroll off go to a bounded store, sequences are capped by the scanner, counts by the screen's size.
//!
//! A panic of the engine never gets out: the engine is replaced by a blank one and [`EngineLost`] says so; the owner
//! makes a new terminal and feeds it the journal.

pub mod alacritty;
pub mod controls;
pub mod engine;
pub mod keyframe;
pub mod render;
pub mod responder;
pub mod scanner;
pub mod screen;
pub mod scrollback;
pub mod theme;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use agentapi_shared::WindowSize;

pub use alacritty::AlacrittyEngine;
use engine::{Effects, Engine};
use scanner::Scanner;
pub use screen::{Screen, ScreenCursor, ScreenLine};
use scrollback::Scrollback;

/// Something to tell others about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalEvent {
    /// The title changed; at most [`controls::TITLE_BYTES_MAX`] bytes without control characters.
    Title(String),
    /// BEL.
    Bell,
}

/// What feeding a terminal brings about; the owner takes both lists and clears them.
#[derive(Debug, Default)]
pub struct Feedback {
    /// Bytes to write to the PTY: whole answers, in the order of the queries. Bounded by the responder.
    pub replies: Vec<u8>,
    /// At most one event of each kind, the latest.
    pub events: Vec<TerminalEvent>,
}

impl Feedback {
    /// Adds an event; it replaces an earlier one of its kind.
    pub fn push(&mut self, event: TerminalEvent) {
        self.events.retain(|earlier| std::mem::discriminant(earlier) != std::mem::discriminant(&event));
        self.events.push(event);
    }
}

/// The engine panicked and has been replaced by a blank one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the screen engine failed on output near offset {offset}; the screen is blank until it is rebuilt")]
pub struct EngineLost {
    /// Offset behind the portion that it failed on.
    pub offset: u64,
}

/// A terminal.
#[derive(Debug)]
pub struct Terminal<E: Engine = AlacrittyEngine> {
    engine: E,
    scanner: Scanner,
    scrollback: Scrollback,
    offset: u64,
}

impl Terminal {
    /// A fresh terminal, at offset 0.
    #[must_use]
    pub fn new(size: WindowSize) -> Self {
        Self::starting_at(size, 0)
    }
}

impl<E: Engine> Terminal<E> {
    /// A fresh terminal whose first byte will be the one at `offset`: for a journal that has lost its beginning.
    #[must_use]
    pub fn starting_at(size: WindowSize, offset: u64) -> Self {
        Self { engine: E::new(size), scanner: Scanner::default(), scrollback: Scrollback::default(), offset }
    }

    /// Runs output. On [`EngineLost`] the terminal stays usable: blank, at the offset behind `bytes`.
    pub fn feed(&mut self, bytes: &[u8], feedback: &mut Feedback) -> Result<(), EngineLost> {
        self.offset += bytes.len() as u64;
        let (engine, scanner, scrollback) = (&mut self.engine, &mut self.scanner, &mut self.scrollback);
        // Unwind safe: whatever the panic left half-done is thrown away below.
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut effects = Effects { scrollback, feedback };
            scanner.scan(bytes, |part| engine.feed(part, &mut effects));
        }));
        run.map_err(|_panic| self.lose_engine(self.engine.size()))
    }

    /// Changes the size.
    pub fn resize(&mut self, size: WindowSize) -> Result<(), EngineLost> {
        let (engine, scrollback) = (&mut self.engine, &mut self.scrollback);
        // Unwind safe, as above.
        let run = catch_unwind(AssertUnwindSafe(|| engine.resize(size, scrollback)));
        run.map_err(|_panic| self.lose_engine(size))
    }

    fn lose_engine(&mut self, size: WindowSize) -> EngineLost {
        self.engine = E::new(size);
        self.scanner = Scanner::default();
        self.scrollback = Scrollback::default();
        EngineLost { offset: self.offset }
    }

    /// The size.
    #[must_use]
    pub fn size(&self) -> WindowSize {
        self.engine.size()
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on as if everything before `offset` had been fed: for output that the engine cannot take.
    pub fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The title that the program set; empty if none.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.engine.controls().title
    }

    /// Rows of scrollback that there are.
    #[must_use]
    pub fn scrollback_rows(&self) -> usize {
        self.scrollback.len()
    }

    /// Bytes of scrollback held.
    #[must_use]
    pub fn scrollback_bytes(&self) -> usize {
        self.scrollback.bytes()
    }

    /// Escape sequences that rebuild this terminal in another of the same size (see [`keyframe`]), with the newest
    /// `scrollback_rows` rows of scrollback.
    #[must_use]
    pub fn keyframe(&self, scrollback_rows: usize) -> Vec<u8> {
        keyframe::write(&self.engine, &self.scrollback, scrollback_rows, self.scanner.unfinished())
    }

    /// What the screen shows.
    #[must_use]
    pub fn screen(&self) -> Screen {
        screen::read(&self.engine)
    }

    /// The newest `scrollback_rows` rows and the screen as text, a line for each row, without spaces at their ends.
    #[must_use]
    pub fn screen_text(&self, scrollback_rows: usize) -> String {
        screen::text(&self.engine, &self.scrollback, scrollback_rows)
    }

    /// The same with colours and attributes as SGR sequences; every line starts with default attributes.
    #[must_use]
    pub fn screen_ansi(&self, scrollback_rows: usize) -> String {
        screen::ansi(&self.engine, &self.scrollback, scrollback_rows)
    }

    /// Gives back memory that only a busy terminal needs; for the owner to call when output goes quiet.
    pub fn compact(&mut self) {
        self.engine.compact();
        self.scrollback.compact();
    }
}
