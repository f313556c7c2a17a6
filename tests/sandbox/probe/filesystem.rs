//! Attempts on files: other people's, the system's, the kernel's.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use agentapi_tests::attempt::Params;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, setresgid, setresuid};

use crate::outcome::{Row, Seen, errno};
use crate::sys::{at, at_mut, c, call};

/// The attempt that looks at what the probe was born with.
pub(crate) const INHERITED: &str = "fs.inherited_descriptors";

pub(crate) const ROWS: &[Row] = &[
    Row { number: 1, name: "fs.foreign_files", make: foreign_files },
    Row { number: 2, name: "fs.dotdot", make: dotdot },
    Row { number: 2, name: "fs.chroot", make: |_| Seen::of(chroot("/tmp")) },
    Row { number: 3, name: "fs.root_of_init", make: root_of_init },
    Row { number: 5, name: INHERITED, make: |_| judge_inherited(&open_descriptors()) },
    Row { number: 6, name: "fs.file_handles", make: file_handles },
    Row { number: 7, name: "fs.make_in_usr", make: |_| make_in("/usr") },
    Row { number: 7, name: "fs.make_in_etc", make: |_| make_in("/etc") },
    Row { number: 7, name: "fs.make_in_root", make: |_| make_in("/") },
    Row { number: 7, name: "fs.make_in_dev", make: |_| make_in("/dev") },
    Row {
        number: 7,
        name: "fs.write_passwd",
        make: |_| Seen::of_io(OpenOptions::new().append(true).open("/etc/passwd")),
    },
    Row { number: 7, name: "fs.write_read_only_dir", make: write_read_only_dir },
    Row { number: 8, name: "fs.remount_root", make: remount_root },
    Row { number: 8, name: "fs.unmount_mask", make: |_| Seen::of(umount2("/proc/sys", MntFlags::MNT_DETACH)) },
    Row { number: 8, name: "fs.bind_over_mask", make: bind_over_mask },
    Row { number: 8, name: "fs.mount_tmpfs", make: mount_tmpfs },
    Row { number: 8, name: "fs.mount_new_api", make: mount_new_api },
    Row { number: 8, name: "fs.mount_setattr", make: mount_setattr },
    Row { number: 9, name: "fs.mknod_char", make: |params| mknod(params, libc::S_IFCHR, 1, 1) },
    Row { number: 9, name: "fs.mknod_block", make: |params| mknod(params, libc::S_IFBLK, 7, 0) },
    Row { number: 10, name: "fs.set_user_id", make: |params| gain(params, "set-user-id") },
    Row { number: 10, name: "fs.file_capabilities", make: |params| gain(params, "file-capabilities") },
    Row { number: 10, name: "fs.make_set_user_id", make: make_set_user_id },
    Row { number: 11, name: "fs.hard_link", make: hard_link },
    Row { number: 12, name: "fs.rename_across", make: rename_across },
    Row { number: 13, name: "fs.truncate_read_only", make: truncate_read_only },
    Row { number: 13, name: "fs.flags_of_read_only", make: flags_of_read_only },
    Row { number: 13, name: "fs.device_ioctl", make: device_ioctl },
    Row { number: 14, name: "fs.program_of_init", make: program_of_init },
    Row { number: 15, name: "fs.core_pattern", make: |_| rewrite("/proc/sys/kernel/core_pattern") },
    Row { number: 15, name: "fs.sysctl", make: |_| rewrite("/proc/sys/vm/overcommit_memory") },
    Row { number: 15, name: "fs.sysrq", make: sysrq },
    Row { number: 16, name: "fs.device_nodes", make: device_nodes },
];

fn has_secret(path: &Path, params: &Params) -> Result<bool, Errno> {
    fs::read_to_string(path).map(|text| text.contains(&params.secret)).map_err(|error| errno(&error))
}

fn read_secret(paths: impl IntoIterator<Item = PathBuf>, params: &Params) -> Seen {
    Seen::worst(paths.into_iter().map(|path| match has_secret(&path, params) {
        Ok(true) => Seen::open(path.display().to_string()),
        Ok(false) => Seen::held("other").with(path.display().to_string()),
        Err(errno) => Seen::refused(errno),
    }))
}

