//! What is laid out for one batch of attempts, and whether anything of it was taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agentapi_tests::attempt::Params;
use agentapi_tests::wait::slowness;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use std::os::fd::AsFd;

use crate::scene::{CREDENTIAL, DISK, MEMORY, PIDS, Scene};
use crate::world::{HOST_NAME, open_to_all};

/// What bait files say.
const SECRET: &str = "secret-of-the-host-7a1f";
/// Attempts that write files which are only to be read.
const WRITTEN: [&str; 4] = ["fs.write_read_only_dir", "fs.hard_link", "fs.truncate_read_only", "fs.flags_of_read_only"];
/// Attempts that have a process of the host as their aim.
const AIMED: [&str; 4] = ["proc.see_host", "proc.signal_host", "proc.trace_host", "proc.setns_host"];
/// Bytes of /tmp in the jails of these tests: small enough to be filled.
pub(crate) const TMP_BYTES: u64 = 16 << 20;
/// Key of the System V objects.
const SYSV_KEY: i32 = 0x0a77_e409;

/// See the module.
pub(crate) struct Bait {
    pub(crate) params: Params,
    processes: BTreeMap<String, Child>,
    /// Makes and holds the System V objects, the queue and the key.
    holder: Child,
    terminals: Vec<(OwnedFd, OwnedFd)>,
    shared: [PathBuf; 2],
}

impl Bait {
    /// Lays it out. `foreign` are files and sockets of another session.
    pub(crate) fn lay(scene: &Scene, label: &str, foreign: &[PathBuf], sockets: &[PathBuf]) -> Result<Self> {
        let dir = scene.dir.path();
        let other = dir.join("other");
        fs::create_dir_all(&other)?;
        fs::write(other.join("secret"), SECRET)?;
        for name in WRITTEN {
            let path = dir.join("read-only").join(name);
            fs::write(&path, SECRET)?;
            open_to_all(&path)?;
        }
        let socket = dir.join("host.sock");
        if !socket.exists() {
            scene.world.listen_at(&socket)?;
        }
        let shared = ["/tmp", "/dev/shm"]
            .map(|parent| Path::new(parent).join(format!("attempts-{label}-{}", std::process::id())));
        for place in &shared {
            fs::create_dir_all(place)?;
            fs::write(place.join("secret"), format!("{SECRET}\n{CREDENTIAL}\n-----BEGIN PRIVATE KEY-----\n"))?;
        }
        let processes =
            AIMED.map(|name| Ok((name.to_owned(), idle(dir)?))).into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let terminals =
            (0..3).map(|_| openpty(None, None).map(|pty| (pty.master, pty.slave))).collect::<Result<Vec<_>, _>>()?;
        let queue = format!("attempts-{label}");
        let (holder, key_serial) = hold(dir, &queue)?;
        let mut foreign_files: Vec<String> = vec![other.join("secret").display().to_string()];
        foreign_files.extend(foreign.iter().map(|path| path.display().to_string()));
        let mut unix_sockets = vec![socket.display().to_string()];
        unix_sockets.extend(sockets.iter().map(|path| path.display().to_string()));
        let params = Params {
            secret: SECRET.to_owned(),
            foreign_files,
            read_only_dir: dir.join("read-only").display().to_string(),
            host_pids: processes
                .iter()
                .filter_map(|(name, child)| Some((name.clone(), i32::try_from(child.id()).ok()?)))
                .collect(),
            addresses: scene.world.addresses.clone(),
            abstract_socket: scene.world.abstract_socket.clone(),
            unix_sockets,
            sysv_key: SYSV_KEY,
            message_queue: queue,
            key_serial,
            shared_files: shared.iter().map(|place| place.join("secret").display().to_string()).collect(),
            host_terminals: terminals
                .iter()
                .filter_map(|(_, slave)| nix::unistd::ttyname(slave).ok())
                .map(|path| path.display().to_string())
                .collect(),
            host_name: HOST_NAME.to_owned(),
            credential: CREDENTIAL.to_owned(),
            pids_max: PIDS,
            memory_max: MEMORY,
            tmp_bytes: TMP_BYTES,
            disk_bytes: DISK,
            slowness: slowness(),
            ..Params::default()
        };
        Ok(Self { params, processes, holder, terminals, shared })
    }

    /// Names of attempts that left a mark outside, whatever they say themselves.
    pub(crate) fn taken(&mut self, scene: &Scene) -> BTreeSet<String> {
        let mut taken = scene.world.heard.take();
        for (name, child) in &mut self.processes {
            if !matches!(child.try_wait(), Ok(None)) {
                taken.insert(name.clone());
            }
        }
        for name in WRITTEN {
            let path = scene.dir.path().join("read-only").join(name);
            let links = fs::metadata(&path).map_or(0, |found| std::os::unix::fs::MetadataExt::nlink(&found));
            if links != 1 || fs::read_to_string(path).ok().as_deref() != Some(SECRET) {
                taken.insert(name.to_owned());
            }
        }
        if self.terminals.iter().any(|(master, _)| has_bytes(master)) {
            taken.insert("tty.of_others".to_owned());
        }
        taken
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        for child in self.processes.values_mut().chain([&mut self.holder]) {
            // The holder takes its objects with it when its input ends.
            drop(child.stdin.take());
            if !ends_by_itself(child) {
                let _gone = child.kill();
            }
            let _status = child.wait();
        }
        for place in &self.shared {
            let _gone = fs::remove_dir_all(place);
        }
    }
}

/// Whether a child ends now that its input has.
fn ends_by_itself(child: &mut Child) -> bool {
    // Reads of a closed pipe return at once; a child that an attempt stopped would never get there.
    for _ in 0..100 {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        let _moment = poll(&mut [], PollTimeout::from(20_u8));
    }
    false
}

fn has_bytes(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn probe(dir: &Path) -> Command {
    let mut command = Command::new(dir.join("tools/sandbox-probe"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn idle(dir: &Path) -> Result<Child> {
    Ok(probe(dir).args(["act", "idle", SECRET, CREDENTIAL]).spawn()?)
}

fn hold(dir: &Path, queue: &str) -> Result<(Child, i32)> {
    let mut child = probe(dir).args(["act", "hold", &SYSV_KEY.to_string(), queue, SECRET]).spawn()?;
    let stdout = child.stdout.take().context("output of the holder")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let serial = line.trim().parse().with_context(|| format!("the holder said {line:?}"))?;
    Ok((child, serial))
}
