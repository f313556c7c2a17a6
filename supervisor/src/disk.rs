//! Disks of sessions: a sparse image with a file system of its own, which is what caps HOME and an `empty` workspace together.
//!
//! A disk is mounted nowhere on the host. What [`Disk::open`] returns is a detached mount, held by its descriptor; the shim takes the session's
//! directories from it into the jail, and with the jail the kernel lets go of all of it, the loop device too. So there is nothing to be undone
//! after a crash, whoever crashed, and the next supervisor has nothing to find.
//!
//! No image ever has two devices, which would destroy what is in it: a lock on the file goes with it into the device, and is there as long as that.
//! Everything in here blocks.

#[cfg(test)]
mod tests;
mod tools;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use agentapi_shared::api::DISK_BYTES_MIN;
use agentapi_shared::jail::DiskDir;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use self::tools::Image;
pub(crate) use self::tools::ToolError;
use crate::abort::{Abort, Aborted};
use crate::files::{DISK_PROBE_PREFIX, private_dir};
use crate::sys::disk as sys;

/// Blocks of the file system and sectors of the device: the same, so that every access is one that any disk below can do directly.
const BLOCK_BYTES: u32 = 4096;
/// Below this nothing starts that could fill the host's disk further: the outbox, records and journals of what runs have to be written.
pub(crate) const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// A device lets go of its image once all that was written inside is on the disk: seconds, after large writes to a slow one.
const HELD_SECONDS_MAX: Duration = Duration::from_secs(20);
/// Others look for a free loop device as well, and each time one of us is faster.
const DEVICE_ATTEMPTS: u32 = 64;
/// Where the kernel gives out loop devices.
const LOOP_CONTROL: &str = "/dev/loop-control";
/// What is deleted inside is given back to the host; and the tables of inodes are holes of the image, which nobody has to write.
const MOUNT_FLAGS: [&std::ffi::CStr; 2] = [c"discard", c"noinit_itable"];

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The image.
    #[error("disk: cannot {action} the image {path}")]
    Image { action: &'static str, path: String, source: io::Error },
    /// A program that makes or mends file systems.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Something still writes to it.
    #[error("disk: what used {path} before has not let go of it after {} seconds: see what still has it open (fuser -v) and start the session again", HELD_SECONDS_MAX.as_secs())]
    Held { path: String },
    /// There are no loop devices here.
    #[error(
        "disk: cannot open {LOOP_CONTROL}: load the module (modprobe loop), and let this process have loop devices"
    )]
    Control(#[source] io::Error),
    /// There are, but none for us.
    #[error("disk: cannot have a loop device ({device})")]
    Device { device: String, source: io::Error },
    /// The kernel does not take it.
    #[error("disk: cannot mount the file system: `agentapi-supervisor doctor` says what this host can")]
    Mount(#[source] io::Error),
    /// It was tried out, and does not do what it is for.
    #[error("disk: {0}")]
    Useless(&'static str),
}

/// A disk that is mounted, and attached nowhere.
#[derive(Debug)]
pub(crate) struct Disk(OwnedFd);

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Disk {
    /// Makes an image of this size. It belongs to root and, without a right to anything, to `group`, which says whose disk it is.
    pub(crate) fn make(path: &Path, bytes: u64, group: Option<u32>, abort: &Abort) -> Result<(), DiskError> {
        let failed = |action| move |source| DiskError::Image { action, path: path.display().to_string(), source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed("make"))?;
        file.set_len(bytes - bytes % u64::from(BLOCK_BYTES)).map_err(failed("size"))?;
        fchown(&file, None, group).map_err(failed("own"))?;
        // Nobody else knows of it yet.
        file.lock().map_err(failed("lock"))?;
        Ok(tools::make(Image { path, locked: &file }, bytes, abort)?)
    }

    /// Mounts an image. One that something still uses is waited for.
    pub(crate) fn open(path: &Path, abort: &Abort) -> Result<Self, DiskError> {
        let failed = |action| move |source| DiskError::Image { action, path: path.display().to_string(), source };
        let flags = libc::O_NOFOLLOW;
        let open = || File::options().read(true).write(true).custom_flags(flags).open(path);
        let file = open().map_err(failed("open"))?;
        if !lock(&file, HELD_SECONDS_MAX, abort).map_err(failed("lock"))? {
            return Err(DiskError::Held { path: path.display().to_string() });
        }
        if !is_clean(&file).map_err(failed("read"))? {
            tools::mend(Image { path, locked: &file }, abort)?;
        }
        mount(&file)
    }

    /// Makes the directories of a new one, for somebody by this id.
    pub(crate) fn begin(&self, owner: u32) -> io::Result<()> {
        for dir in [DiskDir::Home, DiskDir::Workspace] {
            private_dir(&self.dir(dir))?;
            lchown(self.dir(dir), Some(owner), Some(owner))?;
        }
        Ok(())
    }

    /// One of its directories, for as long as the disk is held.
    pub(crate) fn dir(&self, dir: DiskDir) -> PathBuf {
        self.root().join(dir.name())
    }

    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Takes the lock of an image, which goes with the open file wherever that goes: into a loop device, too. False: others still have it by then.
fn lock(file: &File, patience: Duration, abort: &Abort) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => return Ok(true),
        Err(fs::TryLockError::WouldBlock) => {}
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let (waiting, (told, locked)) = (file.try_clone()?, mpsc::sync_channel(1));
    let giving_up = told.clone();
    let wait = move || {
        // If nobody listens any more the file is closed here, and the lock is gone with it.
        let _told = told.send(waiting.lock());
    };
    let _waits = std::thread::Builder::new().name("disk-lock".to_owned()).spawn(wait)?;
    let given_up = move || {
        // The lock may have been had just before.
        let _told = giving_up.try_send(Err(io::Error::other(Aborted)));
    };
    abort.watch(given_up).map_err(io::Error::other)?;
    match locked.recv_timeout(patience) {
        Ok(locked) => locked.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Whether nothing was found wrong with the file system. What a crash of the host has left in its journal the kernel carries out as it mounts it.
fn is_clean(image: &File) -> io::Result<bool> {
    /// Where the superblock says so.
    const STATE_AT: u64 = 1024 + 0x3A;
    const CLEAN: u16 = 1;
    const ERRORS: u16 = 2;
    let mut state = [0; 2];
    image.read_exact_at(&mut state, STATE_AT)?;
    let state = u16::from_le_bytes(state);
    Ok(state & CLEAN != 0 && state & ERRORS == 0)
}

/// Mounts a file that is locked.
fn mount(file: &File) -> Result<Disk, DiskError> {
    let control = File::options().read(true).write(true).open(LOOP_CONTROL).map_err(DiskError::Control)?;
    for _ in 0..DEVICE_ATTEMPTS {
        let number = sys::free_loop(control.as_fd())
            .map_err(|errno| DiskError::Device { device: LOOP_CONTROL.to_owned(), source: errno.into() })?;
        let path = format!("/dev/loop{number}");
        let failed = |source: io::Error| DiskError::Device { device: path.clone(), source };
        let device = File::options().read(true).write(true).open(&path).map_err(failed)?;
        match sys::configure_loop(device.as_fd(), file.as_fd(), BLOCK_BYTES) {
            Err(Errno::EBUSY) => continue,
            other => other.map_err(|errno| failed(errno.into()))?,
        }
        let source = CString::new(path).map_err(|error| DiskError::Mount(error.into()))?;
        // The mount holds the device, and the device the file.
        return sys::mount_detached(c"ext4", &source, &MOUNT_FLAGS)
            .map(Disk)
            .map_err(|errno| DiskError::Mount(errno.into()));
    }
    Err(DiskError::Device { device: LOOP_CONTROL.to_owned(), source: Errno::EBUSY.into() })
}

/// Whether the file system that this directory is on still has room for what runs, and how much it has.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = statvfs(dir)?;
    Ok(found.blocks_available() * found.fragment_size())
}

/// Tries it all out below a directory: makes a small disk, mounts it, fills it, and sees that the cap holds and that nothing stays.
pub(crate) fn probe(dir: &Path) -> Result<(), DiskError> {
    let path = dir.join(format!("{DISK_PROBE_PREFIX}{}", std::process::id()));
    let failed = |source| DiskError::Image { action: "look at", path: path.display().to_string(), source };
    let abort = Abort::default();
    let opened = Disk::make(&path, DISK_BYTES_MIN, None, &abort).and_then(|()| {
        let image = File::open(&path).map_err(failed)?;
        Ok((image, Disk::open(&path, &abort)?))
    });
    // From here on the mount alone keeps it, whatever becomes of us.
    let _gone = fs::remove_file(&path);
    let (image, disk) = opened?;
    overfill(&disk)?;
    drop(disk);
    if lock(&image, HELD_SECONDS_MAX, &abort).map_err(failed)? {
        Ok(())
    } else {
        Err(DiskError::Useless("its device stays"))
    }
}

/// Writes until it is refused, which has to be for want of room and before more than the cap was taken.
fn overfill(disk: &Disk) -> Result<(), DiskError> {
    const CHUNK_BYTES: usize = 64 * 1024;
    let path = disk.root().join("probe");
    let mut file = File::create(&path).map_err(DiskError::Mount)?;
    // Gone with the descriptor: what was written never has to reach the disk.
    fs::remove_file(&path).map_err(DiskError::Mount)?;
    let chunk = vec![1; CHUNK_BYTES];
    for _ in 0..=DISK_BYTES_MIN / CHUNK_BYTES as u64 {
        match file.write_all(&chunk) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(()),
            Err(error) => return Err(DiskError::Mount(error)),
        }
    }
    Err(DiskError::Useless("more can be written to it than it should hold"))
}