fn foreign_files(params: &Params) -> Seen {
    read_secret(params.foreign_files.iter().map(PathBuf::from), params)
}

fn dotdot(params: &Params) -> Seen {
    let up = "../".repeat(64);
    let by_path =
        params.foreign_files.iter().map(|path| PathBuf::from(format!("{up}{}", path.trim_start_matches('/'))));
    let seen = read_secret(by_path, params);
    // And step by step, through directories that are held open meanwhile.
    let held: Vec<File> = (0..64).filter_map(|_| chdir("..").ok().and_then(|()| File::open(".").ok())).collect();
    let _back = held.first().map(|dir| call(libc::SYS_fchdir, &[dir.as_raw_fd() as usize]));
    let relative = params.foreign_files.iter().map(|path| PathBuf::from(path.trim_start_matches('/')));
    Seen::worst([read_secret(relative, params), seen])
}

fn init() -> i32 {
    // The probe's attempts are grandchildren of init.
    crate::process::init()
}

fn root_of_init(params: &Params) -> Seen {
    let roots = [format!("/proc/{}/root", init()), format!("/proc/{}/cwd", init())];
    let paths = roots
        .iter()
        .flat_map(|root| params.foreign_files.iter().map(move |path| PathBuf::from(format!("{root}{path}"))));
    let entered = Seen::worst(roots.iter().map(|root| Seen::of_io(fs::read_dir(root))));
    Seen::worst([entered, read_secret(paths, params)])
}

/// Descriptors of this process with what they are.
pub(crate) fn open_descriptors() -> Vec<(i32, String)> {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let named = numbers.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.display().to_string()))
    });
    // The directory that is being read is among them.
    named.filter(|(_, target)| !(target.starts_with("/proc/") && target.ends_with("/fd"))).collect()
}

/// Only the terminal, three times.
pub(crate) fn judge_inherited(open: &[(i32, String)]) -> Seen {
    let foreign: Vec<String> =
        open.iter().filter(|(number, _)| *number > 2).map(|(number, target)| format!("{number}={target}")).collect();
    Seen::open_if(!foreign.is_empty(), "none", foreign.join(" "))
}

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn file_handles(params: &Params) -> Seen {
    let Ok(dir) = File::open(&params.workspace) else { return Seen::held("FAILED") };
    let mount = dir.as_raw_fd() as usize;
    let (mut handle, mut mount_id) = (FileHandle { bytes: 128, kind: 0, handle: [0; 128] }, 0_i32);
    let path = c(&params.workspace);
    let at_cwd = libc::AT_FDCWD as usize;
    let known = call(
        libc::SYS_name_to_handle_at,
        &[at_cwd, at(path.to_bytes_with_nul()), at_mut(&mut handle), at_mut(&mut mount_id), 0],
    );
    let mut all = Vec::new();
    if known.is_ok() {
        all.push(Seen::of(call(libc::SYS_open_by_handle_at, &[mount, at(&handle), 0])));
    }
    // By guess: inode numbers from the root of the file system up.
    for inode in 1..64_u32 {
        let mut guess = FileHandle { bytes: 8, kind: 1, handle: [0; 128] };
        guess.handle[..4].copy_from_slice(&inode.to_le_bytes());
        all.push(Seen::of(call(libc::SYS_open_by_handle_at, &[mount, at(&guess), 0])));
    }
    Seen::worst(all)
}

fn make_in(dir: &str) -> Seen {
    let path = Path::new(dir).join(format!(".attempt-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    if made.is_ok() {
        let _gone = fs::remove_file(&path);
    }
    Seen::of_io(made)
}

fn read_only_file(params: &Params, name: &str) -> PathBuf {
    Path::new(&params.read_only_dir).join(name)
}

fn write_read_only_dir(params: &Params) -> Seen {
    let path = read_only_file(params, "fs.write_read_only_dir");
    Seen::of_io(OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"written")))
}

fn remount_root(_: &Params) -> Seen {
    let none: Option<&str> = None;
    Seen::of(mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none))
}

