//! How fast the terminal takes output, and what memory it leaves behind: `cargo run --release --example terminal_speed`.
//!
//! Figures of one thread, for comparing before and after a change on the same machine; nothing is asserted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use agentapi_shared::WindowSize;
use agentapi_shim::terminal::{Feedback, Terminal};

/// What one read from a PTY can bring.
const CHUNK_BYTES: usize = 64 << 10;
/// Enough for a stable figure.
const TOTAL_BYTES: usize = 100 << 20;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "private memory at start: {} KiB", private_dirty_kib())?;
    let mut terminal = Terminal::new(WindowSize::DEFAULT);
    let mut feedback = Feedback::default();
    writeln!(out, "with a terminal: {} KiB", private_dirty_kib())?;
    for n in 0..10_000 {
        let line = format!(
            "2026-01-01T00:00:00.{n:06}Z INFO request handled path=/api/v1/sessions/{n} status=200 ms={}\r\n",
            n % 97
        );
        let _lost = terminal.feed(line.as_bytes(), &mut feedback);
    }
    writeln!(
        out,
        "after 10,000 lines: {} KiB, of which scrollback {} KiB in {} rows",
        private_dirty_kib(),
        terminal.scrollback_bytes() / 1024,
        terminal.scrollback_rows()
    )?;
    terminal.compact();
    writeln!(out, "compacted: {} KiB", private_dirty_kib())?;
    drop(terminal);
    for (name, sample) in [
        ("log lines", log()),
        ("short lines", numbers()),
        ("24-bit redraws", redraws()),
        ("agent-like box", boxes()),
        ("wide characters", wide()),
    ] {
        writeln!(out, "{name}: {:.0} MB/s (the bare engine: {:.0})", speed(&sample), bare_speed(&sample))?;
    }
    for (name, sample) in [
        ("REP", &b"x\x1b[65535b"[..]),
        ("RIS", b"\x1bc"),
        ("ED 2", b"\x1b[2J"),
        ("text, ED 2", b"x\x1b[2J"),
        ("DECALN", b"\x1b#8"),
        ("SU", b"\x1b[65535S"),
        ("CBT", b"\x1b[3g\x1b[65535Z"),
        ("1049", b"\x1b[?1049h\x1b[?1049l"),
    ] {
        let sample = sample.repeat((1 << 20) / sample.len());
        let start = cpu_seconds();
        let _lost = Terminal::new(WindowSize::DEFAULT).feed(&sample, &mut feedback);
        writeln!(out, "hostile {name}: {:.0} ms per MB", (cpu_seconds() - start) * 1e3)?;
    }
    let mut terminal = Terminal::new(WindowSize::DEFAULT);
    let _lost = terminal.feed(&redraws(), &mut feedback);
    let start = Instant::now();
    let sizes: usize = (0..100).map(|_| terminal.keyframe(500).len()).sum();
    writeln!(out, "keyframe of a 24-bit screen: {} bytes, {} us", sizes / 100, start.elapsed().as_micros() / 100)
}

fn speed(sample: &[u8]) -> f64 {
    let mut terminal = Terminal::new(WindowSize::DEFAULT);
    let mut feedback = Feedback::default();
    let start = cpu_seconds();
    let mut fed = 0;
    while fed < TOTAL_BYTES {
        for chunk in sample.chunks(CHUNK_BYTES) {
            let _lost = terminal.feed(chunk, &mut feedback);
            fed += chunk.len();
        }
    }
    fed as f64 / (cpu_seconds() - start) / 1e6
}

/// The engine with its own parser and a history of its own, for comparison.
fn bare_speed(sample: &[u8]) -> f64 {
    use alacritty_terminal::event::VoidListener;
    use alacritty_terminal::term::{Config, Term, test::TermSize};
    let mut term =
        Term::new(Config { scrolling_history: 1_000, ..Config::default() }, &TermSize::new(120, 40), VoidListener);
    let mut parser: alacritty_terminal::vte::ansi::Processor = Default::default();
    let start = cpu_seconds();
    let mut fed = 0;
    while fed < TOTAL_BYTES {
        for chunk in sample.chunks(CHUNK_BYTES) {
            parser.advance(&mut term, chunk);
            fed += chunk.len();
        }
    }
    fed as f64 / (cpu_seconds() - start) / 1e6
}

fn log() -> Vec<u8> {
    (0..20_000)
        .fold(String::new(), |mut text, n| {
            let _ = write!(
                text,
                "2026-01-01T00:00:00.{n:06}Z INFO request handled path=/api/v1/sessions/{n} status=200 ms={}\r\n",
                n % 97
            );
            text
        })
        .into_bytes()
}

fn numbers() -> Vec<u8> {
    (0..200_000)
        .fold(String::new(), |mut text, n| {
            let _ = write!(text, "{n}\r\n");
            text
        })
        .into_bytes()
}

fn redraws() -> Vec<u8> {
    let mut text = String::new();
    for frame in 0..20u32 {
        for row in 0..40u32 {
            let _ = write!(text, "\x1b[{};1H", row + 1);
            for col in 0..120u32 {
                let (r, g, b) = ((frame * 7 + col) % 256, (row * 5 + frame) % 256, col * 2);
                let _ =
                    write!(text, "\x1b[38;2;{r};{g};{b}m{}", char::from(b'a' + u8::try_from(col % 26).unwrap_or(0)));
            }
        }
    }
    text.into_bytes()
}

fn boxes() -> Vec<u8> {
    (0..2_000).fold(String::new(), |mut text, n| {
        let line = "─".repeat(60);
        let _ = write!(text, "\x1b[?2026h\x1b[4A\r\x1b[J╭{line}╮\r\n│ \x1b[1;36mWorking\x1b[m {n} │\r\n╰{line}╯\r\n\x1b[2m  esc to interrupt\x1b[m\r\n\x1b[?2026l");
        text
    }).into_bytes()
}

fn wide() -> Vec<u8> {
    "漢字かな交じり文😀テスト한국어\r\n".repeat(20_000).into_bytes()
}

/// CPU time of this process: unlike the clock, it does not count what others do on the machine.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn private_dirty_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
