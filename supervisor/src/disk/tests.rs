//! Real images on real devices: as root they must work, and nobody else is asked.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::tools::Tool;
use super::*;

/// Large enough for more than one group of blocks.
const BYTES: u64 = 192 * 1024 * 1024;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("agentapi-disk-{}", agentapi_shared::SessionId::generate()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn image(&self) -> PathBuf {
        let image = self.0.join("disk.img");
        Disk::make(&image, BYTES, Some(4711), &Abort::default()).unwrap();
        image
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Loop devices that show a file below a directory.
fn devices(dir: &Path) -> usize {
    let all = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = all.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file).starts_with(dir)).count()
}

#[test]
fn a_disk_is_capped_kept_and_gone_with_its_descriptor() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let image = dir.image();
    let made = fs::metadata(&image).unwrap();
    assert_eq!((made.len(), made.mode() & 0o777, made.gid()), (BYTES, 0o600, 4711));
    assert!(made.blocks() * 512 < 4 << 20, "{} blocks of an empty image", made.blocks());
    let disk = Disk::open(&image, &Abort::default()).unwrap();
    assert_eq!(devices(&dir.0), 1);
    // In no table of mounts: not even in ours.
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - ext4 /dev/loop"));
    fs::write(disk.root().join("kept"), "kept").unwrap();
    fs::write(disk.root().join("large"), vec![1; 32 << 20]).unwrap();
    drop(disk);
    // The next one waits until the first is gone, and does not join it.
    let disk = Disk::open(&image, &Abort::default()).unwrap();
    assert_eq!(devices(&dir.0), 1);
    assert_eq!(fs::read_to_string(disk.root().join("kept")).unwrap(), "kept");
    let full = fs::metadata(&image).unwrap().blocks() * 512;
    fs::remove_file(disk.root().join("large")).unwrap();
    // With the next commit of its journal.
    nix::unistd::syncfs(File::open(disk.root()).unwrap()).unwrap();
    drop(disk);
    drop(Disk::open(&image, &Abort::default()).unwrap());
    let after = fs::metadata(&image).unwrap().blocks() * 512;
    assert!(full > 32 << 20 && after < 20 << 20, "{full} bytes, then {after}");
}

#[test]
fn no_image_has_two_devices() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let image = dir.image();
    let first = Disk::open(&image, &Abort::default()).unwrap();
    let other = File::options().read(true).write(true).open(&image).unwrap();
    assert!(!lock(&other, Duration::from_millis(50), &Abort::default()).unwrap());
    // The one who has waited in vain does not get it later, behind everybody's back.
    drop(other);
    let waiting = std::thread::spawn(move || Disk::open(&image, &Abort::default()));
    assert_eq!(devices(&dir.0), 1);
    assert!(!waiting.is_finished());
    drop(first);
    let second = waiting.join().unwrap().unwrap();
    assert_eq!(devices(&dir.0), 1);
    drop(second);
}

/// Names the image that another test wants to have a tool on.
const TOOL_ON: &str = "TOOL_ON_IMAGE";

#[test]
fn the_part_of_the_next_test_that_is_killed() {
    let Some(image) = std::env::var_os(TOOL_ON).map(PathBuf::from) else { return };
    let locked = File::open(&image).unwrap();
    locked.lock().unwrap();
    let script = "touch \"$0.began\" && exec cat \"$0.end\"";
    let tool = Tool { name: "sh", seconds_max: "100", options: &["-c", script] };
    let _never = tools::run(tool, Image { path: &image, locked: &locked }, &Abort::default());
}