/// What got through is taken back, so that later attempts find things as they were.
fn undone(mounted: Result<(), Errno>, target: &str) -> Seen {
    if mounted.is_ok() {
        let _gone = umount2(target, MntFlags::MNT_DETACH);
    }
    Seen::of(mounted)
}

/// What one jail unmounts, no other and no host misses.
pub(crate) fn unmount_host(_: &Params) -> Seen {
    Seen::of(umount2("/dev/shm", MntFlags::MNT_DETACH))
}

fn bind_over_mask(params: &Params) -> Seen {
    let none: Option<&str> = None;
    undone(mount(Some(params.workspace.as_str()), "/proc/sys", none, MsFlags::MS_BIND, none), "/proc/sys")
}

fn mount_tmpfs(params: &Params) -> Seen {
    let mounted = mount(Some("tmpfs"), params.workspace.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>);
    undone(mounted, &params.workspace)
}

fn mount_new_api(_: &Params) -> Seen {
    let (kind, root) = (c("tmpfs"), c("/"));
    let tree = || {
        call(
            libc::SYS_open_tree,
            &[libc::AT_FDCWD as usize, at(root.to_bytes_with_nul()), libc::OPEN_TREE_CLONE as usize],
        )
    };
    Seen::worst([Seen::of(tree()), Seen::of(call(libc::SYS_fsopen, &[at(kind.to_bytes_with_nul()), 0]))])
}

fn mount_setattr(_: &Params) -> Seen {
    let path = c("/");
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let size = size_of::<libc::mount_attr>();
    Seen::of(call(
        libc::SYS_mount_setattr,
        &[libc::AT_FDCWD as usize, at(path.to_bytes_with_nul()), 0, at(&attributes), size],
    ))
}

fn mknod(params: &Params, kind: u32, major: u32, minor: u32) -> Seen {
    let path = format!("{}/node-{major}-{minor}", params.workspace);
    let name = c(&path);
    let device = libc::makedev(major, minor) as usize;
    let made = call(
        libc::SYS_mknodat,
        &[libc::AT_FDCWD as usize, at(name.to_bytes_with_nul()), (kind | 0o666) as usize, device],
    );
    if made.is_ok() {
        let _gone = fs::remove_file(&path);
    }
    Seen::of(made)
}

/// Becomes an ordinary user, where the control runs as root: only then is there something to gain.
fn be_ordinary() {
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(64_000), Gid::from_raw(64_000));
        let _ids = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
    }
}

fn gain(params: &Params, program: &str) -> Seen {
    be_ordinary();
    let before = geteuid();
    let output = match Command::new(Path::new(&params.workspace).join(program)).arg("whoami").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return Seen::refused(errno(&error)),
    };
    let mut words = output.split_whitespace();
    let same = words.next() == Some(before.to_string().as_str());
    let powerless = words.next().is_some_and(|capabilities| capabilities.bytes().all(|byte| byte == b'0'));
    Seen::open_if(!(same && powerless), "no_gain", output)
}

fn make_set_user_id(params: &Params) -> Seen {
    let path = Path::new(&params.workspace).join("made-set-user-id");
    if let Err(error) = File::create(&path) {
        return Seen::held("FAILED").with(error.to_string());
    }
    let set = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o4755));
    let mode = fs::metadata(&path).map_or(0, |found| found.mode());
    let _gone = fs::remove_file(&path);
    match set {
        Ok(()) => Seen::open_if(mode & 0o4000 != 0, "ignored", format!("{mode:o}")),
        Err(error) => Seen::refused(errno(&error)),
    }
}

fn hard_link(params: &Params) -> Seen {
    let to = Path::new(&params.workspace).join("linked");
    let from = [
        "/etc/passwd".to_owned(),
        "/usr/bin/env".to_owned(),
        read_only_file(params, "fs.hard_link").display().to_string(),
    ];
    let all = from.map(|from| {
        let linked = fs::hard_link(from, &to);
        if linked.is_ok() {
            let _gone = fs::remove_file(&to);
        }
        Seen::of_io(linked)
    });
    Seen::worst(all)
}

