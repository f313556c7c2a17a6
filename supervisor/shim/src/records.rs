//! What a spawn leaves behind: exit record, last screen, last keyframe. Durable before the shim goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use agentapi_shared::Exit;
use agentapi_shared::frame::Keyframe;
use agentapi_shared::shim::{EXIT_FILE, FINAL_FILE, FinalScreen, JOURNAL_DIR, KEYFRAME_FILE};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};

use crate::parser::KeyframeTaken;

/// Locks the spawn's directory until the lock is dropped, or this process ends.
pub(crate) fn hold(dir: &OwnedFd) -> io::Result<Flock<OwnedFd>> {
    // A descriptor of its own: the lock belongs to what is opened here, not to what the supervisor has opened and passed on.
    let own = openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Flock::lock(own, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// The spawn's directory, only ever used by descriptor.
#[derive(Debug)]
pub(crate) struct Records(OwnedFd);

impl Records {
    pub(crate) fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.0
    }

    /// The journal's directory, made if it is not there.
    pub(crate) fn journal_dir(&self) -> Result<OwnedFd, Errno> {
        match mkdirat(&self.0, JOURNAL_DIR, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        openat(
            &self.0,
            JOURNAL_DIR,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
            Mode::empty(),
        )
    }

    /// Whether the exit record is there.
    pub(crate) fn has_exit(&self) -> bool {
        openat(&self.0, EXIT_FILE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).is_ok()
    }

    /// Writes everything; the exit record last, as its presence says that the rest is there.
    pub(crate) fn write(&self, exit: &Exit, screen: &FinalScreen, keyframe: &KeyframeTaken) -> io::Result<()> {
        let mut bytes = keyframe.offset.to_le_bytes().to_vec();
        bytes.extend(Keyframe { size: keyframe.size, bytes: &keyframe.bytes }.to_payload());
        self.replace(KEYFRAME_FILE, &bytes)?;
        self.replace(FINAL_FILE, &serde_json::to_vec(screen)?)?;
        self.replace(EXIT_FILE, &serde_json::to_vec(exit)?)
    }

    /// Replaces a file as a whole: written beside it, synced, renamed.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = PathBuf::from(format!(".{name}.new"));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let mut file = File::from(openat(&self.0, &beside, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(bytes)?;
        file.sync_data()?;
        renameat(&self.0, &beside, &self.0, Path::new(name))?;
        nix::unistd::fsync(self.0.as_fd())?;
        Ok(())
    }
}
