//! A supervisor under test.

use std::path::PathBuf;
use std::process::Command;

use agentapi_tests::dir::TempDir;
use agentapi_tests::plane::{Link, Plane};
use agentapi_tests::process::{Daemon, binary};
use anyhow::Result;

/// A supervisor with a directory and a control plane of its own.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) plane: Plane,
    credential: PathBuf,
}

impl Host {
    pub(crate) async fn new() -> Result<Self> {
        let dir = TempDir::new();
        let (plane, credential) = Plane::listen(dir.path()).await?;
        std::fs::create_dir(dir.path().join("work"))?;
        Ok(Self { dir, plane, credential })
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The directory below which workspaces may lie.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Starts the supervisor; how many sessions it adopted.
    pub(crate) async fn start(&self) -> Result<(Daemon, u64)> {
        let mut command = Command::new(binary("agentapi-supervisor"));
        command.arg("run").arg("--state-dir").arg(self.state_dir()).arg("--credential-file").arg(&self.credential);
        command.arg("--workspace-root").arg(self.root());
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
            kill_shims(&self.state_dir());
        }
    }
}

/// Ends shims whose supervisor is gone, found by the socket's directory that they hold open.
fn kill_shims(state_dir: &std::path::Path) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let holds = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let ours = holds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path.starts_with(state_dir));
        if ours {
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
