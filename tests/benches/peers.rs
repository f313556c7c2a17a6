//! tmux as a peer: a server of our own on a socket of our own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// A detached tmux server; ended when dropped.
#[derive(Debug)]
pub(crate) struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// Starts it with one session that runs `command` in `dir`.
    pub(crate) fn start(dir: &Path, command: &[&str]) -> Result<Self> {
        let tmux = Self { socket: dir.join("tmux.sock") };
        let status = tmux
            .command()
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "--"])
            .args(command)
            .current_dir(dir)
            .status()?;
        ensure!(status.success(), "tmux did not start: {status}");
        Ok(tmux)
    }

    /// What `tmux -V` says.
    pub(crate) fn version() -> Result<String> {
        Ok(String::from_utf8(Command::new("tmux").arg("-V").output()?.stdout)?.trim().to_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).env_remove("TMUX").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ended = self.command().arg("kill-server").status();
    }
}
