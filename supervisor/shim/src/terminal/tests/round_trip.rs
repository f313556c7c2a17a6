//! Keyframes restore: a second terminal that got the keyframe is in the same state, and stays so.

use proptest::prelude::*;

use super::grammar::{garbage, output};
use super::{assert_same, feed, size, terminal};
use crate::terminal::{Feedback, Terminal};

/// Takes a keyframe after `before`, restores it, and feeds `after` to both.
fn check(name: &str, before: &str, after: &str) {
    let mut original = terminal(size(20, 6), before.as_bytes());
    let keyframe = original.keyframe(usize::MAX);
    // Into a fresh terminal, and into one that is in the middle of something else.
    let fresh = terminal(size(20, 6), &keyframe);
    assert_same(&original, &fresh, &format!("{name}: restored"));
    let dirty = b"\x1b[31;7mold\x1b[?1049h\x1b[2;3r\x1b[?6h\x1b[4h\x1b[?7l\x1b(0\x1b[>5u\x1b]4;1;#ffffff\x07\x1b[3g\x1b]0;half a tit";
    let mut restored = terminal(size(20, 6), dirty);
    feed(&mut restored, &keyframe);
    assert_same(&original, &restored, &format!("{name}: restored over something else"));
    assert_eq!(feed(&mut original, after.as_bytes()), feed(&mut restored, after.as_bytes()), "{name}: answers");
    assert_same(&original, &restored, &format!("{name}: continued"));
}

/// Name, what was output before the keyframe, what comes after it.
const CASES: &[(&str, &str, &str)] = &[
    ("wrapped rows", "0123456789012345678901234567\r\nabc", "def\x1b[Hx"),
    (
        "attributes",
        "\x1b[1;3;4:3;9;38;2;1;2;3;48;5;9;58:2::7:8:9mA\x1b[2;5;7;8mB\x1b[22;27mC\x1b[21;91;107mD",
        "E\x1b[39mF\x1b[mG",
    ),
    ("background erase", "\x1b[44mab\x1b[K\r\ncd\x1b[2K\x1b[m\r\n\x1b[41m\x1b[J", "x\x1b[Ky"),
    ("wide and combining", "漢字a\u{301}\u{302}x😀⚠\u{fe0f}!\r\n0123456789012345678漢字", "\x1b[1;2Hz\x1b[2;19Hq"),
    ("scroll region", "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4;1Hin", "\n\n\nscrolled\x1b[M"),
    ("alternate screen", "primary\r\n\x1b[32mgreen\x1b7\x1b[?1049h\x1b[2;2Halt\x1b[31m", "more\x1b[?1049lback\x1b8!"),
    ("saved cursor", "\x1b[3;7H\x1b[1;35m\x1b(0\x1b7\x1b(B\x1b[m\x1b[Hab", "c\x1b8qxq"),
    (
        "saved cursor of both screens",
        "\x1b[2;2H\x1b7\x1b[?1047h\x1b[4;4H\x1b[7m\x1b7\x1b[Ha",
        "\x1b8b\x1b[?1047lc\x1b8d",
    ),
    ("origin mode", "\x1b[3;5r\x1b[?6h\x1b[2;2Hin", "\x1b[6n\x1b[99;1Hlow\x1b[Ahigh"),
    ("tab stops", "\x1b[3g\x1b[1;4H\x1bH\x1b[1;11H\x1bH\r", "a\tb\tc\td\x1b[Ze"),
    ("character sets", "\x1b)0\x1b*0\x0eqqq", "xxx\x0fxx\x1bnq"),
    ("insert mode", "abcdef\x1b[4h\x1b[1;3H", "XYZ\x1b[4lW"),
    ("autowrap off", "\x1b[?7l0123456789012345678", "9XYZ\x1b[?7h!!"),
    ("pending wrap", "\x1b[3;1H01234567890123456789", "x\r\ny"),
    ("pending wrap after a wide character", "\x1b[42m012345678901234567漢", "x"),
    ("pending wrap in insert mode", "\x1b[4h\x1b[3;1H0123456789012345678e\u{301}", "x"),
    (
        "title and modes",
        "\x1b]0;one\x07\x1b[22;2t\x1b]2;two; three\x07\x1b[?1h\x1b=\x1b[?1002;1006;1004;2004;2026;5;12;25l\x1b[?1002;1006;1004;2004;2026;5;12h\x1b[4 q\x1b[>4;2m\x1b[20h",
        "a\nb\x1b[23;2t\x1b[?2026$p\x1b[?1002$p\x1b[?25$p",
    ),
    ("keyboard flags of both screens", "\x1b[>1u\x1b[>3u\x1b[?1049h\x1b[=2u\x1b[>7u", "\x1b[<u\x1b[?1049l\x1b[<u"),
    (
        "colours",
        "\x1b]4;1;rgb:12/34/56;200;#abc\x07\x1b]11;#102030\x07",
        "\x1b]4;1;?;200;?\x07\x1b]10;?;?\x07\x1b]104;1\x07",
    ),
    (
        "links",
        "\x1b]8;id=a;http://x/?q=1;2\x07link\x1b]8;;\x07 \x1b]8;;http://y/\x1b\\auto that is long and wraps",
        "on\x1b]8;;\x07off",
    ),
    ("cut CSI", "abc\x1b[1;3", "1mred"),
    ("cut CSI with a control in it", "abc\x1b[1\n;3", "1mred"),
    ("cut OSC", "\x1b]0;new ti", "tle\x07text"),
    ("cut string terminator", "\x1b]0;new title\x1b", "\\text"),
    ("cut device control string", "a\x1bP+q54", "4e\x1b\\b"),
    ("cut ESC", "abc\x1b", "[31mred"),
    ("repeat", "ab\x1b[44mc", "\x1b[5b\x1b[2b"),
    ("repeat over the edge", "\x1b[3;1H0123456789012345678漢", "\x1b[3b"),
    ("repeat in line drawing", "\x1b(0\x1b[4hq", "\x1b[3b"),
    ("empty", "", "x"),
];

