//! Any output, in any portions, at any size: the terminal takes it, and its keyframe rebuilds it.
#![no_main]

use agentapi_shared::WindowSize;
use agentapi_shim::terminal::{Feedback, Terminal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [cols, rows, cut, output @ ..] = data else { return };
    let size = WindowSize::clamped(u16::from(*cols), u16::from(*rows % 100));
    let mut terminal = Terminal::new(size);
    let mut feedback = Feedback::default();
    let cut = usize::from(*cut).min(output.len());
    let (before, after) = output.split_at(cut);
    terminal.feed(before, &mut feedback).expect("the engine takes any output");
    let mut restored = Terminal::new(size);
    restored.feed(&terminal.keyframe(0), &mut Feedback::default()).expect("the engine takes any keyframe");
    assert_eq!(terminal.screen().lines, restored.screen().lines, "the keyframe shows the same screen");
    terminal.feed(after, &mut feedback).expect("the engine takes any output");
    terminal.resize(WindowSize::clamped(u16::from(*rows), u16::from(*cols % 100))).expect("the engine takes any size");
    assert!(terminal.keyframe(100).len() < 16 * 1024 * 1024);
});
