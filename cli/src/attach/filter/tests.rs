//! The filter: text untouched, drawing untouched, questions gone, and the same result for any chunking.

use super::*;
use proptest::prelude::*;

const STRICT: FilterPolicy = FilterPolicy { clipboard: false };

fn filtered(chunks: &[&[u8]]) -> Vec<u8> {
    let mut filter = Filter::new(STRICT);
    let mut out = Vec::new();
    for chunk in chunks {
        filter.push(chunk, &mut out);
    }
    out
}

fn text(input: &str) -> String {
    String::from_utf8(filtered(&[input.as_bytes()])).unwrap()
}

/// Everything a terminal would answer.
const QUERIES: &[&str] = &[
    "\x05",
    "\x1bZ",
    "\x1b[c",
    "\x1b[0c",
    "\x1b[>c",
    "\x1b[>0c",
    "\x1b[=c",
    "\x1b[5n",
    "\x1b[6n",
    "\x1b[?6n",
    "\x1b[?15n",
    "\x1b[?996n",
    "\x1b[>q",
    "\x1b[>0q",
    "\x1b[?2026$p",
    "\x1b[4$p",
    "\x1b[?u",
    "\x1b[>1u",
    "\x1b[<u",
    "\x1b[=1;1u",
    "\x1b[?4m",
    "\x1b[14t",
    "\x1b[16t",
    "\x1b[18t",
    "\x1b[19t",
    "\x1b[20t",
    "\x1b[21t",
    "\x1b[8;10;20t",
    "\x1b[x",
    "\x1b[1$w",
    "\x1b[1;1;1;1;1;1*y",
    "\x1b[?1;1;0S",
    "\x1b['|",
    "\x1b[#R",
    "\x1b[#|",
    "\x1b[5i",
    "\x1b]10;?\x07",
    "\x1b]11;?\x1b\\",
    "\x1b]4;1;?\x07",
    "\x1b]4;1;#fff;2;?\x07",
    "\x1b]12;?\x07",
    "\x1b]52;c;?\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1b]21;foreground=?\x07",
    "\x1b]1337;ReportCellSize\x07",
    "\x1b]50;?\x07",
    "\x1b]60\x07",
    "\x1b]99;i=1:p=?;\x1b\\",
    "\x1b]22;?\x07",
    "\x1b]7501;?\x07",
    "\x1bP+q544e\x1b\\",
    "\x1bP$qm\x1b\\",
    "\x1bPtmux;\x1b\x1b[6n\x1b\\",
    "\x1b_Gi=1,a=q;AAAA\x1b\\",
    "\x1b^x\x1b\\",
    "\x1bXx\x1b\\",
    "\x1b[?2048h",
    "\x1b[?2031h",
    "\x1b[?9001h",
    "\x1b[?2l",
    "\x1b[2h",
    "\x1b F",
    "\x1b G",
    "\x1b%@",
    "\u{9b}",
    "\x1b[62;1\"p",
    "\x1b[?1;2;3&u",
];

