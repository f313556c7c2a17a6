//! Screens that keyframes have to restore, each with what a program does next. Also read by `examples/keyframe_cases.rs`, from which
//! xterm.js gets them.

/// Name, what was output before the keyframe, what comes after it.
pub(crate) const CASES: &[(&str, &str, &str)] = &[
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
    ("alternate screen entered with a background", "\x1b[44mab\x1b[?1049h\x1b[m\x1b[2J\x1b[2;2Halt", "x\x1b[?1049ly"),
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
        "pending wrap brought from the other screen",
        "\x1b[2;1H012345678901234567890123\x1b[?1047h\x1b[2;1Habcdefghijklmnopqrst\x1b[?1047l",
        "x\r\ny",
    ),
    (
        "title and modes",
        "\x1b]0;one\x07\x1b[22;2t\x1b]2;two; three\x07\x1b[?1h\x1b=\x1b[?1002;1006;1004;2004;2026;5;12;25l\x1b[?1002;1006;1004;2004;2026;5;12h\x1b[4 q\x1b[>4;2m\x1b[20h",
        "a\nb\x1b[23;2t\x1b[?2026$p\x1b[?1002$p\x1b[?25$p",
    ),
    ("keyboard flags of both screens", "\x1b[>1u\x1b[>3u\x1b[?1049h\x1b[=2u\x1b[>7u", "\x1b[<u\x1b[?1049l\x1b[<u"),
    (
        "colours",
        "\x1b]4;1;rgb:12/34/56;200;#abc;201;#123456789;202;rgb:8/8/8;203;rgb:800/800/800;204;rgb:8000/8000/8000\x07\x1b]11;#102030\x07",
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
