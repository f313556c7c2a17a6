//! The new root: from an empty tmpfs, step by step, then pivot into it, then a look at what stands there now.
//!
//! Every source is opened as a detached tree before the first mount covers anything, and checked to be the file the plan was made for: nothing is
//! mounted by a path that somebody could exchange.

mod disk;
mod verify;

use std::collections::HashSet;
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
use nix::unistd::{Gid, Uid, chdir, pivot_root, setfsgid, setfsuid};

use super::Sources;
use super::error::JailError;
use super::userns::errno;
use crate::sys::{self, Attributes};

/// The new root is built on this directory, which every Linux has; the tmpfs on it is seen by nobody else.
const BASE: &str = "/tmp";
/// Where the old root stays for a moment.
const OLD: &str = ".old";
/// The root holds mount points and a few small files, so little that a jail cannot hog memory through it.
const ROOT_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=4096";

/// What masks a file of /proc.
const NULL: &str = "/dev/null";
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

    /// From here on what this process makes is theirs, until [`Self::end`].
    fn begin(self) {
        if let Some(base) = self.0 {
            let _before = (setfsgid(Gid::from_raw(base)), setfsuid(Uid::from_raw(base)));
        }
    }

    fn end(self) {
        if self.0.is_some() {
            let _before = (setfsuid(Uid::from_raw(0)), setfsgid(Gid::from_raw(0)));
        }
    }
}

/// Builds the root and enters it. Returns the directory with the limits of user namespaces as it was before /proc was made read-only.
pub(super) fn build(mode: JailMode, steps: &[MountStep], sources: Sources) -> Result<Option<OwnedFd>, JailError> {
    let owners = Owners::of(mode);
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(JailError::step("mounts: private"))?;
    let trees = open_sources(steps, sources)?;
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let root = format!("{ROOT_OPTIONS}{}", owners.options(0));
    mount(Some("tmpfs"), BASE, Some("tmpfs"), options, Some(root.as_str()))
        .map_err(JailError::step("mounts: new root"))?;
    let mut site = Site { owners, trees: trees.into_iter(), dirs: HashSet::new(), limits: None };
    owners.begin();
    for step in steps {
        site.apply(step).map_err(|source| JailError::Step { step: describe(step), source })?;
    }
    owners.end();
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
        MountStep::Disk { dir, target } => format!("mounts: disk's {} to {target}", dir.name()),
        MountStep::Device { path, .. } => format!("mounts: device {path}"),
        MountStep::Mask { target } => format!("mounts: mask {target}"),
        MountStep::ReadOnly { target } => format!("mounts: read-only {target}"),
        MountStep::Tmpfs { target, .. } => format!("mounts: tmpfs {target}"),
        MountStep::Directory { target, .. } => format!("mounts: directory {target}"),
        MountStep::Proc { target } => format!("mounts: proc {target}"),
        MountStep::DevPts { target, .. } => format!("mounts: devpts {target}"),
        MountStep::Symlink { target, .. } => format!("mounts: symlink {target}"),
        MountStep::File { target, .. } => format!("mounts: file {target}"),
        MountStep::SealReadOnly { target } => format!("mounts: seal {target}"),
    }
}

