//! Writes the records of a spawn whose shim was killed, from its journal.

use std::fs::File;
use std::io;
use std::path::Path;

use agentapi_shared::{Exit, ExitReason, WindowSize};

use crate::parser;
use crate::records::Records;

/// Makes exit record, last screen and keyframe in the spawn's directory, unless they are there.
pub(crate) fn recover(spawn_dir: &Path, spawn: u32) -> io::Result<()> {
    let records = Records::new(File::open(spawn_dir)?.into());
    if records.has_exit() {
        return Ok(());
    }
    let terminal = parser::replay(&records.journal_dir()?, WindowSize::DEFAULT, None);
    let (screen, keyframe) = parser::finished(&terminal, spawn);
    let detail = "the process that held the session's terminal was killed, and everything in the session with it; restart the session";
    let exit = Exit { code: None, signal: None, reason: ExitReason::ShimLost, detail: detail.to_owned() };
    records.write(&exit, &screen, &keyframe)
}
