//! The state directory: who may have what where. Everything in it is private to the supervisor's user.
//!
//! ```text
//! STATE/outbox.db
//! STATE/supervisor.sock
//! STATE/versions.json              what agents said of their versions
//! STATE/gateway/                   the egress gateway's sockets and log
//! STATE/probe/                     an agent that is being asked
//! STATE/self-test/                 the self-test's jail, while it runs
//! STATE/self-test.json             what the sandbox has held for
//! STATE/agentapi-doctor-X/         the same of a doctor, while it runs
//! STATE/.disk-probe-PID            a disk that is being tried out
//! STATE/sessions/ID/session.json   what the session is
//!                   env.json       the values of its environment (secret)
//!                   disk.img       the session's disk, with its HOME and workspace
//!                   home/ workspace/   the same, of a session without a disk
//!                   spawns/N/      spawn.json, jail.json, shim.sock, shim.log, journal/, exit.json, final.json, final.keyframe
//! ```

mod storage;
mod tried;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agentapi_shared::api::{Posture, Workspace};
use agentapi_shared::egress::EgressPolicy;
use agentapi_shared::jail::SLOTS_MAX;
use agentapi_shared::shim::{EXIT_FILE, FINAL_FILE, FinalScreen, JOURNAL_DIR, KEYFRAME_FILE};
use agentapi_shared::{Exit, SessionId, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

pub(crate) use self::storage::Storage;
pub(crate) use self::tried::{DISK_PROBE_PREFIX, DOCTOR_PREFIX, remove_tried};
use crate::removal::remove_tree;
use crate::sandbox::Listener;

/// A record is never longer: the longest is a last screen, with 10,000 rows of scrollback twice.
const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// In the spawn's directory: see [`SpawnFiles::write_promise`].
const PROMISE_FILE: &str = "jail.json";

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
    /// Host pid of its init, once it runs.
    #[serde(default)]
    pub(crate) init_pid: Option<i32>,
    /// When that process began, in the kernel's ticks since boot: a pid is given to others later.
    #[serde(default)]
    pub(crate) init_began: Option<u64>,
    /// How it is isolated; none in records of earlier releases.
    #[serde(default)]
    pub(crate) posture: Option<Posture>,
    /// What it may reach through the egress gateway; none: it has no listeners.
    #[serde(default)]
    pub(crate) egress: Option<SpawnEgress>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
}

/// What a spawn may reach, without any key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpawnEgress {
    pub(crate) policy: EgressPolicy,
    pub(crate) listeners: Vec<Listener>,
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

    /// Any other directory that is like a session's.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Makes the directories of a new session, apart from those of its agent.
    pub(crate) fn create(&self) -> io::Result<()> {
        for dir in [self.0.clone(), self.0.join("spawns")] {
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
        let record: SessionRecord = read_json(&self.0.join("session.json"))?;
        // Ids beyond the last slot are other users'.
        if record.slot < SLOTS_MAX { Ok(record) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Whether a shim of any spawn lives.
    pub(crate) fn is_held(&self) -> io::Result<bool> {
        for number in self.spawns()? {
            if self.spawn(number).is_held()? {
                return Ok(true);
            }
        }
        Ok(false)
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
        let entries = match fs::read_dir(self.0.join("spawns")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether no spawn of it was ever recorded: a start that a crash has cut off before anything ran.
    pub(crate) fn never_ran(&self) -> io::Result<bool> {
        for number in self.spawns()? {
            if self.spawn(number).0.join("spawn.json").try_exists()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether not even the session was recorded.
    pub(crate) fn is_unborn(&self) -> io::Result<bool> {
        Ok(!self.0.join("session.json").try_exists()? && self.never_ran()?)
    }

    /// Removes everything. Renamed first, so that a crash in between leaves nothing that looks like a session.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let doomed = self.0.with_extension("purged");
        match fs::rename(&self.0, &doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        remove_tree(&doomed)
    }
}

/// Every session on disk.
pub(crate) fn sessions(state_dir: &Path) -> io::Result<Vec<SessionId>> {
    let mut ids: Vec<SessionId> =
        in_sessions(state_dir)?.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Removes what purges have left half done. May take long: an agent may have made millions of files.
pub(crate) fn remove_leftovers(state_dir: &Path) -> io::Result<()> {
    for entry in in_sessions(state_dir)?.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "purged")) {
        if let Err(error) = remove_tree(&entry.path()) {
            warn!(path = %entry.path().display(), %error, "what is left of a purged session could not be removed");
        }
    }
    Ok(())
}

fn in_sessions(state_dir: &Path) -> io::Result<impl Iterator<Item = DirEntry>> {
    let dir = state_dir.join("sessions");
    private_dir(&dir)?;
    Ok(fs::read_dir(dir)?.filter_map(|entry| match entry {
        Ok(entry) => Some(entry),
        Err(error) => {
            warn!(%error, "an entry of the sessions' directory cannot be read");
            None
        }
    }))
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

    /// What a jail was made from, for whoever compares: gone with the machine's next start, like the jail, so nobody waits for the disk.
    pub(crate) fn write_promise<T: Serialize>(&self, promise: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(promise)?;
        File::options().write(true).create_new(true).mode(0o600).open(self.0.join(PROMISE_FILE))?.write_all(&bytes)
    }

    pub(crate) fn promise<T: DeserializeOwned>(&self) -> io::Result<T> {
        read_json(&self.0.join(PROMISE_FILE))
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
        let bytes = read_foreign(&self.0.join(KEYFRAME_FILE), RECORD_BYTES_MAX)?;
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
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        File::options().read(true).custom_flags(flags).open(self.0.join(JOURNAL_DIR))
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
    Ok(serde_json::from_slice(&read_foreign(path, RECORD_BYTES_MAX)?)?)
}

/// Reads a file that may lie where others can make files: never through a link, never from anything that blocks, never without end.
pub(crate) fn read_foreign(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file as a whole or not at all, readable by us alone.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let beside = path.with_extension("new");
    // Where a shim can make files, what lies there already may be its: removed, and made anew.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_purge_has_left_is_no_session_and_is_removed_beside() {
        let state_dir = std::env::temp_dir().join(format!("agentapi-files-{}", SessionId::generate()));
        let (kept, gone) = (SessionId::generate(), SessionId::generate());
        SessionFiles::new(&state_dir, kept).create().unwrap();
        let left = state_dir.join("sessions").join(format!("{gone}.purged"));
        fs::create_dir_all(left.join("home/a/b")).unwrap();
        // Finding sessions removes nothing, so that nothing of it can keep the daemon from starting.
        assert_eq!(sessions(&state_dir).unwrap(), [kept]);
        assert!(left.exists());
        remove_leftovers(&state_dir).unwrap();
        assert!(!left.exists());
        assert_eq!(sessions(&state_dir).unwrap(), [kept]);
        remove_tree(&state_dir).unwrap();
    }
}
