//! The new root: from an empty tmpfs, step by step, then pivot into it, then a look at what stands there now.
//!
//! Every source is opened as a detached tree before the first mount covers anything, and checked to be the file the plan was made for: nothing is
//! mounted by a path that somebody could exchange.

mod verify;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use agentapi_shared::jail::{FileIdentity, JailMode, MountStep};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, major, minor};
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

/// What masks a file of /proc, and its number.
const NULL: (&str, u32, u32) = ("/dev/null", 1, 3);
/// What masks a directory of /proc.
const EMPTY_OPTIONS: &str = "mode=0555,size=4k,nr_inodes=1";
/// Where the limits of user namespaces stand in /proc.
const USER_LIMITS: &str = "sys/user";

/// Whose everything is that is made here. The host's root is nobody in the jail, and programs trust no directory of nobody's: id 0 inside owns it.
#[derive(Clone, Copy)]
struct Owners(Option<u32>);

impl Owners {
    fn of(mode: JailMode) -> Self {
        match mode {
            JailMode::Root { uid_base } => Self(Some(uid_base)),
            JailMode::User | JailMode::None => Self(None),
        }
    }

    /// Options of a tmpfs whose root belongs to an id inside.
    fn options(self, inside: u32) -> String {
        self.0.map(|base| format!(",uid={0},gid={0}", base + inside)).unwrap_or_default()
    }

    fn take(self, path: &Path) -> Result<(), Errno> {
        self.0.map_or(Ok(()), |base| lchown(path, Some(base), Some(base)).map_err(errno))
    }
}

/// Builds the root and enters it. `idmaps` belong to the bind steps that have one, in order. Returns the directory with the limits of user
/// namespaces as it was before /proc was made read-only.
pub(super) fn build(mode: JailMode, steps: &[MountStep], idmaps: Vec<OwnedFd>) -> Result<Option<OwnedFd>, JailError> {
    let owners = Owners::of(mode);
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(JailError::step("mounts: private"))?;
    let null = open_device(NULL.0, NULL.1, NULL.2).map_err(JailError::step("mounts: /dev/null"))?;
    let trees = open_sources(steps, idmaps)?;
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let root = format!("{ROOT_OPTIONS}{}", owners.options(0));
    mount(Some("tmpfs"), BASE, Some("tmpfs"), options, Some(root.as_str()))
        .map_err(JailError::step("mounts: new root"))?;
    let mut site = Site { owners, null, trees: trees.into_iter(), limits: None };
    for step in steps {
        site.apply(step).map_err(|source| JailError::Step { step: describe(step), source })?;
    }
    enter().map_err(JailError::step("mounts: pivot_root"))?;
    for step in steps {
        if let MountStep::SealReadOnly { target } = step {
            seal(target).map_err(|source| JailError::Step { step: describe(step), source })?;
        }
    }
    verify::mounts(steps)?;
    Ok(site.limits)
}

/// For errors: which step, and where.
fn describe(step: &MountStep) -> String {
    match step {
        MountStep::Bind { source, target, .. } => format!("mounts: bind {source} to {target}"),
        MountStep::Device { path, .. } => format!("mounts: device {path}"),
        MountStep::Mask { target } => format!("mounts: mask {target}"),
        MountStep::ReadOnly { target } => format!("mounts: read-only {target}"),
        MountStep::Tmpfs { target, .. } => format!("mounts: tmpfs {target}"),
        MountStep::Proc { target } => format!("mounts: proc {target}"),
        MountStep::DevPts { target, .. } => format!("mounts: devpts {target}"),
        MountStep::Symlink { target, .. } => format!("mounts: symlink {target}"),
        MountStep::File { target, .. } => format!("mounts: file {target}"),
        MountStep::SealReadOnly { target } => format!("mounts: seal {target}"),
    }
}

fn open_sources(steps: &[MountStep], idmaps: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, JailError> {
    let mut idmaps = idmaps.into_iter();
    let mut trees = Vec::new();
    for step in steps {
        let failed = |source| JailError::Step { step: describe(step), source };
        match step {
            MountStep::Bind { source, read_only, identity, idmap, .. } => {
                // Submounts of an id-mapped tree would need maps of their own: they stay outside.
                let recursive = idmap.is_none();
                let tree = sys::open_tree(Path::new(source), recursive).map_err(failed)?;
                if identity.is_some_and(|wanted| identity_of(&tree) != Some(wanted)) {
                    return Err(failed(Errno::ESTALE));
                }
                let map = if idmap.is_some() { idmaps.next() } else { None };
                let idmap = map.as_ref().map(AsFd::as_fd);
                let attributes = Attributes { read_only: *read_only, no_devices: true, no_programs: false, idmap };
                sys::set_attributes(&tree, attributes, recursive).map_err(failed)?;
                trees.push(tree);
            }
            MountStep::Device { path, major, minor } => {
                let device = open_device(path, *major, *minor).map_err(failed)?;
                let tree = sys::open_tree_of(&device).map_err(failed)?;
                let attributes = Attributes { no_programs: true, ..Attributes::default() };
                sys::set_attributes(&tree, attributes, false).map_err(failed)?;
                trees.push(tree);
            }
            _ => {}
        }
    }
    Ok(trees)
}

/// The character device at this path, if it is the one with this number.
fn open_device(path: &str, device_major: u32, device_minor: u32) -> Result<OwnedFd, Errno> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&fd)?;
    let is_character = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    if is_character && number == (u64::from(device_major), u64::from(device_minor)) {
        Ok(fd)
    } else {
        Err(Errno::ENODEV)
    }
}

