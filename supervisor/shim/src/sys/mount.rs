//! The mount API that works on descriptors: open_tree, mount_setattr, move_mount (Linux 5.12).

use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

/// Properties of a mount to be set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) read_only: bool,
    pub(crate) no_devices: bool,
    pub(crate) no_programs: bool,
    pub(crate) idmap: Option<BorrowedFd<'a>>,
}

/// A detached copy of the mount at `path`, or of the whole tree below it.
pub(crate) fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = if recursive { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
    path.with_nix_path(|path| clone_tree(libc::AT_FDCWD, path, flags))?
}

/// A detached mount of just the file that is open.
pub(crate) fn open_tree_of(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    clone_tree(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH.cast_unsigned())
}

fn clone_tree(dir: RawFd, path: &CStr, flags: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: path is a NUL-terminated string that outlives the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}

/// Sets attributes on a detached tree. No mount in a jail ever honours set-user-ID bits.
pub(crate) fn set_attributes(tree: &OwnedFd, attributes: Attributes<'_>, recursive: bool) -> Result<(), Errno> {
    // SAFETY: mount_attr is a struct of integers, for which all zeroes is a valid value.
    let mut attr: libc::mount_attr = unsafe { mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_NOSUID;
    if attributes.read_only {
        attr.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attributes.no_devices {
        attr.attr_set |= libc::MOUNT_ATTR_NODEV;
    }
    if attributes.no_programs {
        attr.attr_set |= libc::MOUNT_ATTR_NOEXEC;
    }
    if let Some(userns) = attributes.idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or(u64::MAX);
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let empty: &CStr = c"";
    // SAFETY: the string is NUL-terminated and attr lives and has the size given.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw mut attr,
            mem::size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached tree at `target`.
pub(crate) fn move_mount(tree: &OwnedFd, target: &Path) -> Result<(), Errno> {
    let empty: &CStr = c"";
    target.with_nix_path(|target| {
        // SAFETY: both strings are NUL-terminated and outlive the call.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                tree.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
        .map(drop)
    })?
}