#[test]
fn every_case_restores() {
    CASES.iter().for_each(|(name, before, after)| check(name, before, after));
}

#[test]
fn cut_utf8_restores() {
    for cut in 1..4 {
        let bytes = "😀".as_bytes();
        let mut original = terminal(size(20, 6), &[b"ab", &bytes[..cut]].concat());
        let mut restored = terminal(size(20, 6), &original.keyframe(0));
        assert_same(&original, &restored, "restored");
        feed(&mut original, &bytes[cut..]);
        feed(&mut restored, &bytes[cut..]);
        assert_same(&original, &restored, "continued");
        assert_eq!(restored.screen().lines[0].text, "ab😀");
    }
}

#[test]
fn a_keyframe_holds_as_much_scrollback_as_asked_for() {
    let output: String = (0..100).map(|n| format!("\x1b[3{}mrow {n}\x1b[m\r\n", n % 8)).collect();
    let original = terminal(size(20, 6), output.as_bytes());
    let restored = terminal(size(20, 6), &original.keyframe(10));
    assert_eq!(restored.scrollback_rows(), 10);
    assert_eq!(original.screen_ansi(10), restored.screen_ansi(10));
    assert_eq!(terminal(size(20, 6), &original.keyframe(0)).scrollback_rows(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any output, keyframe anywhere, any continuation.
    #[test]
    fn anything_restores(
        cols in 2u16..24, rows in 1u16..8,
        before in output(40), after in output(20), cut in any::<proptest::sample::Index>(),
    ) {
        let before = &before[..cut.index(before.len() + 1)];
        let mut original = terminal(size(cols, rows), before);
        let mut restored = terminal(size(cols, rows), &original.keyframe(usize::MAX));
        assert_same(&original, &restored, "restored");
        prop_assert_eq!(feed(&mut original, &after), feed(&mut restored, &after));
        assert_same(&original, &restored, "continued");
    }

    /// A resize in between changes nothing about that.
    #[test]
    fn anything_restores_after_a_resize(
        (cols, rows) in (2u16..24, 1u16..8), (new_cols, new_rows) in (2u16..24, 1u16..8),
        before in output(30), between in output(10), after in output(10),
    ) {
        let mut original = terminal(size(cols, rows), &before);
        original.resize(size(new_cols, new_rows)).unwrap();
        feed(&mut original, &between);
        let mut restored = terminal(size(new_cols, new_rows), &original.keyframe(0));
        restored.scrollback.clear();
        original.scrollback.clear();
        assert_same(&original, &restored, "restored");
        prop_assert_eq!(feed(&mut original, &after), feed(&mut restored, &after));
        assert_same(&original, &restored, "continued");
    }

    /// Portions do not matter: neither to the state nor to the answers.
    #[test]
    fn any_portions_give_the_same(
        cols in 2u16..24, rows in 1u16..8,
        bytes in prop_oneof![output(40), garbage()], portions in proptest::collection::vec(1usize..9, 1..50),
    ) {
        let mut whole = Terminal::new(size(cols, rows));
        let mut all = Feedback::default();
        whole.feed(&bytes, &mut all).unwrap();
        let mut parts = Terminal::new(size(cols, rows));
        let mut replies = Vec::new();
        let mut rest = &bytes[..];
        for portion in portions.iter().cycle() {
            let (now, later) = rest.split_at((*portion).min(rest.len()));
            replies.extend(feed(&mut parts, now));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(all.replies, replies);
        assert_same(&whole, &parts, "portions");
    }

    /// No bytes make anything panic, also not with resizes in between.
    #[test]
    fn nothing_panics(chunks in proptest::collection::vec((garbage(), 2u16..30, 1u16..10), 1..6)) {
        let mut terminal = Terminal::new(size(10, 4));
        for (bytes, cols, rows) in &chunks {
            feed(&mut terminal, bytes);
            terminal.resize(size(*cols, *rows)).unwrap();
            let _shown = (terminal.screen(), terminal.screen_text(5), terminal.screen_ansi(5), terminal.keyframe(5));
        }
    }
}
