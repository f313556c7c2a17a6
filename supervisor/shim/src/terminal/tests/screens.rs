//! What the screen says: text, wraps, attributes, cursor, sizes.

use super::{feed, size, terminal};
use crate::terminal::{Screen, ScreenCursor, Terminal};

fn lines(screen: &Screen) -> Vec<(&str, bool)> {
    screen.lines.iter().map(|line| (line.text.as_str(), line.wrapped)).collect()
}

#[test]
fn the_screen_is_text_without_spaces_at_the_ends() {
    let terminal = terminal(size(8, 4), "ab  \r\n\x1b[31mlong text that wraps\x1b[m 漢".as_bytes());
    let screen = terminal.screen();
    assert_eq!(lines(&screen), [("ab", false), ("long tex", true), ("t that w", true), ("raps 漢", false)]);
    assert_eq!(screen.cursor, ScreenCursor { row: 3, col: 7, visible: true });
    assert_eq!(terminal.screen_text(0), "ab\nlong tex\nt that w\nraps 漢");
}

#[test]
fn attributes_come_as_sequences_that_stand_alone_in_each_line() {
    let terminal = terminal(size(10, 2), b"\x1b[1;31mred\r\nstill\x1b[m me");
    assert_eq!(terminal.screen_ansi(0), "\x1b[1;31mred\x1b[m\n\x1b[1;31mstill\x1b[m me");
}

#[test]
fn rows_that_scroll_off_are_kept_in_order_with_their_attributes() {
    let mut terminal = terminal(size(10, 3), b"\x1b[32mone\x1b[m\r\ntwo\r\nthree\r\nfour\r\n");
    assert_eq!(terminal.scrollback_rows(), 2);
    assert_eq!(terminal.screen_text(9), "one\ntwo\nthree\nfour\n");
    assert_eq!(terminal.screen_ansi(2).lines().next(), Some("\x1b[32mone\x1b[m"));
    assert_eq!(terminal.screen_text(1), "two\nthree\nfour\n");
    feed(&mut terminal, b"\x1b[3J");
    assert_eq!(terminal.scrollback_rows(), 0);
}

#[test]
fn the_alternate_screen_leaves_scrollback_and_primary_alone() {
    let mut terminal = terminal(size(10, 3), b"a\r\nb\r\nc\r\nd");
    feed(&mut terminal, b"\x1b[?1049h\x1b[H1\r\n2\r\n3\r\n4\r\n5");
    assert_eq!(terminal.screen_text(9), "a\n3\n4\n5");
    feed(&mut terminal, b"\x1b[?1049l");
    assert_eq!(terminal.screen_text(9), "a\nb\nc\nd");
}

#[test]
fn rows_scroll_off_whatever_scrolls_them() {
    for (name, output, expected) in [
        ("line feed", "1\r\n2\r\n3\r\n4", "1\n2\n3\n4"),
        ("wrap", "1111222233334", "1111\n2222\n3333\n4"),
        ("wide wrap", "1\r\n2\r\n333漢", "1\n2\n333\n漢"),
        ("index", "1\r\n2\r\n3\r\x1bD4", "1\n2\n3\n4"),
        ("next line", "1\r\n2\r\n3\x1bE4", "1\n2\n3\n4"),
        ("scroll up", "1\r\n2\r\n3\x1b[S", "1\n2\n3\n"),
        ("region from the top", "1\r\n2\r\nfix\x1b[1;2r\x1b[2H\n4", "1\n2\n4\nfix"),
        ("region below", "1\r\n2\r\n3\x1b[2;3r\x1b[3H\n4", "1\n3\n4"),
        ("delete line", "1\r\n2\r\n3\x1b[H\x1b[M", "2\n3\n"),
    ] {
        assert_eq!(terminal(size(4, 3), output.as_bytes()).screen_text(9), expected, "{name}");
    }
}

#[test]
fn synchronized_updates_are_shown_at_once() {
    assert_eq!(terminal(size(10, 1), b"\x1b[?2026hnow").screen_text(0), "now");
}

#[test]
fn a_narrower_terminal_reflows_and_keeps_what_no_longer_fits() {
    let mut terminal = terminal(size(12, 3), b"first line\r\nsecond line\r\nthird");
    terminal.resize(size(6, 3)).unwrap();
    assert_eq!(terminal.screen_text(9), "first\nline\nsecond\n line\nthird");
    terminal.resize(size(6, 2)).unwrap();
    assert_eq!(terminal.screen_text(9), "first\nline\nsecond\n line\nthird");
    assert_eq!((terminal.scrollback_rows(), terminal.screen().cursor.row), (3, 1));
    terminal.resize(size(6, 4)).unwrap();
    assert_eq!(terminal.screen_text(0), " line\nthird\n\n");
}

#[test]
fn reflowing_uses_empty_rows_before_it_scrolls() {
    let mut terminal = terminal(size(10, 5), b"0123456789\r\nabcdef\r\n$ ");
    terminal.resize(size(5, 5)).unwrap();
    assert_eq!((terminal.screen_text(9), terminal.screen().cursor.row), ("01234\n56789\nabcde\nf\n$".to_owned(), 4));
    terminal.resize(size(4, 5)).unwrap();
    assert_eq!(terminal.screen_text(9), "0123\n4567\n89\nabcd\nef\n$");
    terminal.resize(size(10, 5)).unwrap();
    assert_eq!(terminal.screen().cursor.col, 2);
}

#[test]
fn resizing_reaches_the_hidden_screen() {
    let mut terminal = terminal(size(10, 3), b"primary\r\n\x1b[?1049halternate");
    terminal.resize(size(5, 3)).unwrap();
    assert_eq!(terminal.screen().lines.len(), 3);
    feed(&mut terminal, b"\x1b[?1049l");
    assert_eq!(terminal.screen_text(0), "prima\nry\n");
}

#[test]
fn compacting_changes_nothing() {
    let mut terminal = Terminal::new(size(20, 5));
    (0..500).for_each(|n| drop(feed(&mut terminal, format!("line {n}\r\n").as_bytes())));
    let before = super::state(&terminal);
    terminal.compact();
    assert_eq!(before, super::state(&terminal));
    feed(&mut terminal, b"more\r\n");
    assert_eq!(terminal.screen().lines[3].text, "more");
}