fn identity_of(tree: &OwnedFd) -> Option<FileIdentity> {
    fstat(tree).ok().map(|stat| FileIdentity { dev: stat.st_dev, ino: stat.st_ino })
}

/// Path of a target while the new root is still at [`BASE`].
fn staged(target: &str) -> PathBuf {
    Path::new(BASE).join(target.trim_start_matches('/'))
}

/// What the steps work with.
struct Site<T> {
    owners: Owners,
    null: OwnedFd,
    /// Of the steps that have one, in order.
    trees: T,
    limits: Option<OwnedFd>,
}

impl<T: Iterator<Item = OwnedFd>> Site<T> {
    fn apply(&mut self, step: &MountStep) -> Result<(), Errno> {
        let owners = self.owners;
        match step {
            MountStep::Bind { target, .. } | MountStep::Device { path: target, .. } => {
                let tree = self.trees.next().ok_or(Errno::EINVAL)?;
                let target = staged(target);
                if is_directory(&tree)? {
                    make_dirs(&target, owners)?;
                } else {
                    make_file(&target, "", owners)?;
                }
                sys::move_mount(&tree, &target)
            }
            MountStep::Tmpfs { target, size_bytes, mode, owner } => {
                let owner = owners.options(*owner);
                let options = format!("mode={mode:o},size={size_bytes},nr_inodes={}{owner}", size_bytes / 4096 + 1024);
                mount_new("tmpfs", target, owners, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)
            }
            MountStep::Proc { target } => {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount_new("proc", target, owners, flags, "")?;
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                self.limits = Some(open(&staged(target).join(USER_LIMITS), flags, Mode::empty())?);
                Ok(())
            }
            MountStep::Mask { target } => self.mask(&staged(target)),
            MountStep::ReadOnly { target } => only_read(&staged(target)),
            MountStep::DevPts { target, max } => {
                let options = format!("newinstance,ptmxmode=0666,mode=0620,max={max}");
                mount_new("devpts", target, owners, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, &options)
            }
            MountStep::Symlink { target, to } => {
                let target = staged(target);
                make_parent(&target, owners)?;
                symlink(to, &target).map_err(errno)?;
                owners.take(&target)
            }
            MountStep::File { target, content } => make_file(&staged(target), content, owners),
            MountStep::SealReadOnly { .. } => Ok(()),
        }
    }

    fn mask(&self, target: &Path) -> Result<(), Errno> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        match fs::symlink_metadata(target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(errno(error)),
            Ok(found) if found.is_dir() => mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(EMPTY_OPTIONS)),
            Ok(_) => {
                let tree = sys::open_tree_of(&self.null)?;
                let attributes = Attributes { read_only: true, no_programs: true, ..Attributes::default() };
                sys::set_attributes(&tree, attributes, false)?;
                sys::move_mount(&tree, target)
            }
        }
    }
}

/// Puts a read-only view of a directory over itself.
fn only_read(target: &Path) -> Result<(), Errno> {
    let tree = match sys::open_tree(target, true) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let attributes = Attributes { read_only: true, no_devices: true, no_programs: true, idmap: None };
    sys::set_attributes(&tree, attributes, true)?;
    sys::move_mount(&tree, target)
}

fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(file)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn mount_new(kind: &str, target: &str, owners: Owners, flags: MsFlags, options: &str) -> Result<(), Errno> {
    let target = staged(target);
    make_dirs(&target, owners)?;
    mount(Some(kind), &target, Some(kind), flags, Some(options))
}

/// A directory with its parents.
fn make_dirs(target: &Path, owners: Owners) -> Result<(), Errno> {
    if target.is_dir() {
        return Ok(());
    }
    make_parent(target, owners)?;
    fs::create_dir(target).map_err(errno)?;
    owners.take(target)
}

fn make_parent(target: &Path, owners: Owners) -> Result<(), Errno> {
    target.parent().map_or(Ok(()), |parent| make_dirs(parent, owners))
}

fn make_file(target: &Path, content: &str, owners: Owners) -> Result<(), Errno> {
    make_parent(target, owners)?;
    let flags = OFlag::O_NOFOLLOW.bits();
    let mut file =
        File::options().write(true).create_new(true).mode(0o644).custom_flags(flags).open(target).map_err(errno)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(errno)?;
    file.write_all(content.as_bytes()).map_err(errno)?;
    owners.take(target)
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
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Devices are mounts of their own; of the rest of /dev nothing is executed.
    flags.set(MsFlags::MS_NOEXEC, target == "/dev");
    mount(none, target, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, none)
}
