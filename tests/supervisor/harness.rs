//! A supervisor under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentapi_shared::SessionId;
use agentapi_tests::dir::TempDir;
use agentapi_tests::plane::{Link, Plane};
use agentapi_tests::process::{Daemon, LOCAL_DEGRADED, ProcessInfo, binary, kill_survivors, processes, remove_groups};
use anyhow::{Context as _, Result};
use nix::unistd::Pid;

/// Credit for much more than any test sends.
pub(crate) const NO_LIMIT: u64 = 1 << 40;

/// A supervisor with a directory and a control plane of its own.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) plane: Plane,
    credential: PathBuf,
    /// What may be missing of the sandbox.
    pub(crate) allowed: &'static str,
    /// Further arguments of the supervisor.
    pub(crate) arguments: Vec<String>,
    /// What its machine does not have.
    pub(crate) lacks: Option<Lack>,
}

/// What can be taken from a supervisor that is root, in a mount namespace of its own.
#[derive(Clone, Copy)]
pub(crate) enum Lack {
    /// Loop devices.
    LoopDevices,
    /// Room for sessions: its state directory is a small file system.
    Room,
    /// A resolver: no name leads anywhere, and that is known at once.
    Resolver,
}

impl Lack {
    /// The program with everything else as it is, where this is missing.
    fn without(self, program: Command, state_dir: &Path) -> Command {
        let script = match self {
            Self::LoopDevices => "mount --bind /dev/null /dev/loop-control".to_owned(),
            Self::Room => {
                let dir = state_dir.display();
                format!("mkdir -p {dir} && mount -t tmpfs -o size=64m none {dir}")
            }
            Self::Resolver => {
                // This host's own loopback: whoever listens there knows of no `.invalid` either.
                let file = state_dir.with_file_name("resolv.conf");
                let file = file.display();
                format!(
                    "printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' >{file} && mount --bind {file} /etc/resolv.conf"
                )
            }
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")]);
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }
}

impl Host {
    pub(crate) async fn new() -> Result<Self> {
        let dir = TempDir::new();
        let (plane, credential) = Plane::listen(dir.path()).await?;
        std::fs::create_dir(dir.path().join("work"))?;
        Ok(Self { dir, plane, credential, allowed: LOCAL_DEGRADED.1, arguments: Vec::new(), lacks: None })
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn session_dir(&self, session: SessionId) -> PathBuf {
        self.state_dir().join("sessions").join(session.to_string())
    }

    /// The shim of a session. Init has the same name, and nothing of the host open.
    pub(crate) fn shim(&self, session: SessionId) -> Result<Pid> {
        let dir = self.session_dir(session);
        let is_shim = |process: &ProcessInfo| process.command == "agentapi-shim" && process.holds(&dir);
        Ok(Pid::from_raw(processes().into_iter().find(is_shim).context("the shim")?.pid))
    }

    /// The directory below which workspaces may lie.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Starts the supervisor; how many sessions it adopted.
    pub(crate) async fn start(&self) -> Result<(Daemon, u64)> {
        let mut command = Command::new(binary("agentapi-supervisor"));
        command.arg("run").arg("--state-dir").arg(self.state_dir()).arg("--credential-file").arg(&self.credential);
        command.arg("--workspace-root").arg(self.root()).env(LOCAL_DEGRADED.0, self.allowed).args(&self.arguments);
        if let Some(lack) = self.lacks {
            command = lack.without(command, &self.state_dir());
        }
        let mut daemon = Daemon::start(command, &self.dir.path().join("supervisor.log"))?;
        let ready: serde_json::Value = serde_json::from_str(&daemon.line().await?)?;
        Ok((daemon, ready["sessions"].as_u64().unwrap_or(u64::MAX)))
    }

    /// Starts it and waits for its link.
    pub(crate) async fn linked(&self) -> Result<(Daemon, Link)> {
        let (daemon, _) = self.start().await?;
        Ok((daemon, self.plane.accept().await?))
    }

    /// Stops every session, so that nothing outlives the test.
    pub(crate) fn stop_all(&self) -> Result<String> {
        let output = Command::new(binary("agentapi-supervisor"))
            .arg("stop-all")
            .arg("--state-dir")
            .arg(self.state_dir())
            .args(["--grace-ms", "0"])
            .output()?;
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Host {
    /// Nothing outlives its test, also when that fails: shims without a supervisor are ended one by one.
    fn drop(&mut self) {
        let stopped = self.stop_all().is_ok_and(|answer| answer.contains("stopped"));
        if !stopped {
            kill_survivors(&self.state_dir());
        }
        remove_groups(&self.state_dir());
    }
}
