//! Prints keyframes for a test that shows them to another terminal: an object a line with the output before the keyframe, the keyframe, and
//! the output after it. `tests/e2e/keyframes.rs` hands them to xterm.js.

use std::io::Write as _;

use agentapi_shared::WindowSize;
use agentapi_shim::terminal::{Feedback, Terminal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[path = "../src/terminal/tests/cases.rs"]
mod cases;

/// Small, so that a short output fills and scrolls it.
const COLS: u16 = 20;
const ROWS: u16 = 6;

fn main() -> anyhow::Result<()> {
    let size = WindowSize::new(COLS, ROWS)?;
    let mut out = std::io::stdout().lock();
    for (name, before, after) in cases::CASES {
        let mut terminal = Terminal::new(size);
        terminal.feed(before.as_bytes(), &mut Feedback::default())?;
        let case = serde_json::json!({
            "name": name,
            "cols": COLS,
            "rows": ROWS,
            "before": STANDARD.encode(before),
            "keyframe": STANDARD.encode(terminal.keyframe(usize::MAX)),
            "after": STANDARD.encode(after),
        });
        writeln!(out, "{case}")?;
    }
    Ok(())
}
