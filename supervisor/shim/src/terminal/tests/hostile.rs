//! Output meant to hurt: what it may leave behind is bounded, and a failing engine is replaced.

use std::ops::Range;

use agentapi_shared::WindowSize;

use super::{feed, size, state, terminal};
use crate::terminal::controls::{Controls, KITTY_STACK_MAX, TITLE_BYTES_MAX, TITLE_STACK_MAX};
use crate::terminal::engine::{Buffer, CellView, CursorState, Effects, Engine, Rgb};
use crate::terminal::scanner::{SEQUENCE_BYTES_MAX, STRING_BYTES_MAX};
use crate::terminal::scrollback::{self, Scrollback};
use crate::terminal::{EngineLost, Feedback, Terminal, TerminalEvent};

#[test]
fn endless_strings_leave_nothing_behind() {
    let filler = vec![b'x'; 1 << 20];
    for introducer in
        [&b"\x1b]0;"[..], b"\x1b]52;c;", b"\x1bPq", b"\x1b_G", b"\x1b^", b"\x1bX", b"\x1b[", b"\x1b[1;", b"\x1b("]
    {
        let mut endless = terminal(size(20, 5), introducer);
        for _ in 0..8 {
            let part = if introducer.starts_with(b"\x1b[") { vec![b';'; 1 << 20] } else { filler.clone() };
            feed(&mut endless, &part);
            assert!(endless.scanner.unfinished().len() <= STRING_BYTES_MAX, "{introducer:?}");
        }
        // It is still in the string, and so is a viewer that joins now; the end is found all the same.
        let mut joined = terminal(size(20, 5), &endless.keyframe(0));
        for terminal in [&mut endless, &mut joined] {
            feed(terminal, b"\x07m\x1b\\\x18");
            assert_eq!(terminal.scanner.unfinished(), b"", "{introducer:?}");
            assert_eq!(terminal.title(), "", "{introducer:?}");
        }
    }
}

#[test]
fn a_string_as_long_as_allowed_is_kept_and_one_byte_more_is_not() {
    for (length, kept) in [(STRING_BYTES_MAX, true), (STRING_BYTES_MAX + 1, false)] {
        let bytes = [b"\x1b]2;", "t".repeat(length - 4).as_bytes(), b"\x07"].concat();
        for portion in [1_000, bytes.len()] {
            let mut terminal = Terminal::new(size(20, 5));
            bytes.chunks(portion).for_each(|part| drop(feed(&mut terminal, part)));
            let expected = if kept { "t".repeat(TITLE_BYTES_MAX) } else { String::new() };
            assert_eq!(terminal.title(), expected, "{length} in portions of {portion}");
        }
    }
    let zeros = |count: usize| [b"\x1b[", "0".repeat(count - 2).as_bytes(), b"7C*"].concat();
    assert_eq!(terminal(size(20, 5), &zeros(SEQUENCE_BYTES_MAX - 1)).screen().lines[0].text, "       *");
    assert_eq!(terminal(size(20, 5), &zeros(SEQUENCE_BYTES_MAX)).screen().lines[0].text, "*");
}

#[test]
fn repeating_prints_at_most_a_screenful() {
    let mut terminal = terminal(size(10, 5), b"x\x1b[65535b");
    assert_eq!(terminal.screen_text(usize::MAX), ["xxxxxxxxxx"; 5].join("\n") + "\nx");
    feed(&mut terminal, b"\x1b[65535b");
    assert_eq!(terminal.scrollback_rows(), 1, "a second one has nothing to repeat");
}

#[test]
fn counts_beyond_the_screen_act_like_its_size() {
    for last in "@ABCDEFGHIJKLMPSTXZ`abdefg".chars() {
        let text = b"one\r\ntwo\r\n\x1b[2;3Hthree\x1b[2;2H";
        let huge = terminal(size(10, 5), &[text, format!("\x1b[65535{last}").as_bytes()].concat());
        let cap = if last == 'b' { 50 } else { 10 };
        let capped = terminal(size(10, 5), &[text, format!("\x1b[{cap}{last}").as_bytes()].concat());
        assert_eq!(state(&huge), state(&capped), "{last}");
    }
}

#[test]
fn one_cell_holds_few_combining_characters() {
    let terminal = terminal(size(10, 5), format!("a{}", "\u{301}".repeat(100_000)).as_bytes());
    assert!(terminal.screen_text(0).trim_end().len() <= 1 + 8 * '\u{301}'.len_utf8());
}

