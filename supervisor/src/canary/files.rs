//! Attempts on files: the supervisor's, the system's, the kernel's; and on mounts.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::chroot;

use super::Scene;
use super::attempt::{Needs, Row, Seen, errno};
use crate::sys::{Arg, call};

pub(super) const ROWS: &[Row] = &[
    row("files.of_supervisor", |scene| read_bait(scene, scene.aims.bait.clone())),
    row("files.of_supervisor_upwards", |scene| {
        read_bait(scene, Path::new(&"../".repeat(32)).join(scene.aims.bait.strip_prefix("/").unwrap_or(Path::new(""))))
    }),
    row("files.of_supervisor_through_init", |scene| {
        let root = format!("/proc/{}/root", scene.init);
        read_bait(scene, Path::new(&root).join(scene.aims.bait.strip_prefix("/").unwrap_or(Path::new(""))))
    }),
    row("files.passwords", |_| Seen::worst(["/etc/shadow", "/etc/gshadow"].map(|path| Seen::of_io(fs::read(path))))),
    row("files.root_of_init", |scene| Seen::of_io(fs::read_dir(format!("/proc/{}/root", scene.init)))),
    row("files.inherited_descriptors", |scene| {
        Seen::open_if(!scene.inherited.is_empty(), "none").with(&scene.inherited.join(" "))
    }),
    row("files.by_handle", by_handle),
    row("files.make_in_root", |_| make_in("/")),
    row("files.make_in_usr", |_| make_in("/usr")),
    row("files.make_in_etc", |_| make_in("/etc")),
    row("files.make_in_dev", |_| make_in("/dev")),
    row("files.change_passwd", |_| Seen::of_io(OpenOptions::new().append(true).open("/etc/passwd"))),
    row("files.link_to_system", link_to_system),
    row("files.make_device", make_device),
    row("files.make_set_user_id", make_set_user_id),
    row("files.change_root", |_| Seen::of(chroot("/tmp"))),
    row("mounts.tmpfs", mount_tmpfs),
    row("mounts.open_tree", |_| {
        Seen::of(call(
            libc::SYS_open_tree,
            [Arg::Number(AT_CWD), Arg::Text(c"/"), Arg::Number(libc::OPEN_TREE_CLONE.into())],
        ))
    }),
    row("mounts.new_api", |_| Seen::of(call(libc::SYS_fsopen, [Arg::Text(c"tmpfs"), Arg::Number(0)]))),
    // Of the workspace: had it an effect, it would be on nothing else.
    row("mounts.remount", |_| {
        let none: Option<&str> = None;
        Seen::permitted(mount(none, ".", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none))
    }),
    // The first time it is only noted that it could be done.
    row("mounts.unmount", |_| Seen::permitted(umount2("/proc", MntFlags::MNT_EXPIRE))),
    row("kernel_files.sysctl", |_| rewrite("/proc/sys/vm/overcommit_memory")),
    row("kernel_files.core_pattern", |_| rewrite("/proc/sys/kernel/core_pattern")),
    row("kernel_files.sysrq", |_| opened_for_writing("/proc/sysrq-trigger")),
    row("kernel_files.memory", |_| content("/proc/kcore")),
    row("kernel_files.keys", |_| content("/proc/keys")),
    row("kernel_files.timers", |_| content("/proc/timer_list")),
    row("kernel_files.interrupts", |_| content("/proc/interrupts")),
    row("kernel_files.log", |_| content("/proc/kmsg")),
    row("kernel_files.sysfs", |_| entries("/sys")),
    row("kernel_files.devices", devices),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

/// `AT_FDCWD` as a register.
const AT_CWD: i64 = libc::AT_FDCWD as i64;

fn read_bait(scene: &Scene, path: PathBuf) -> Seen {
    match fs::read_to_string(path) {
        Ok(text) => Seen::open_if(text.contains(&scene.aims.secret), "another file"),
        Err(error) => Seen::refused(errno(&error)),
    }
}

/// What this process has open beyond its terminal, with what it is.
pub(super) fn inherited() -> Vec<String> {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let named = numbers.filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?.display().to_string();
        // The directory that is being read is among them.
        let own = target.starts_with("/proc/") && target.ends_with("/fd");
        (number > 2 && !own).then(|| format!("{number}={target}"))
    });
    named.collect()
}

