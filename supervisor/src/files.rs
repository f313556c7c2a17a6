//! The state directory: who may have what where. Everything in it is private to the supervisor's user.
//!
//! ```text
//! STATE/outbox.db
//! STATE/supervisor.sock
//! STATE/versions.json              what agents said of their versions
//! STATE/probe/                     an agent that is being asked
//! STATE/sessions/ID/session.json   what the session is
//!                   env.json       the values of its environment (secret)
//!                   home/ workspace/
//!                   spawns/N/      spawn.json, shim.sock, shim.log, journal/, exit.json, final.json, final.keyframe
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agentapi_shared::api::Workspace;
use agentapi_shared::shim::{EXIT_FILE, FINAL_FILE, FinalScreen, JOURNAL_DIR, KEYFRAME_FILE};
use agentapi_shared::{Exit, SessionId, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// `session.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) id: SessionId,
    pub(crate) agent: String,
    /// Program and arguments for `custom`.
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) workspace: Workspace,
    /// Number of its block of host ids, held until purge.
    pub(crate) slot: u32,
    /// The newest generation acted on.
    pub(crate) generation: u64,
}

/// `spawn.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpawnRecord {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    pub(crate) command: Vec<String>,
    pub(crate) size: WindowSize,
    pub(crate) boot_id: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
}

/// The directory of one session.
#[derive(Debug, Clone)]
pub(crate) struct SessionFiles(PathBuf);

/// The directory of one spawn.
#[derive(Debug, Clone)]
pub(crate) struct SpawnFiles(PathBuf);

impl SessionFiles {
    pub(crate) fn new(state_dir: &Path, session: SessionId) -> Self {
        Self(state_dir.join("sessions").join(session.to_string()))
    }

    /// The directory in which an agent is asked for its version: like a session's, never among them.
    pub(crate) fn probe(state_dir: &Path) -> Self {
        Self(state_dir.join("probe"))
    }

    /// Makes the directories of a new session.
    pub(crate) fn create(&self) -> io::Result<()> {
        for dir in [self.0.clone(), self.home(), self.workspace(), self.0.join("spawns")] {
            private_dir(&dir)?;
        }
        Ok(())
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub(crate) fn record(&self) -> io::Result<SessionRecord> {
        read_json(&self.0.join("session.json"))
    }

    pub(crate) fn write_record(&self, record: &SessionRecord) -> io::Result<()> {
        write_json(&self.0.join("session.json"), record)
    }

    pub(crate) fn env(&self) -> io::Result<BTreeMap<String, String>> {
        match read_json(&self.0.join("env.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            other => other,
        }
    }

    pub(crate) fn write_env(&self, env: &BTreeMap<String, String>) -> io::Result<()> {
        write_json(&self.0.join("env.json"), env)
    }

    pub(crate) fn spawn(&self, number: u32) -> SpawnFiles {
        SpawnFiles(self.0.join("spawns").join(number.to_string()))
    }

    /// Numbers of the spawns there are, in order.
    pub(crate) fn spawns(&self) -> io::Result<Vec<u32>> {
        let mut numbers: Vec<u32> = fs::read_dir(self.0.join("spawns"))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes everything. Renamed first, so that a crash in between leaves nothing that looks like a session.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let doomed = self.0.with_extension("purged");
        match fs::rename(&self.0, &doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_dir_all(&doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Every session on disk; what a purge left half done is removed.
pub(crate) fn sessions(state_dir: &Path) -> io::Result<Vec<SessionId>> {
    let dir = state_dir.join("sessions");
    private_dir(&dir)?;
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(id) => ids.push(id),
            None if entry.path().extension().is_some_and(|ext| ext == "purged") => fs::remove_dir_all(entry.path())?,
            None => {}
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

impl SpawnFiles {
    pub(crate) fn create(&self) -> io::Result<()> {
        private_dir(&self.0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn record(&self) -> io::Result<SpawnRecord> {
        read_json(&self.0.join("spawn.json"))
    }

    pub(crate) fn write_record(&self, record: &SpawnRecord) -> io::Result<()> {
        write_json(&self.0.join("spawn.json"), record)
    }

    /// How it ended; none while it lives or if its shim was killed.
    pub(crate) fn exit(&self) -> io::Result<Option<(Exit, OffsetDateTime)>> {
        let path = self.0.join(EXIT_FILE);
        match read_json(&path) {
            Ok(exit) => Ok(Some((exit, fs::metadata(&path)?.modified()?.into()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn final_screen(&self) -> io::Result<FinalScreen> {
        read_json(&self.0.join(FINAL_FILE))
    }

    /// The last keyframe: its offset and its payload.
    pub(crate) fn final_keyframe(&self) -> io::Result<(u64, Vec<u8>)> {
        let bytes = fs::read(self.0.join(KEYFRAME_FILE))?;
        let (offset, payload) = bytes.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        Ok((u64::from_le_bytes(*offset), payload.to_vec()))
    }

    /// Whether its shim lives: it holds a lock on the directory, which ends with it however it ends.
    pub(crate) fn is_held(&self) -> io::Result<bool> {
        match Flock::lock(File::open(&self.0)?, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// The journal's directory.
    pub(crate) fn journal(&self) -> io::Result<File> {
        File::open(self.0.join(JOURNAL_DIR))
    }

    /// Runs `use_path` with a short path to a file in here: socket addresses end at 108 bytes, state directories need not.
    pub(crate) fn with_short_path<T>(
        &self,
        name: &str,
        use_path: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        with_short_path(&self.0, name, use_path)
    }
}

/// See [`SpawnFiles::with_short_path`].
pub(crate) fn with_short_path<T>(
    dir: &Path,
    name: &str,
    use_path: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let dir = File::open(dir)?;
    use_path(&PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))
}

/// Makes a directory of ours alone, if it is not there.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes a file as a whole or not at all, readable by us alone.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}
