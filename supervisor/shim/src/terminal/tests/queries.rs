//! Answers: the right one, once, in order, however the query is cut.

use super::{feed, size, terminal};
use crate::terminal::responder::REPLIES_BYTES_MAX;
use crate::terminal::{Feedback, Terminal};

/// What is output first, the query, the answer.
const ANSWERS: &[(&str, &str, &str)] = &[
    ("", "\x1b[c", "\x1b[?62;22c"),
    ("", "\x1b[0c", "\x1b[?62;22c"),
    ("", "\x1bZ", "\x1b[?62;22c"),
    ("", "\x1b[>c", "\x1b[>0;276;0c"),
    ("", "\x1b[5n", "\x1b[0n"),
    ("ab\r\ncd", "\x1b[6n", "\x1b[2;3R"),
    ("0123456789", "\x1b[6n", "\x1b[1;10R"),
    ("\x1b[3;5r\x1b[?6h\x1b[2;2H", "\x1b[6n", "\x1b[2;2R"),
    ("ab", "\x1b[?6n", "\x1b[?1;3R"),
    ("", "\x1b[?996n", "\x1b[?997;1n"),
    ("", "\x1b[>q", concat!("\x1bP>|agentapi ", env!("CARGO_PKG_VERSION"), "\x1b\\")),
    ("", "\x1b[>0q", concat!("\x1bP>|agentapi ", env!("CARGO_PKG_VERSION"), "\x1b\\")),
    ("", "\x1b[4$p", "\x1b[4;2$y"),
    ("\x1b[4h", "\x1b[4$p", "\x1b[4;1$y"),
    ("", "\x1b[20$p", "\x1b[20;2$y"),
    ("", "\x1b[99$p", "\x1b[99;0$y"),
    ("", "\x1b[?7$p", "\x1b[?7;1$y"),
    ("\x1b[?7l", "\x1b[?7$p", "\x1b[?7;2$y"),
    ("", "\x1b[?25$p", "\x1b[?25;1$y"),
    ("\x1b[?2026h", "\x1b[?2026$p", "\x1b[?2026;1$y"),
    ("\x1b[?2026h\x1b[?2026l", "\x1b[?2026$p", "\x1b[?2026;2$y"),
    ("\x1b[?2004h", "\x1b[?2004$p", "\x1b[?2004;1$y"),
    ("", "\x1b[?1004$p", "\x1b[?1004;2$y"),
    ("\x1b[?1049h", "\x1b[?1049$p", "\x1b[?1049;1$y"),
    ("\x1b[?1000h\x1b[?1003h", "\x1b[?1000$p", "\x1b[?1000;2$y"),
    ("\x1b[?1000h\x1b[?1003h", "\x1b[?1003$p", "\x1b[?1003;1$y"),
    ("\x1b[?1006h", "\x1b[?1006$p", "\x1b[?1006;1$y"),
    ("", "\x1b[?2027$p", "\x1b[?2027;4$y"),
    ("", "\x1b[?2048$p", "\x1b[?2048;0$y"),
    ("", "\x1b]10;?\x07", "\x1b]10;rgb:d4d4/d4d4/d4d4\x07"),
    ("", "\x1b]11;?\x1b\\", "\x1b]11;rgb:1e1e/1e1e/1e1e\x1b\\"),
    ("\x1b]11;#102030\x07", "\x1b]11;?\x07", "\x1b]11;rgb:1010/2020/3030\x07"),
    ("\x1b]11;#102030\x07\x1b]111\x07", "\x1b]11;?\x07", "\x1b]11;rgb:1e1e/1e1e/1e1e\x07"),
    ("", "\x1b]10;?;?\x07", "\x1b]10;rgb:d4d4/d4d4/d4d4\x07\x1b]11;rgb:1e1e/1e1e/1e1e\x07"),
    ("", "\x1b]4;1;?\x07", "\x1b]4;1;rgb:cccc/0000/0000\x07"),
    ("", "\x1b]4;16;?;231;?\x1b\\", "\x1b]4;16;rgb:0000/0000/0000\x1b\\\x1b]4;231;rgb:ffff/ffff/ffff\x1b\\"),
    ("\x1b]4;1;rgb:1/22/3333\x07", "\x1b]4;1;?\x07", "\x1b]4;1;rgb:1111/2222/3333\x07"),
    ("\x1b]4;1;rgb:8/800/8000\x07", "\x1b]4;1;?\x07", "\x1b]4;1;rgb:8888/8080/8080\x07"),
    ("\x1b]4;1;#abc\x07", "\x1b]4;1;?\x07", "\x1b]4;1;rgb:a0a0/b0b0/c0c0\x07"),
    ("\x1b]4;1;#123456789\x07", "\x1b]4;1;?\x07", "\x1b]4;1;rgb:1212/4545/7878\x07"),
    ("", "\x1b]7501;?\x07", "\x1b]7501;?\x07"),
    ("", "\x1b[14t", "\x1b[4;120;100t"),
    ("", "\x1b[16t", "\x1b[6;20;10t"),
    ("", "\x1b[18t", "\x1b[8;6;10t"),
    // No answer: promises that cannot be kept, and texts of others' choosing.
    ("", "\x1b[?u", ""),
    ("\x1b[>1u", "\x1b[?u", ""),
    ("", "\x1b_Gi=1,a=q;AAAA\x1b\\", ""),
    ("", "\x1bP+q544e\x1b\\", ""),
    ("", "\x1bP$qm\x1b\\", ""),
    ("", "\x1b]52;c;?\x07", ""),
    ("\x1b]2;rm -rf\x07", "\x1b[21t", ""),
    ("\x1b]2;rm -rf\x07", "\x1b[20t", ""),
    ("", "\x1b[=c", ""),
    ("", "\x1b[?4m", ""),
];