/// Everything that draws, or sets a mode that the local terminal has to know.
const DRAWING: &[&str] = &[
    "plain",
    "é✜日本👩‍💻",
    "\r\n\t\x08\x07\x0e\x0f",
    "\x1b[m",
    "\x1b[1;38;2;1;2;3;4:3m",
    "\x1b[2J",
    "\x1b[H",
    "\x1b[10;20H",
    "\x1b[K",
    "\x1b[?25l",
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b[?1;2004h",
    "\x1b[?2026h",
    "\x1b[?1006h",
    "\x1b[>4;2m",
    "\x1b[>4n",
    "\x1b[2 q",
    "\x1b[!p",
    "\x1b[3;10r",
    "\x1b[s",
    "\x1b[u",
    "\x1b7",
    "\x1b8",
    "\x1b(0",
    "\x1b)B",
    "\x1b#8",
    "\x1bM",
    "\x1bD",
    "\x1b=",
    "\x1b>",
    "\x1b[4h",
    "\x1b[20l",
    "\x1b[22;0t",
    "\x1b[23;0t",
    "\x1b[1;1;2;2$r",
    "\x1b[5@",
    "\x1b[3P",
    "\x1b[2S",
    "\x1b[b",
    "\x1b]0;title\x07",
    "\x1b]2;tïtle\x1b\\",
    "\x1b]8;id=1;http://h/?a=b;c\x1b\\",
    "\x1b]8;;\x1b\\",
    "\x1b]133;A\x07",
    "\x1b]9;4;1;50\x07",
    "\x1b]4;1;#ffffff\x07",
    "\x1b]10;#ffffff\x1b\\",
    "\x1b]104\x07",
    "\x1b]111\x07",
    "\x1b]7;file:///x\x07",
    "\x1bc",
];

#[test]
fn questions_are_removed_and_nothing_around_them() {
    for query in QUERIES {
        assert_eq!(text(&format!("a{query}b")), "ab", "{query:?}");
    }
}

#[test]
fn drawing_passes() {
    for drawing in DRAWING {
        assert_eq!(text(&format!("a{drawing}b")), format!("a{drawing}b"));
    }
}

#[test]
fn sequences_cut_short_by_others_do_not_open_a_way_through() {
    let cases = [
        ("\x1b[\x1b[6nx", "x"),
        ("\x1b[6\x18nx", "nx"),
        ("\x1b[3\x0d1mx", "\x0d\x1b[31mx"),
        ("\x1b[3\x056nx", "x"),
        ("\x1b]0;t\x1b[6nx", "\x1b]0;t\x1b\\x"),
        ("\x1b]0;t\x18x", "x"),
        ("\x1bPq\x1b[6nx", "x"),
        ("\x1b]10;\u{9c}?\x07x", "x"),
        ("\x1bé", "é"),
        ("\x1b[?25;2048;2004hx", "\x1b[?25;2004hx"),
        ("\x1b[?2\x3c6nx", "x"),
    ];
    for (input, wanted) in cases {
        assert_eq!(text(input), wanted, "{input:?}");
    }
}

#[test]
fn bare_control_bytes_above_ascii_are_shown_not_obeyed() {
    assert_eq!(filtered(&[b"a\x9b6n"]), "a\u{fffd}6n".as_bytes());
    assert_eq!(filtered(&[b"\xe2\x9bx"]), "\u{fffd}x".as_bytes());
}

#[test]
fn endless_sequences_cost_no_memory() {
    let mut filter = Filter::new(STRICT);
    let mut out = Vec::new();
    for start in ["\x1b[", "\x1b]0;", "\x1bP"] {
        filter.push(start.as_bytes(), &mut out);
        for _ in 0..100 {
            filter.push(&[b'1'; 4096], &mut out);
        }
        assert!(filter.sequence.capacity() <= 2 * OSC_BYTES_MAX);
        filter.push(b"\x18", &mut out);
    }
    assert_eq!(out, b"");
}

#[test]
fn what_has_to_be_undone_is_known() {
    let mut filter = Filter::new(STRICT);
    let mut out = Vec::new();
    filter.push(b"\x1b[?1049h\x1b]2;mine\x07", &mut out);
    assert_eq!(filter.observed(), &Observed { alternate_screen: true, title: Some(b"mine".to_vec()) });
    filter.push(b"\x1b[?1049l", &mut out);
    assert!(!filter.observed().alternate_screen);
}

#[test]
fn the_clipboard_is_written_only_when_allowed_and_never_read() {
    let mut filter = Filter::new(FilterPolicy { clipboard: true });
    let mut out = Vec::new();
    filter.push(b"\x1b]52;c;aGk=\x07\x1b]52;c;?\x07", &mut out);
    assert_eq!(out, b"\x1b]52;c;aGk=\x07");
}

/// A stream of pieces: text, drawing, questions, and noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~é✜日]{0,12}".prop_map(String::into_bytes),
        (0..QUERIES.len()).prop_map(|at| QUERIES[at].as_bytes().to_vec()),
        (0..DRAWING.len()).prop_map(|at| DRAWING[at].as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
        Just(b"\x1b".to_vec()),
        Just(b"\x1b[".to_vec()),
        Just(b"\x1b]1".to_vec()),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same(bytes in stream(), cuts in proptest::collection::vec(1usize..7, 1..20)) {
        let mut chunks = Vec::new();
        let (mut rest, mut sizes) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        prop_assert_eq!(filtered(&chunks), filtered(&[&bytes]));
    }

    #[test]
    fn text_is_untouched(words in "[^\\p{Cc}]*") {
        prop_assert_eq!(text(&words), words);
    }

    #[test]
    fn drawing_between_questions_is_untouched(picks in proptest::collection::vec((0..DRAWING.len(), 0..QUERIES.len()), 0..20)) {
        let input: String = picks.iter().map(|(d, q)| format!("{}{}", DRAWING[*d], QUERIES[*q])).collect();
        let wanted: String = picks.iter().map(|(d, _)| DRAWING[*d]).collect();
        prop_assert_eq!(text(&input), wanted);
    }

    #[test]
    fn what_comes_out_passes_again_unchanged(bytes in stream()) {
        let once = filtered(&[&bytes]);
        prop_assert_eq!(filtered(&[&once]), once);
    }

    #[test]
    fn no_question_survives(bytes in stream()) {
        let out = filtered(&[&bytes]);
        for query in QUERIES.iter().filter(|query| query.len() > 3) {
            prop_assert!(!out.windows(query.len()).any(|window| window == query.as_bytes()), "{query:?} in {out:?}");
        }
    }
}