fn open_sources(steps: &[MountStep], sources: Sources) -> Result<Vec<OwnedFd>, JailError> {
    let mut on_disk = disk::directories(sources.disk, steps)?.into_iter();
    let mut idmaps = sources.idmaps.into_iter();
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
            MountStep::Disk { .. } => trees.extend(on_disk.next()),
            MountStep::Device { path, major, minor } => {
                let device = open_device(path, *major, *minor).map_err(failed)?;
                let tree = sys::open_tree_of(&device).map_err(failed)?;
                // Reading and writing a device is no change of its file.
                let attributes = Attributes { read_only: true, no_programs: true, ..Attributes::default() };
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
    /// Of the steps that have one, in order.
    trees: T,
    /// Directories that are there.
    dirs: HashSet<PathBuf>,
    limits: Option<OwnedFd>,
}

impl<T: Iterator<Item = OwnedFd>> Site<T> {
    fn apply(&mut self, step: &MountStep) -> Result<(), Errno> {
        match step {
            MountStep::Bind { target, .. }
            | MountStep::Disk { target, .. }
            | MountStep::Device { path: target, .. } => {
                let tree = self.trees.next().ok_or(Errno::EINVAL)?;
                let target = staged(target);
                if is_directory(&tree)? {
                    self.make_dir(&target)?;
                } else {
                    self.make_file(&target, "")?;
                }
                sys::move_mount(&tree, &target)?;
                self.covered(&target);
                Ok(())
            }
            MountStep::Tmpfs { target, size_bytes, mode, owner } => {
                let owner = self.owners.options(*owner);
                let options = format!("mode={mode:o},size={size_bytes},nr_inodes={}{owner}", size_bytes / 4096 + 1024);
                self.mount("tmpfs", target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)
            }
            MountStep::Directory { target, mode, owner } => self.make_owned_dir(&staged(target), *mode, *owner),
            MountStep::Proc { target } => {
                self.mount("proc", target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, "")?;
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                self.limits = Some(open(&staged(target).join(USER_LIMITS), flags, Mode::empty())?);
                Ok(())
            }
            MountStep::Mask { target } => mask(&staged(target)),
            MountStep::ReadOnly { target } => only_read(&staged(target)),
            MountStep::DevPts { target, max } => {
                let options = format!("newinstance,ptmxmode=0666,mode=0620,max={max}");
                self.mount("devpts", target, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, &options)
            }
            MountStep::Symlink { target, to } => {
                let target = staged(target);
                self.in_its_dir(&target, |target| symlink(to, target).map_err(errno))
            }
            MountStep::File { target, content } => self.make_file(&staged(target), content),
            MountStep::SealReadOnly { .. } => Ok(()),
        }
    }

    fn mount(&mut self, kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<(), Errno> {
        let target = staged(target);
        self.make_dir(&target)?;
        mount(Some(kind), &target, Some(kind), flags, Some(options))?;
        self.covered(&target);
        Ok(())
    }

    /// Something has been mounted there: what was made below it is out of sight.
    fn covered(&mut self, target: &Path) {
        self.dirs.retain(|dir| dir == target || !dir.starts_with(target));
    }

    /// A directory with its parents.
    fn make_dir(&mut self, target: &Path) -> Result<(), Errno> {
        if self.dirs.contains(target) {
            return Ok(());
        }
        match self.in_its_dir(target, |target| fs::create_dir(target).map_err(errno)) {
            Err(Errno::EEXIST) if target.is_dir() => {}
            other => other?,
        }
        self.dirs.insert(target.to_owned());
        Ok(())
    }

    fn make_owned_dir(&mut self, target: &Path, mode: u32, owner: u32) -> Result<(), Errno> {
        self.make_dir(target)?;
        fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(errno)?;
        let Some(owner) = self.owners.0.map(|base| base + owner) else { return Ok(()) };
        // Giving away needs the privilege that was laid down for making things.
        self.owners.end();
        let given = lchown(target, Some(owner), Some(owner)).map_err(errno);
        self.owners.begin();
        given
    }

    fn make_file(&mut self, target: &Path, content: &str) -> Result<(), Errno> {
        self.in_its_dir(target, |target| {
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o644).custom_flags(OFlag::O_NOFOLLOW.bits());
            options.open(target).and_then(|mut file| file.write_all(content.as_bytes())).map_err(errno)
        })
    }

    /// Makes something, and if there is no directory for it that first.
    fn in_its_dir(&mut self, target: &Path, make: impl Fn(&Path) -> Result<(), Errno>) -> Result<(), Errno> {
        match (make(target), target.parent()) {
            (Err(Errno::ENOENT), Some(parent)) => {
                self.make_dir(parent)?;
                make(target)
            }
            (made, _) => made,
        }
    }
}

/// Puts nothing over a file or directory of /proc, if this kernel has it. The null device is in its place by then, with the attributes that the mask
/// gets from it.
fn mask(target: &Path) -> Result<(), Errno> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    match mount(Some(&staged(NULL)), target, none, MsFlags::MS_BIND, none) {
        Err(Errno::ENOENT) => match fs::symlink_metadata(target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(Errno::ENOENT),
        },
        Err(Errno::ENOTDIR) => mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(EMPTY_OPTIONS)),
        other => other,
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
