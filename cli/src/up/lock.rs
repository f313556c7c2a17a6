//! One `up` per data dir. The lock is the kernel's: it is gone with the process that holds it, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::datadir::DataDir;

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct UpLock {
    // The file stays when the lock goes: removing it would let two processes lock two files of the same name.
    _file: Flock<File>,
}

/// What trying to lock gave.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is ours.
    Ours(UpLock),
    /// Another process has it.
    Held {
        /// Its id, if it had written it yet.
        pid: Option<i32>,
    },
}

/// Takes the lock, if it is free.
pub(crate) fn lock(data: &DataDir) -> anyhow::Result<Locked> {
    let path = data.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Locked::Ours(UpLock { _file: file }))
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(Locked::Held { pid: pid.trim().parse().ok() })
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Whether somebody holds the lock. Takes it for a moment if nobody does.
pub(crate) fn holder(data: &DataDir) -> anyhow::Result<Option<Option<i32>>> {
    if !data.lock().exists() {
        return Ok(None);
    }
    // A shared lock would not stand in the way of another question; it does stand in the way of an `up` that starts this very moment,
    // so only the question is asked: LOCK_SH fails while LOCK_EX is held, and is dropped at once.
    let mut file = File::open(data.lock()).with_context(|| format!("cannot open {}", data.lock().display()))?;
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_free) => Ok(None),
        Err((_, Errno::EWOULDBLOCK)) => Ok(Some(pid.trim().parse().ok())),
        Err((_, errno)) => Err(errno).context("cannot ask who holds the lock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first_and_a_free_lock_is_taken() {
        let root = std::env::temp_dir().join(format!("agentapi-lock-{}", uuid::Uuid::now_v7()));
        let data = DataDir::new(root.clone());
        data.create().unwrap();
        assert_eq!(holder(&data).unwrap(), None);
        let Locked::Ours(first) = lock(&data).unwrap() else { panic!("free, yet held") };
        let own_pid = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(lock(&data).unwrap(), Locked::Held { pid: Some(pid) } if pid == own_pid));
        assert_eq!(holder(&data).unwrap(), Some(Some(own_pid)));
        drop(first);
        assert_eq!(holder(&data).unwrap(), None);
        assert!(matches!(lock(&data).unwrap(), Locked::Ours(_)));
        std::fs::remove_dir_all(root).unwrap();
    }
}
