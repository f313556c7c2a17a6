//! Keyframes in the terminal that the console uses, xterm.js: `web/test/keyframes.ts` shows it those of `keyframe_cases`, an example of the
//! shim, beside the output that they stand for.

use std::path::Path;
use std::process::{Command, Stdio};

use agentapi_tests::process::binary;
use anyhow::Result;

#[test]
fn xterm_js_restores_every_keyframe() -> Result<()> {
    let mut cases = Command::new(binary("examples/keyframe_cases")).stdout(Stdio::piped()).spawn()?;
    let output = Command::new("npm")
        .args(["run", "--silent", "test:keyframes"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../web"))
        .stdin(cases.stdout.take().map_or_else(Stdio::null, Stdio::from))
        .output()?;
    assert!(cases.wait()?.success(), "the cases could not be made");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("fail 0"), "{text}");
    Ok(())
}
