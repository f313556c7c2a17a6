//! Text as programs log it, the same in every run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;

use crate::stats::Chance;

/// Writes about `bytes` of log lines to a file; how many bytes a terminal makes of it, which turns each newline into CR LF.
pub(crate) fn write(path: &Path, bytes: u64) -> Result<u64> {
    const LEVELS: [&str; 4] = ["INFO ", "INFO ", "DEBUG", "WARN "];
    const PARTS: [&str; 5] = ["http::server", "store::pool", "worker", "scheduler::queue", "auth"];
    let mut out = BufWriter::new(File::create(path)?);
    let mut chance = Chance::new();
    let (mut written, mut lines) = (0, 0);
    while written < bytes {
        let line = format!(
            "2026-01-01T12:{:02}:{:02}.{:06}Z {} {}: request finished id={:016x} status={} took={}us\n",
            lines / 6000 % 60,
            lines / 100 % 60,
            chance.below(1_000_000),
            LEVELS.get(chance.below(4) as usize).unwrap_or(&""),
            PARTS.get(chance.below(5) as usize).unwrap_or(&""),
            chance.below(u64::MAX),
            200 + chance.below(4) * 100,
            chance.below(100_000),
        );
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
        lines += 1;
    }
    out.flush()?;
    Ok(written + lines)
}