#[test]
fn a_tool_keeps_the_lock_when_whoever_started_it_is_killed() {
    let dir = Dir::new();
    let at = |name: &str| dir.0.join(name);
    fs::write(at("disk"), "").unwrap();
    // Opened for reading, it blocks until somebody writes.
    nix::unistd::mkfifo(&at("disk.end"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let part = ["--exact", "disk::tests::the_part_of_the_next_test_that_is_killed"];
    let mut starter =
        Command::new(std::env::current_exe().unwrap()).args(part).env(TOOL_ON, at("disk")).spawn().unwrap();
    let deadline = std::time::Instant::now() + HELD_SECONDS_MAX;
    while !at("disk.began").exists() {
        assert!(starter.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    starter.kill().unwrap();
    starter.wait().unwrap();
    let next = File::open(at("disk")).unwrap();
    assert!(!lock(&next, Duration::from_millis(50), &Abort::default()).unwrap());
    drop(next);
    fs::write(at("disk.end"), "").unwrap();
    assert!(lock(&File::open(at("disk")).unwrap(), HELD_SECONDS_MAX, &Abort::default()).unwrap());
}

#[test]
fn an_abort_ends_tools_and_waiting_and_lets_nothing_begin() {
    let dir = Dir::new();
    let path = dir.0.join("disk");
    let holder = File::create(&path).unwrap();
    holder.lock().unwrap();
    let (at, began) = (path, std::time::Instant::now());
    let long = |abort: &Abort| {
        let tool = Tool { name: "sh", seconds_max: "100", options: &["-c", "touch \"$0.began\" && exec sleep 100"] };
        tools::run(tool, Image { path: &at, locked: &holder }, abort)
    };
    let (first, second) = (Abort::default(), Abort::default());
    std::thread::scope(|scope| {
        let tool = scope.spawn(|| long(&first));
        while !at.with_extension("began").exists() {
            assert!(!tool.is_finished() && began.elapsed() < HELD_SECONDS_MAX);
            std::thread::yield_now();
        }
        first.abort();
        assert!(matches!(tool.join().unwrap(), Err(ToolError::Aborted(_))));
        let waiting = scope.spawn(|| lock(&File::open(&at).unwrap(), HELD_SECONDS_MAX * 5, &second));
        second.abort();
        assert!(waiting.join().unwrap().is_err());
        fs::remove_file(at.with_extension("began")).unwrap();
        assert!(matches!(long(&second), Err(ToolError::Aborted(_))));
    });
    assert!(began.elapsed() < HELD_SECONDS_MAX && !at.with_extension("began").exists());
}

#[test]
fn an_abort_ends_a_tool_that_has_lost_the_one_who_watches_its_time() {
    let dir = Dir::new();
    let at = dir.0.join("disk");
    let locked = File::create(&at).unwrap();
    // What timeout(1) does when it is asked to end before it knows of its child.
    let script = "kill -KILL $PPID && touch \"$0.began\" && exec sleep 100";
    let tool = Tool { name: "sh", seconds_max: "100", options: &["-c", script] };
    let (abort, started) = (Abort::default(), std::time::Instant::now());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| tools::run(tool, Image { path: &at, locked: &locked }, &abort));
        while !at.with_extension("began").exists() {
            assert!(!running.is_finished() && started.elapsed() < HELD_SECONDS_MAX);
            std::thread::yield_now();
        }
        abort.abort();
        assert!(matches!(running.join().unwrap(), Err(ToolError::Aborted(_))));
    });
    assert!(started.elapsed() < HELD_SECONDS_MAX);
}

#[test]
fn what_a_crash_of_the_host_leaves_is_mended_first() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let image = dir.image();
    let disk = Disk::open(&image, &Abort::default()).unwrap();
    fs::write(disk.root().join("kept"), "kept").unwrap();
    File::open(disk.root()).unwrap().sync_all().unwrap();
    nix::unistd::syncfs(File::open(disk.root()).unwrap()).unwrap();
    // As it is on the disk while it is used: what a host that loses power finds.
    let crashed = dir.0.join("crashed.img");
    fs::copy(&image, &crashed).unwrap();
    drop(disk);
    let disk = Disk::open(&crashed, &Abort::default()).unwrap();
    assert_eq!(fs::read_to_string(disk.root().join("kept")).unwrap(), "kept");
    drop(disk);
    // As the kernel notes that it has found something wrong.
    let file = File::open(&crashed).unwrap();
    assert!(lock(&file, HELD_SECONDS_MAX, &Abort::default()).unwrap() && is_clean(&file).unwrap());
    let noted = Command::new("debugfs").args(["-w", "-R", "set_super_value state 2"]).arg(&crashed).output().unwrap();
    assert!(noted.status.success() && !is_clean(&file).unwrap());
    drop(file);
    drop(Disk::open(&crashed, &Abort::default()).unwrap());
    let file = File::open(&crashed).unwrap();
    assert!(lock(&file, HELD_SECONDS_MAX, &Abort::default()).unwrap() && is_clean(&file).unwrap());
    drop(file);
    // What is no file system any more is refused, and not made anew.
    fs::write(&crashed, vec![0; 1 << 20]).unwrap();
    assert!(matches!(Disk::open(&crashed, &Abort::default()), Err(DiskError::Tool(ToolError::Failed { .. }))));
}

#[test]
fn the_probe_finds_what_root_can_do_and_leaves_nothing() {
    let dir = Dir::new();
    let found = probe(&dir.0);
    assert_eq!(found.is_ok(), is_root(), "{found:?}");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
    assert_eq!(devices(&dir.0), 0);
}
