//! A command that takes its own time, so that whatever runs it need not be watched.

use std::path::{Path, PathBuf};

use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};

/// Writes `log.txt` of its directory to the terminal and leaves the seconds that this took in `took`. The last bytes may still be on their
/// way through the terminal then: at most the kernel's buffer of some KiB.
pub(crate) const TIMED_CAT: [&str; 3] = [
    "bash",
    "-c",
    "s=$EPOCHREALTIME; cat log.txt; e=$EPOCHREALTIME; echo $s $e > took.new; mv took.new took; exec sleep 3600",
];

/// Where it leaves them.
pub(crate) fn result_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

/// Waits for the result and takes it away, for the next run.
pub(crate) async fn seconds(dir: &Path) -> Result<f64> {
    let text = take(dir, "took").await?;
    let (start, end) = text.trim().split_once(' ').context("two times")?;
    Ok(end.parse::<f64>()? - start.parse::<f64>()?)
}

/// Waits for a file, reads and removes it.
pub(crate) async fn take(dir: &Path, name: &str) -> Result<String> {
    let path = result_file(dir, name);
    let text = eventually(name, || async { std::fs::read_to_string(&path).ok() }).await;
    std::fs::remove_file(&path)?;
    Ok(text)
}
