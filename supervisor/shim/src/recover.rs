//! Writes the records of a spawn whose shim was killed, from its journal.

use std::fs::File;
use std::io;
use std::path::Path;

use agentapi_shared::{Exit, ExitReason, WindowSize};

use crate::records::Records;
use crate::{jail, parser};

/// Makes exit record, last screen and keyframe in the spawn's directory, unless they are there.
pub(crate) fn recover(spawn_dir: &Path, spawn: u32) -> io::Result<()> {
    let records = Records::new(File::open(spawn_dir)?.into());
    if records.has_exit() {
        return Ok(());
    }
    let journal = records.journal_dir()?;
    // The journal is an agent's words: read as whoever wrote it down, with no more rights than that.
    jail::owner_of(&journal)
        .and_then(|owner| jail::shed(owner, None, records.dir()))
        .and_then(|()| jail::filter_calls())
        .map_err(io::Error::other)?;
    let terminal = parser::replay(&journal, WindowSize::DEFAULT, None);
    let (screen, keyframe) = parser::finished(&terminal, spawn);
    let detail = "the process that held the session's terminal was killed, and everything in the session with it; restart the session";
    let exit = Exit { code: None, signal: None, reason: ExitReason::ShimLost, detail: detail.to_owned() };
    records.write(&exit, &screen, &keyframe)
}