fn rename_across(params: &Params) -> Seen {
    let name = format!("moved-{}", std::process::id());
    let (from, to) = (Path::new("/tmp").join(&name), Path::new(&params.workspace).join(&name));
    if let Err(error) = File::create(&from) {
        return Seen::held("FAILED").with(error.to_string());
    }
    let moved = fs::rename(&from, &to);
    let _gone = fs::remove_file(&from).and(fs::remove_file(&to));
    Seen::of_io(moved)
}

fn truncate_read_only(params: &Params) -> Seen {
    let path = read_only_file(params, "fs.truncate_read_only");
    let name = c(&path.display().to_string());
    let by_path = Seen::of(call(libc::SYS_truncate, &[at(name.to_bytes_with_nul()), 0]));
    Seen::worst([by_path, Seen::of_io(OpenOptions::new().write(true).truncate(true).open(&path))])
}

fn flags_of_read_only(params: &Params) -> Seen {
    /// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS`.
    const GET_FLAGS: usize = 0x8008_6601;
    const SET_FLAGS: usize = 0x4008_6602;
    let file = match File::open(read_only_file(params, "fs.flags_of_read_only")) {
        Ok(file) => file,
        Err(error) => return Seen::refused(errno(&error)),
    };
    // No atime, beside those it has: visible, and without consequence.
    let mut flags: libc::c_long = 0;
    let _known = call(libc::SYS_ioctl, &[file.as_raw_fd() as usize, GET_FLAGS, at_mut(&mut flags)]);
    flags |= 0x80;
    Seen::of(call(libc::SYS_ioctl, &[file.as_raw_fd() as usize, SET_FLAGS, at(&flags)]))
}

fn device_ioctl(_: &Params) -> Seen {
    /// `RNDADDTOENTCNT`, here by nothing.
    const ADD_ENTROPY: usize = 0x4004_5201;
    let device = match File::open("/dev/urandom") {
        Ok(device) => device,
        Err(error) => return Seen::refused(errno(&error)),
    };
    let none = 0_i32;
    Seen::of(call(libc::SYS_ioctl, &[device.as_raw_fd() as usize, ADD_ENTROPY, at(&none)]))
}

fn program_of_init(_: &Params) -> Seen {
    let path = format!("/proc/{}/exe", init());
    // Reading it is how one writes it later: through the descriptor, once the program is not running.
    Seen::worst([Seen::of_io(OpenOptions::new().append(true).open(&path)), Seen::of_io(File::open(&path))])
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
    let file = OpenOptions::new().write(true).open(path);
    if file.as_ref().is_ok_and(is_null_device) {
        return Seen::held("masked");
    }
    Seen::of_io(file.and_then(|mut file| file.write_all(&old)))
}

fn sysrq(_: &Params) -> Seen {
    let file = match OpenOptions::new().write(true).open("/proc/sysrq-trigger") {
        Ok(file) if is_null_device(&file) => return Seen::held("masked"),
        Ok(file) => file,
        Err(error) => return Seen::refused(errno(&error)).absent_if_missing(),
    };
    // "h" prints the list of keys to the kernel's log and does nothing else.
    let mut file = file;
    Seen::of_io(file.write_all(b"h"))
}

/// Whatever lies in workspace and HOME: the devices are the kernel's.
fn device_nodes(params: &Params) -> Seen {
    let wanted = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let _planted = symlink("/dev/full", Path::new(&params.workspace).join("null"));
    let wrong: Vec<String> = wanted
        .iter()
        .filter(|(name, major, minor)| {
            let found = fs::symlink_metadata(format!("/dev/{name}"));
            !found.is_ok_and(|found| {
                found.file_type().is_char_device()
                    && (libc::major(found.rdev()), libc::minor(found.rdev())) == (*major, *minor)
            })
        })
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    let mut bytes = [0; 8];
    let reads_nothing =
        File::open("/dev/null").and_then(|mut file| file.read(&mut bytes)).is_ok_and(|length| length == 0);
    let _gone = fs::remove_file(Path::new(&params.workspace).join("null"));
    Seen::open_if(!wrong.is_empty() || !reads_nothing, "right", wrong.join(" "))
}
