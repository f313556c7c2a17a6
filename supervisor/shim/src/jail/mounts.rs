//! The new root: from an empty tmpfs, step by step, then pivot into it.
//!
//! Every source is opened as a detached tree before the first mount covers anything, and checked to be the file the plan was made for.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use agentapi_shared::jail::{FileIdentity, MountStep};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::fstat;
use nix::unistd::{chdir, pivot_root};

use super::error::JailError;
use super::userns::errno;
use crate::sys::{self, Attributes};

/// The new root is built on this directory, which every Linux has; the tmpfs on it is seen by nobody else.
const BASE: &str = "/tmp";
/// Where the old root stays for a moment.
const OLD: &str = ".old";
/// The root holds mount points and a few small files, so little that a jail cannot hog memory through it.
const ROOT_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=4096";

/// Builds the root and enters it. `idmaps` belong to the bind steps that have one, in order.
pub(super) fn build(steps: &[MountStep], idmaps: Vec<OwnedFd>) -> Result<(), JailError> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(JailError::step("private mounts"))?;
    let trees = open_sources(steps, idmaps)?;
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), BASE, Some("tmpfs"), options, Some(ROOT_OPTIONS)).map_err(JailError::step("new root"))?;
    let mut trees = trees.into_iter();
    for step in steps {
        apply(step, &mut trees).map_err(|source| JailError::Step { step: describe(step), source })?;
    }
    enter().map_err(JailError::step("pivot_root"))?;
    for step in steps {
        if let MountStep::SealReadOnly { target } = step {
            seal(target).map_err(|source| JailError::Step { step: describe(step), source })?;
        }
    }
    Ok(())
}

/// For errors: which step, and where.
fn describe(step: &MountStep) -> String {
    match step {
        MountStep::Bind { source, target, .. } => format!("bind {source} to {target}"),
        MountStep::Tmpfs { target, .. } => format!("tmpfs {target}"),
        MountStep::Proc { target } => format!("proc {target}"),
        MountStep::DevPts { target, .. } => format!("devpts {target}"),
        MountStep::Symlink { target, .. } => format!("symlink {target}"),
        MountStep::File { target, .. } => format!("file {target}"),
        MountStep::SealReadOnly { target } => format!("seal {target}"),
    }
}

fn open_sources(steps: &[MountStep], idmaps: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, JailError> {
    let mut idmaps = idmaps.into_iter();
    let mut trees = Vec::new();
    for step in steps {
        let MountStep::Bind { source, read_only, identity, idmap, .. } = step else { continue };
        let failed = |source| JailError::Step { step: describe(step), source };
        // Submounts of an id-mapped tree would need maps of their own: they stay outside.
        let recursive = idmap.is_none();
        let tree = sys::open_tree(Path::new(source), recursive).map_err(failed)?;
        if identity.is_some_and(|wanted| identity_of(&tree) != Some(wanted)) {
            return Err(failed(Errno::ESTALE));
        }
        let map = if idmap.is_some() { idmaps.next() } else { None };
        let attributes = Attributes {
            read_only: *read_only,
            no_devices: !source.starts_with("/dev/"),
            idmap: map.as_ref().map(AsFd::as_fd),
        };
        sys::set_attributes(&tree, attributes, recursive).map_err(failed)?;
        trees.push(tree);
    }
    Ok(trees)
}

fn identity_of(tree: &OwnedFd) -> Option<FileIdentity> {
    fstat(tree).ok().map(|stat| FileIdentity { dev: stat.st_dev, ino: stat.st_ino })
}

/// Path of a target while the new root is still at [`BASE`].
fn staged(target: &str) -> PathBuf {
    Path::new(BASE).join(target.trim_start_matches('/'))
}

fn apply(step: &MountStep, trees: &mut impl Iterator<Item = OwnedFd>) -> Result<(), Errno> {
    match step {
        MountStep::Bind { target, .. } => {
            let tree = trees.next().ok_or(Errno::EINVAL)?;
            let target = staged(target);
            if fstat(&tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
                fs::create_dir_all(&target).map_err(errno)?;
            } else {
                make_file(&target, "")?;
            }
            sys::move_mount(&tree, &target)
        }
        MountStep::Tmpfs { target, size_bytes, mode } => {
            let options = format!("mode={mode:o},size={size_bytes},nr_inodes={}", size_bytes / 4096 + 1024);
            mount_new("tmpfs", target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)
        }
        MountStep::Proc { target } => {
            mount_new("proc", target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, "")
        }
        MountStep::DevPts { target, max } => {
            let options = format!("newinstance,ptmxmode=0666,mode=0620,max={max}");
            mount_new("devpts", target, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, &options)
        }
        MountStep::Symlink { target, to } => {
            let target = staged(target);
            make_parent(&target)?;
            symlink(to, &target).map_err(errno)
        }
        MountStep::File { target, content } => make_file(&staged(target), content),
        MountStep::SealReadOnly { .. } => Ok(()),
    }
}

fn mount_new(kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<(), Errno> {
    let target = staged(target);
    fs::create_dir_all(&target).map_err(errno)?;
    mount(Some(kind), &target, Some(kind), flags, Some(options))
}

fn make_parent(target: &Path) -> Result<(), Errno> {
    target.parent().map_or(Ok(()), fs::create_dir_all).map_err(errno)
}

fn make_file(target: &Path, content: &str) -> Result<(), Errno> {
    make_parent(target)?;
    let flags = OFlag::O_NOFOLLOW.bits();
    let mut file =
        File::options().write(true).create_new(true).mode(0o644).custom_flags(flags).open(target).map_err(errno)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(errno)?;
    file.write_all(content.as_bytes()).map_err(errno)
}

/// Makes the new root `/`, and the old one unreachable.
fn enter() -> Result<(), Errno> {
    let old = Path::new(BASE).join(OLD);
    fs::create_dir(&old).map_err(errno)?;
    chdir(BASE)?;
    pivot_root(BASE, &old)?;
    chdir("/")?;
    let old = Path::new("/").join(OLD);
    umount2(&old, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&old).map_err(errno)?;
    // The one thing that must hold: what is `/` now is our tmpfs, not the host's root.
    let root = fs::metadata("/").map_err(errno)?;
    let parent = fs::metadata("/..").map_err(errno)?;
    if (root.dev(), root.ino()) == (parent.dev(), parent.ino()) { Ok(()) } else { Err(Errno::EXDEV) }
}

fn seal(target: &str) -> Result<(), Errno> {
    let none: Option<&str> = None;
    let kept = MsFlags::MS_NOSUID | if target == "/dev" { MsFlags::empty() } else { MsFlags::MS_NODEV };
    mount(none, target, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept, none)
}