#[test]
fn links_are_bounded_in_length_and_in_sum() {
    let mut terminal = Terminal::new(size(100, 50));
    for n in 0..5_000 {
        feed(&mut terminal, format!("\x1b]8;;http://{n}/{}\x07x\x1b]8;;\x07", "y".repeat(2_000)).as_bytes());
    }
    let rows = (0..50).flat_map(|row| terminal.engine.row(Buffer::Primary, row));
    let held: usize = rows.filter_map(|cell| cell.link.map(|link| link.uri().len())).sum();
    assert!(held > 100_000 && held <= 1 << 20, "{held}");
    // When they are gone there is room again.
    feed(&mut terminal, b"\x1b[2J\x1b]8;;http://again/\x07x");
    let again = terminal.engine.row(Buffer::Primary, terminal.screen().cursor.row).any(|cell| cell.link.is_some());
    assert!(again);
}

#[test]
fn lists_are_bounded() {
    let mut terminal = Terminal::new(size(10, 5));
    feed(&mut terminal, &b"\x1b]2;t\x07\x1b[22;2t\x1b[>1u".repeat(1_000));
    let controls = terminal.engine.controls();
    assert_eq!((controls.title_stack.len(), controls.kitty[0].stack.len()), (TITLE_STACK_MAX, KITTY_STACK_MAX));
    let mut feedback = Feedback::default();
    terminal.feed(&b"\x07\x1b]2;a\x07\x1b]2;b\x07".repeat(1_000), &mut feedback).unwrap();
    assert_eq!(feedback.events, [TerminalEvent::Bell, TerminalEvent::Title("b".to_owned())]);
}

#[test]
fn titles_have_no_control_characters() {
    let terminal = terminal(size(10, 5), "\x1b]0;a\tb\u{9b}c\u{7f}d\x07".as_bytes());
    assert_eq!(terminal.title(), "abcd");
}

#[test]
fn scrollback_stays_within_its_limits() {
    let mut terminal = Terminal::new(size(200, 5));
    for n in 0..20_000_u32 {
        let color = n % 256;
        let row: String = (0..50).map(|i| format!("\x1b[38;5;{}mword", (color + i) % 256)).collect();
        feed(&mut terminal, format!("{row}\r\n").as_bytes());
    }
    assert!(terminal.scrollback.bytes() <= scrollback::BYTES_MAX);
    assert!(terminal.scrollback_rows() > 500);
}

#[test]
fn screen_floods_reach_the_scrollback_only_by_scrolling() {
    // Erasing the screen, resetting and filling it scroll nothing: they may come a million times a second.
    let terminal = terminal(size(20, 5), &b"text\x1b[2J\x1b#8\x1b[3;4r\x1b[65535L\x1b[65535M".repeat(1_000));
    assert_eq!(terminal.scrollback_rows(), 0);
}

/// An engine that fails on an exclamation mark.
struct Fragile(crate::terminal::AlacrittyEngine);

impl Engine for Fragile {
    fn new(size: WindowSize) -> Self {
        Self(Engine::new(size))
    }

    fn size(&self) -> WindowSize {
        self.0.size()
    }

    fn feed(&mut self, bytes: &[u8], effects: &mut Effects<'_>) {
        self.0.feed(bytes, effects);
        assert!(!bytes.contains(&b'!'), "a bug in the engine");
    }

    fn resize(&mut self, size: WindowSize, scrollback: &mut Scrollback) {
        self.0.resize(size, scrollback);
    }

    fn compact(&mut self) {}

    fn active(&self) -> Buffer {
        self.0.active()
    }

    fn row(&self, buffer: Buffer, row: u16) -> impl Iterator<Item = CellView<'_>> {
        self.0.row(buffer, row)
    }

    fn wraps(&self, buffer: Buffer, row: u16) -> bool {
        self.0.wraps(buffer, row)
    }

    fn cursor(&self) -> CursorState {
        self.0.cursor()
    }

    fn saved_cursor(&self, buffer: Buffer) -> CursorState {
        self.0.saved_cursor(buffer)
    }

    fn region(&self, buffer: Buffer) -> Range<u16> {
        self.0.region(buffer)
    }

    fn controls(&self) -> &Controls {
        self.0.controls()
    }

    fn color(&self, index: usize) -> Option<Rgb> {
        self.0.color(index)
    }
}

#[test]
fn an_engine_that_panics_is_replaced_and_said_to_be() {
    let mut terminal = Terminal::<Fragile>::starting_at(size(20, 5), 100);
    let mut feedback = Feedback::default();
    assert_eq!(terminal.feed(b"fine", &mut feedback), Ok(()));
    assert_eq!(terminal.feed(b"bad!\x1b[1", &mut feedback), Err(EngineLost { offset: 111 }));
    assert_eq!(terminal.offset(), 111);
    assert_eq!(terminal.feed(b"again", &mut feedback), Ok(()));
    assert_eq!(terminal.screen_text(0).trim_end(), "again");
    assert_eq!(terminal.size(), size(20, 5));
}
