//! The same output through an independent emulator, `vt100`, as far as that one goes: it has no line drawing, tab stops,
//! insert mode, autowrap switch or scroll by `ESC D`, moves the cursor on entering the alternate screen, and measures
//! emoji with a variation selector differently. Everything here is within its reach.

use proptest::collection::vec;
use proptest::prelude::*;

use super::grammar::Output;
use super::{feed, size, terminal};

const COLS: u16 = 20;
const ROWS: u16 = 6;

/// Scrolling inside of margins; at their outside and on setting them the two differ.
const REGION_UP: &str = "\x1b[2;5r\x1b[5;1H\r\nup\x1b[S\x1b[3;2H\x1b[2M\r\x1b[r\x1b[H";
const REGION_DOWN: &str = "\x1b[2;5r\x1b[2;1H\x1bMdown\x1b[T\x1b[3;2H\x1b[2L\r\x1b[r\x1b[H";

/// Narrow characters and every edit.
fn narrow() -> impl Strategy<Value = String> {
    let text =
        proptest::sample::select(vec!["a", "hello", "x y z", "ü", "─│", "0123456789012345"]).prop_map(String::from);
    let place = || (1..=ROWS, 1..=COLS).prop_map(|(row, col)| format!("\x1b[{row};{col}H"));
    let finals = proptest::sample::select("ABCDGd@PXST".chars().collect::<Vec<_>>());
    let counted = (1u16..5, finals).prop_map(|(n, last)| format!("\x1b[{n}{last}"));
    let erasing = vec![
        "\x1b[K",
        "\x1b[1K",
        "\x1b[2K",
        "\x1b[J",
        "\x1b[1J",
        "\x1b[2J",
        "\x1bM",
        "\x08",
        "\x1b7",
        "\x1b[3L\r",
        "\x1b[2M\r",
    ];
    let erasing = proptest::sample::select(erasing).prop_map(String::from);
    // From a known place: with a wrap pending the two differ, and ours is xterm's way.
    let placed = (place(), prop_oneof![counted, erasing]).prop_map(|(place, edit)| place + &edit);
    let anywhere = vec![
        "\r\n",
        "\r",
        "\x1b8",
        "\x1b[1m",
        "\x1b[3;4m",
        "\x1b[22m",
        "\x1b[m",
        "\x1b[31m",
        "\x1b[38;5;77m",
        "\x1b[7m",
        "\x1b[27m",
        "\x1b[?25l",
        "\x1b[?2004h",
        REGION_DOWN,
        REGION_UP,
    ];
    let anywhere = proptest::sample::select(anywhere).prop_map(String::from);
    prop_oneof![4 => text, 3 => place(), 5 => placed, 4 => anywhere]
}

/// Wide and combining characters, without edits that cut one in half: there `vt100` leaves both halves.
fn wide() -> impl Strategy<Value = String> {
    let text = vec!["漢字", "a", "한국어", "e\u{301}", "ü漢\u{302}", "0123456789", "\x1b[7m漢\x1b[m"];
    let text = proptest::sample::select(text).prop_map(|text| format!("\x1b[K{text}"));
    let rows = (1..=ROWS).prop_map(|row| format!("\x1b[{row}H"));
    let whole = proptest::sample::select(vec!["\r\n", "\r\x1b[2K", "\x1b[H\x1b[J", "\x1b[H\x1b[S", "\x1b[H\x1b[T"]);
    prop_oneof![6 => text, 2 => rows.prop_map(|row| row + "\x1b[2K"), 2 => whole.prop_map(String::from)]
}

/// Rows as text and whether each character is bold, inverse, underlined; and the cursor.
fn seen_by_vt100(bytes: &[u8]) -> (Vec<String>, (u16, u16)) {
    let number = |n: u16| std::num::NonZero::new(n).unwrap();
    let mut parser = vt100::Parser::new(number(ROWS), number(COLS), 0);
    parser.process(bytes);
    let screen = parser.screen();
    let rows = (0..ROWS).map(|row| {
        let cells = (0..COLS).filter_map(|col| screen.cell(row, col)).filter(|cell| !cell.is_wide_continuation());
        cells
            .map(|cell| {
                // It leaves attributes on cells that it erases.
                if !cell.has_contents() || cell.contents() == " " {
                    return " |".to_owned();
                }
                let text = cell.contents();
                format!("{text}{}{}{}|", u8::from(cell.bold()), u8::from(cell.inverse()), u8::from(cell.underline()))
            })
            .collect()
    });
    (rows.collect(), screen.cursor_position())
}

fn seen_by_us(bytes: &[u8]) -> (Vec<String>, (u16, u16)) {
    use crate::terminal::engine::{Buffer, CellKind, Engine};
    use alacritty_terminal::term::cell::Flags;
    let mut terminal = terminal(size(COLS, ROWS), bytes);
    feed(&mut terminal, b"");
    let engine = &terminal.engine;
    let rows = (0..ROWS).map(|row| {
        let cells = engine.row(Buffer::Primary, row).filter(|cell| cell.kind != CellKind::Spacer);
        cells
            .map(|cell| {
                if cell.ch == ' ' {
                    return " |".to_owned();
                }
                let text: String = std::iter::once(cell.ch).chain(cell.zerowidth.iter().copied()).collect();
                let has = |bit: Flags| u8::from(cell.style.attrs.has(bit.bits()));
                format!("{text}{}{}{}|", has(Flags::BOLD), has(Flags::INVERSE), has(Flags::UNDERLINE))
            })
            .collect()
    });
    let cursor = engine.cursor();
    let col = if cursor.pending_wrap { cursor.col + 1 } else { cursor.col };
    (rows.collect(), (cursor.row, col))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_independent_emulator_sees_the_same(pieces in vec(narrow(), 0..40)) {
        let bytes = Output(pieces.concat().into_bytes());
        prop_assert_eq!(seen_by_us(&bytes), seen_by_vt100(&bytes), "{:?}", bytes);
    }

    #[test]
    fn an_independent_emulator_sees_the_same_wide_characters(pieces in vec(wide(), 0..40)) {
        let bytes = Output(pieces.concat().into_bytes());
        prop_assert_eq!(seen_by_us(&bytes), seen_by_vt100(&bytes), "{:?}", bytes);
    }
}