#[test]
fn every_query_has_its_answer_wherever_it_is_cut() {
    for (before, query, answer) in ANSWERS {
        for cut in 0..=query.len() {
            let mut terminal = terminal(size(10, 6), before.as_bytes());
            let mut replies = feed(&mut terminal, &query.as_bytes()[..cut]);
            assert!(cut == query.len() || replies.is_empty() || answer.starts_with('\x1b'), "{query:?} cut at {cut}");
            replies.extend(feed(&mut terminal, &query.as_bytes()[cut..]));
            replies.extend(feed(&mut terminal, b"text"));
            assert_eq!(
                replies.escape_ascii().to_string(),
                answer.as_bytes().escape_ascii().to_string(),
                "{query:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn answers_come_in_order_and_from_the_state_at_their_byte() {
    let mut terminal = Terminal::new(size(10, 6));
    let replies = feed(&mut terminal, b"\x1b[6nab\x1b[6n\x1b[?25l\x1b[?25$p\r\n\x1b[6n\x1b[?25h\x1b[5n");
    assert_eq!(replies, b"\x1b[1;1R\x1b[1;3R\x1b[?25;2$y\x1b[2;1R\x1b[0n");
}

#[test]
fn a_program_that_only_asks_gets_whole_answers_up_to_a_limit() {
    let mut terminal = Terminal::new(size(10, 6));
    let mut feedback = Feedback::default();
    for _ in 0..4 {
        terminal.feed(&b"\x1b[>q".repeat(10_000), &mut feedback).unwrap();
    }
    assert!(feedback.replies.len() <= REPLIES_BYTES_MAX && feedback.replies.len() > REPLIES_BYTES_MAX - 32);
    assert!(feedback.replies.starts_with(b"\x1bP") && feedback.replies.ends_with(b"\x1b\\"));
    feedback.replies.clear();
    terminal.feed(b"\x1b[5n", &mut feedback).unwrap();
    assert_eq!(feedback.replies, b"\x1b[0n");
}
