//! Output for the property tests: real sequences with awkward numbers, awkward text, and plain garbage.

use proptest::collection::vec;
use proptest::prelude::*;

/// Output that a failure shows as text.
#[derive(Clone)]
pub(super) struct Output(pub(super) Vec<u8>);

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl std::ops::Deref for Output {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A number as sequences carry it: mostly small, sometimes missing or absurd.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0u16..12).prop_map(|n| n.to_string()),
        2 => Just(String::new()),
        1 => Just("65535".to_owned()),
        1 => Just("99999999999".to_owned()),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "a",
        "hello",
        "x y",
        "0123456789",
        "ü",
        "─│┌",
        "漢字",
        "😀",
        "⚠\u{fe0f}",
        "e\u{301}",
        "👩\u{200d}💻",
        "\u{200b}",
        "\u{301}\u{302}",
        "lqk",
        "~",
        "\u{ad}",
        "\u{7f}",
        "한",
        "🇩🇪",
        "\u{9b}5A",
    ];
    vec(proptest::sample::select(pieces.to_vec()), 1..6).prop_map(|parts| parts.concat().into_bytes())
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(vec!["\r", "\n", "\r\n", "\t", "\x08", "\x07", "\x0e", "\x0f", "\x0b", "\x18", "\x00"])
        .prop_map(|s| s.as_bytes().to_vec())
}

fn escape() -> impl Strategy<Value = Vec<u8>> {
    let all = [
        "7", "8", "D", "E", "M", "H", "c", "=", ">", "(0", "(B", ")0", ")B", "*0", "+0", "n", "o", "#8", "\\", "Z",
        "%G", "(A",
    ];
    proptest::sample::select(all.to_vec()).prop_map(|s| format!("\x1b{s}").into_bytes())
}

fn csi() -> impl Strategy<Value = Vec<u8>> {
    let finals = "@ABCDEFGHIJKLMPSTXZ`abcdefghlmnrstu";
    let last = proptest::sample::select(finals.chars().collect::<Vec<_>>());
    (vec(number(), 0..4), last).prop_map(|(numbers, last)| format!("\x1b[{}{last}", numbers.join(";")).into_bytes())
}

/// Sequences that real programs emit, and some that none should.
const KNOWN: &[&str] = &[
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b[?1047h",
    "\x1b[?1047l",
    "\x1b[?6h",
    "\x1b[?6l",
    "\x1b[?7h",
    "\x1b[?7l",
    "\x1b[4h",
    "\x1b[4l",
    "\x1b[20h",
    "\x1b[20l",
    "\x1b[?25l",
    "\x1b[?25h",
    "\x1b[?1h",
    "\x1b[?2004h",
    "\x1b[?1002h",
    "\x1b[?1003l",
    "\x1b[?1006h",
    "\x1b[?1004h",
    "\x1b[?2026h",
    "\x1b[?2026l",
    "\x1b[!p",
    "\x1b[3 q",
    "\x1b[>1u",
    "\x1b[>3u",
    "\x1b[<u",
    "\x1b[=5;2u",
    "\x1b[>4;2m",
    "\x1b[22;2t",
    "\x1b[23;2t",
    "\x1b[?5W",
    "\x1b[3g",
    "\x1b[0g",
    "\x1b[1m",
    "\x1b[31;44m",
    "\x1b[38;5;200m",
    "\x1b[48;2;1;2;3m",
    "\x1b[4:3m",
    "\x1b[58:2::9:8:7m",
    "\x1b[m",
    "\x1b[9;5m",
    "\x1b[7;22m",
    "\x1b[2;4r",
    "\x1b[1;3r",
    "\x1b[r",
    "\x1b[2;3H",
    "\x1b[99;99H",
    "\x1b[J",
    "\x1b[1J",
    "\x1b[2J",
    "\x1b[3J",
    "\x1b[K",
    "\x1b[1K",
    "\x1b[?1048h",
    "\x1b[?1048l",
    "\x1b[c",
    "\x1b[6n",
    "\x1b[?2026$p",
    "\x1b]0;title\x07",
    "\x1b]2;a;b\x1b\\",
    "\x1b]4;1;rgb:ff/00/80\x07",
    "\x1b]11;#123456\x1b\\",
    "\x1b]104\x07",
    "\x1b]8;id=x;http://x/\x07",
    "\x1b]8;;http://y/;z\x1b\\",
    "\x1b]8;;\x07",
    "\x1b]10;?\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1bP+q544e\x1b\\",
    "\x1b_Gi=1;AAAA\x1b\\",
    "\x1b^pm\x1b\\",
    "\x1bXsos\x07still\x1b\\",
    "\x1b]0;cut\x18",
    "\x1b[12\n3C",
    "\x1b[1\x1b[2A",
    "\x1b]2;esc ends\x1b[1m",
];

fn known() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(KNOWN).prop_map(|s| s.as_bytes().to_vec())
}

/// One piece of output.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => text(),
        3 => control(),
        2 => escape(),
        4 => csi(),
        5 => known(),
        1 => vec(any::<u8>(), 1..6),
        1 => vec(proptest::sample::select(b"\x1b[]P_?;:0199AmhlHr\x07\\\xe2\x82\xac\xf0".to_vec()), 1..8),
    ]
}

/// A stretch of output.
pub(super) fn output(pieces: usize) -> impl Strategy<Value = Output> {
    vec(piece(), 0..pieces).prop_map(|parts| Output(parts.concat()))
}

/// Bytes that are mostly parts of sequences.
pub(super) fn garbage() -> impl Strategy<Value = Output> {
    prop_oneof![
        vec(any::<u8>(), 0..400),
        vec(proptest::sample::select(b"\x1b\x1b[]P_^X?>!;:0123456789 $@ABCDEFGHIJKLMPQRSTXZabcdefghlmnprstu\x07\x18\\\n\r\t~\xf0\x9f\x98\x80\xcc\x81".to_vec()), 0..400),
    ]
    .prop_map(Output)
}
