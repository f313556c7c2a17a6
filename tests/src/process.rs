//! Processes of a test: where the binaries are, and a child that does not outlive its test.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::wait::{here, soon};

/// Groups whose processes were killed are empty after this long, with much to spare.
const GROUPS_PATIENCE: Duration = Duration::from_secs(20);

/// What machines that run tests may lack of the sandbox, as a variable of the supervisor: what the shipped settings allow, control groups, disks of
/// sessions, and ids of their own, which an ordinary user cannot give.
pub const LOCAL_DEGRADED: (&str, &str) = (
    "AGENTAPI_SUPERVISOR_ALLOW_DEGRADED",
    "cgroup-hybrid,no-cgroup,no-disk-quota,one-uid,landlock-abi-1,landlock-abi-2,landlock-abi-3,landlock-abi-4,landlock-abi-5",
);

/// A binary of this workspace, as the build that made this test made it.
///
/// # Panics
/// If it is not there: `cargo build --workspace --all-targets` comes first.
#[must_use]
#[expect(clippy::expect_used, reason = "a test without its binaries is no test")]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let dir = test.ancestors().nth(2).expect("target/debug/deps/test");
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --all-targets` first", path.display());
    path
}

/// A process of this machine, as it was a moment ago.
#[derive(Debug, Clone)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: i32,
    /// Its real user.
    pub uid: u32,
    /// Its arguments, joined by spaces.
    pub command: String,
}

impl ProcessInfo {
    /// Whether it has a file or directory below `dir` open.
    #[must_use]
    pub fn holds(&self, dir: &Path) -> bool {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path.starts_with(dir))
    }
}

/// Every process of this machine that is not a zombie.
#[must_use]
pub fn processes() -> Vec<ProcessInfo> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?)
            .replace('\0', " ")
            .trim_end()
            .to_owned();
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())?;
        (!command.is_empty()).then_some(ProcessInfo { pid, uid, command })
    })
    .collect()
}

/// A running program whose standard output is read line by line. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

/// Of a log that explains an end.
const LAST_LINES: usize = 10;

impl Daemon {
    /// Starts it, its log going to `log`.
    pub fn start(mut command: std::process::Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = Command::from(command).kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().context("standard output")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines(), log: log.to_owned() })
    }

    /// The next line it prints.
    pub async fn line(&mut self) -> Result<String> {
        if let Some(line) = soon("a line of the daemon", self.lines.next_line()).await? {
            return Ok(line);
        }
        // The test's directory is gone before anybody could look.
        let (status, log) = (self.ended().await?, std::fs::read_to_string(&self.log)?);
        let last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        bail!("the daemon ended: {status}; its log, the last line first:\n{}", last.join("\n"))
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has been waited for.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a defect of the test")]
    pub fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("a running child")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal)?)
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<std::process::ExitStatus> {
        Ok(soon("the end of the daemon", self.child.wait()).await?)
    }
}

/// The control groups of a supervisor, one in each hierarchy.
#[must_use]
pub fn groups(state_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(dir) = std::fs::metadata(state_dir) {
        let name = format!("agentapi-{:x}-{:x}", dir.dev(), dir.ino());
        find_dirs(Path::new("/sys/fs/cgroup"), &name, 6, &mut found);
    }
    found
}

/// Ends what is left in the control groups of a supervisor that is gone, or about to go, and removes them: one that is killed leaves them, and
/// another test would meet them under the number of its own directory.
///
/// # Panics
/// If they stay.
#[expect(clippy::disallowed_methods, reason = "a fact is looked for until a deadline, where something is dropped")]
pub fn remove_groups(state_dir: &Path) {
    let trees = groups(state_dir);
    for tree in &trees {
        // Groups of v1 have no such file; whoever is in them is in one of v2 as well.
        let _killed = std::fs::write(tree.join("cgroup.kill"), "1");
    }
    let deadline = Instant::now() + here(GROUPS_PATIENCE);
    while !trees.iter().all(|tree| remove_tree(tree)) {
        if Instant::now() >= deadline {
            assert!(std::thread::panicking(), "control groups stay: {trees:?}");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a group and all below it are gone: one with processes stays.
fn remove_tree(tree: &Path) -> bool {
    let below = std::fs::read_dir(tree).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    let _removed = std::fs::remove_dir(tree);
    !tree.exists()
}

/// Directories of this name, at most so deep.
pub fn find_dirs(dir: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_dirs(&entry.path(), name, depth - 1, found);
        }
    }
}

/// Files below a directory that loop devices of this machine show.
#[must_use]
pub fn loop_files(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = all.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.map(PathBuf::from).filter(|file| file.starts_with(dir)).collect()
}

/// Ends what outlives a supervisor that is gone: shims, found by the directories that they hold open, and the gateway, by its socket's path.
pub fn kill_survivors(state_dir: &Path) {
    let path = state_dir.display().to_string();
    let is_gateway =
        |process: &ProcessInfo| process.command.contains("agentapi-egress") && process.command.contains(&path);
    for process in processes().into_iter().filter(|process| process.holds(state_dir) || is_gateway(process)) {
        let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL);
    }
}
