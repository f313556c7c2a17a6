//! Keyframes restore: a second terminal that got the keyframe is in the same state, and stays so.

use proptest::prelude::*;

use super::cases::CASES;
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
