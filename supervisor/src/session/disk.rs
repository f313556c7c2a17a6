//! A session's disk at a start: the first one makes it, and puts on it what the agent's HOME begins with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use agentapi_shared::agent::AgentManifest;
use agentapi_shared::jail::{AGENT_ID, DiskDir, HOME, WORKSPACE};

use crate::abort::Abort;
use crate::agents::{self, Inside};
use crate::disk::{self, Disk, DiskError, FREE_BYTES_MIN};
use crate::files::{SessionFiles, Storage};
use crate::plan;

/// What there is to do.
#[derive(Debug)]
pub(super) struct DiskWork {
    pub(super) files: SessionFiles,
    /// Size of one that is made.
    pub(super) bytes: u64,
    pub(super) slot: u32,
    /// Whose files HOME begins with.
    pub(super) manifest: Option<AgentManifest>,
    pub(super) env: BTreeMap<String, String>,
}

/// Why a session has no disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskWorkError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is put on a new one.
    #[error("disk: cannot write what a new one begins with")]
    Begin(#[from] io::Error),
}

/// A host whose own disk is about to be full.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    /// So little is left.
    #[error(
        "this host has {} MiB left on the disk of its sessions, and starts none with less than {}: purge sessions, or make room",
        .free_bytes >> 20,
        FREE_BYTES_MIN >> 20
    )]
    Full { free_bytes: u64 },
    /// Nobody knows.
    #[error("how much room the disk of the sessions has cannot be found out")]
    Unknown(#[source] io::Error),
}

/// Whether another session may write: disks take room as they are filled, and may promise more together than there is.
pub(super) fn has_room(state_dir: &Path) -> Result<(), NoRoom> {
    let free_bytes = disk::free_bytes(state_dir).map_err(NoRoom::Unknown)?;
    if free_bytes < FREE_BYTES_MIN { Err(NoRoom::Full { free_bytes }) } else { Ok(()) }
}

impl DiskWork {
    /// The disk, mounted. Blocks, until an abort at the longest.
    pub(super) fn open(&self, abort: &Abort) -> Result<Disk, DiskWorkError> {
        let image = self.files.disk();
        if matches!(self.files.storage()?, Storage::Disk { .. }) {
            return Ok(Disk::open(&image, abort)?);
        }
        let agent = plan::uid_base(self.slot) + AGENT_ID;
        let unfinished = self.files.unfinished_disk();
        Disk::make(&unfinished, self.bytes, Some(agent), abort)?;
        let disk = Disk::open(&unfinished, abort)?;
        disk.begin(agent)?;
        if let Some(manifest) = &self.manifest {
            let inside = Inside { home: HOME, workspace: WORKSPACE, slot: self.slot, env: &self.env };
            agents::write_files(manifest, &disk.dir(DiskDir::Home), &inside)?;
        }
        // From here on it is the session's: a start that fails before leaves one that is made anew.
        fs::rename(&unfinished, &image)?;
        Ok(disk)
    }
}
