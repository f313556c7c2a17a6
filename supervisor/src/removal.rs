//! Removing what agents have made: trees of any depth and any modes, with a bounded number of open directories, never through a link.
//!
//! A directory below [`DEPTH_MAX`] is moved up to the root of the tree and removed from there later, so that neither descriptors nor stack grow
//! with what is removed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Directories that are open at once, apart from the root: few of the 1024 descriptors that a process has at least.
const DEPTH_MAX: u32 = 64;

/// Removes a directory with everything in it; one that is not there is removed already. What cannot be removed does not keep the rest.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let mut removal = Removal { root: root.try_clone()?, moved: 0, failed: None };
    // Each round handles what the one before has moved up.
    while removal.empty(&root, 0)? > 0 {}
    if let Some(errno) = removal.failed {
        return Err(errno.into());
    }
    std::fs::remove_dir(path)
}

struct Removal {
    root: OwnedFd,
    /// Directories that were moved up, for their new names.
    moved: u64,
    /// The first entry that could not be removed.
    failed: Option<Errno>,
}

impl Removal {
    /// Removes what is in a directory; how many entries are gone from it.
    fn empty(&mut self, dir: &OwnedFd, depth: u32) -> io::Result<u64> {
        // What is in there may be protected by modes of the agent's choice.
        if fstat(dir)?.st_mode & libc::S_IRWXU != libc::S_IRWXU {
            fchmod(dir, Mode::S_IRWXU)?;
        }
        let mut gone = 0;
        let mut entries = Dir::from_fd(dir.try_clone()?)?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match self.remove(dir, name, depth) {
                Ok(()) => gone += 1,
                // Gone by itself.
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    let _first = self.failed.get_or_insert(errno);
                }
            }
        }
        Ok(gone)
    }

    fn remove(&mut self, dir: &OwnedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            // What Linux says of a directory, and what POSIX does.
            Err(Errno::EISDIR | Errno::EPERM) => {}
            other => return other,
        }
        if depth >= DEPTH_MAX {
            return self.move_up(dir, name);
        }
        let below = enter(dir, name)?;
        loop {
            match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
                // Some file systems skip entries of a directory that shrinks while it is read: as long as it does, it is read again.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                    if self.empty(&below, depth + 1).map_err(errno_of)? == 0 {
                        return Err(self.failed.unwrap_or(Errno::ENOTEMPTY));
                    }
                }
                other => return other,
            }
        }
    }

    /// Moves a directory to the root, under a name of its own.
    fn move_up(&mut self, dir: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        // A directory that is moved is written to: where it is.
        fchmod(enter(dir, name)?, Mode::S_IRWXU)?;
        loop {
            self.moved += 1;
            let fresh = CString::new(format!("moved-{}", self.moved)).map_err(|_| Errno::EINVAL)?;
            match renameat(dir.as_fd(), name, self.root.as_fd(), fresh.as_c_str()) {
                // Something else has the name; an empty directory would be replaced, which removes it.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }
}

/// Opens a directory of the tree, whatever its mode is.
fn enter(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            let path = openat(dir, name, flags | OFlag::O_PATH, Mode::empty())?;
            let link = format!("/proc/self/fd/{}", path.as_raw_fd());
            std::fs::set_permissions(&link, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(errno_of)?;
            openat(dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use nix::sys::stat::mkdirat;

    use super::*;

    /// More levels than a test process may have descriptors.
    const LEVELS: u32 = 5000;

    fn base() -> std::path::PathBuf {
        let base = std::env::temp_dir().join(format!("agentapi-removal-{}", agentapi_shared::SessionId::generate()));
        std::fs::create_dir(&base).unwrap();
        base
    }

    /// Directories within each other, each with a file and a link beside; as deep as no path can name.
    fn deepen(path: &Path) {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut at = open(path, flags, Mode::empty()).unwrap();
        for level in 0..LEVELS {
            mkdirat(&at, c"d", Mode::S_IRWXU).unwrap();
            if level % 500 == 0 {
                symlink("/", format!("/proc/self/fd/{}/link", at.as_raw_fd())).unwrap();
                std::fs::write(format!("/proc/self/fd/{}/moved-1", at.as_raw_fd()), "x").unwrap();
            }
            at = openat(&at, c"d", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_paths_go_is_removed() {
        let base = base();
        deepen(&base);
        let mut most = 0;
        // Seen from beside: descriptors of this process while it removes.
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| remove_tree(&base));
            while !removing.is_finished() {
                most = most.max(std::fs::read_dir("/proc/self/fd").unwrap().count());
                std::thread::yield_now();
            }
            removing.join().unwrap().unwrap();
        });
        assert!(!base.exists());
        // Two for each level, and those of the tests beside this one.
        assert!(most < 600, "{most} descriptors");
    }

    #[test]
    fn links_are_removed_and_not_followed_and_modes_keep_nothing() {
        let base = base();
        let (tree, kept) = (base.join("tree"), base.join("kept"));
        std::fs::create_dir_all(tree.join("closed/inner")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        symlink(&kept, tree.join("closed/link")).unwrap();
        std::fs::set_permissions(tree.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        // Not there: removed already. A link in its place: not what was meant.
        remove_tree(&tree).unwrap();
        symlink(&kept, &tree).unwrap();
        assert!(remove_tree(&tree).is_err());
        assert!(kept.join("file").exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