/// Files by number instead of by path, which would be any file of the file system that the workspace is on.
fn by_handle(_: &Scene) -> Seen {
    let Ok(dir) = File::open(".") else { return Seen::Unclear("the working directory cannot be opened".to_owned()) };
    let dir = i64::from(dir.as_raw_fd());
    // A handle of eight bytes (inode 2, the root of most file systems) of type 1.
    let mut handle = [0_u8; 16];
    handle[0] = 8;
    handle[4] = 1;
    handle[8] = 2;
    let opened = call(libc::SYS_open_by_handle_at, [Arg::Number(dir), Arg::In(&handle), Arg::Number(0)]);
    match opened {
        // A handle that is not one: whoever may ask is told so, and has come through.
        Err(Errno::ESTALE) => Seen::open(),
        other => Seen::of(other),
    }
}

fn make_in(dir: &str) -> Seen {
    let path = Path::new(dir).join(format!(".canary-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    if made.is_ok() {
        let _gone = fs::remove_file(&path);
    }
    Seen::of_io(made)
}

fn link_to_system(_: &Scene) -> Seen {
    let linked = fs::hard_link("/etc/passwd", "canary-link");
    let _gone = fs::remove_file("canary-link");
    Seen::of_io(linked)
}

/// `/dev/mem`, if it could be.
fn make_device(_: &Scene) -> Seen {
    let made = mknod("canary-device", SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 1));
    let _gone = fs::remove_file("canary-device");
    Seen::of(made)
}

fn mount_tmpfs(_: &Scene) -> Seen {
    let Ok(here) = std::env::current_dir() else { return Seen::Unclear("no working directory".to_owned()) };
    let mounted = mount(Some("tmpfs"), &here, Some("tmpfs"), MsFlags::empty(), None::<&str>);
    if mounted.is_ok() {
        let _gone = umount2(&here, MntFlags::MNT_DETACH);
    }
    Seen::of(mounted)
}

fn make_set_user_id(_: &Scene) -> Seen {
    let file = match File::options().create(true).write(true).truncate(true).mode(0o700).open("canary-program") {
        Ok(file) => file,
        Err(error) => return Seen::Unclear(error.to_string()),
    };
    let set = file.set_permissions(fs::Permissions::from_mode(0o4755));
    let mode = file.metadata().map_or(0, |found| found.mode());
    let _gone = fs::remove_file("canary-program");
    match set {
        Ok(()) => Seen::open_if(mode & 0o4000 != 0, "ignored"),
        Err(error) => Seen::refused(errno(&error)),
    }
}

fn is_null_device(file: &File) -> bool {
    let Ok(found) = file.metadata() else { return false };
    found.file_type().is_char_device() && (libc::major(found.rdev()), libc::minor(found.rdev())) == (1, 3)
}

/// Writes to a setting what is in it.
fn rewrite(path: &str) -> Seen {
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(error) => return Seen::refused(errno(&error)).absent_if_missing(),
    };
    match OpenOptions::new().write(true).open(path) {
        Ok(file) if is_null_device(&file) => Seen::held("masked"),
        Ok(mut file) => Seen::of_io(file.write_all(&old)),
        Err(error) => Seen::refused(errno(&error)),
    }
}

/// Nothing is written: to have it open is enough.
fn opened_for_writing(path: &str) -> Seen {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => Seen::open_if(!is_null_device(&file), "masked"),
        Err(error) => Seen::refused(errno(&error)).absent_if_missing(),
    }
}

fn content(path: &str) -> Seen {
    let mut buffer = [0_u8; 64];
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match open.and_then(|mut file| file.read(&mut buffer)) {
        Ok(0) => Seen::held("empty"),
        Ok(_) => Seen::open(),
        // There is something, only not now.
        Err(error) if errno(&error) == Errno::EAGAIN => Seen::open(),
        Err(error) => Seen::refused(errno(&error)).absent_if_missing(),
    }
}

fn entries(path: &str) -> Seen {
    match fs::read_dir(path) {
        Ok(mut all) => Seen::open_if(all.next().is_some(), "empty"),
        Err(error) => Seen::refused(errno(&error)),
    }
}

fn devices(_: &Scene) -> Seen {
    let paths = [
        "/dev/mem",
        "/dev/kmsg",
        "/dev/console",
        "/dev/tty0",
        "/dev/ttyS0",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/net/tun",
        "/dev/loop-control",
        "/dev/vsock",
    ];
    let open = |path: &str| {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    Seen::worst(paths.map(|path| Seen::of_io(open(path)).with(path)))
}
