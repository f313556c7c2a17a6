//! A machine of a test's own: a data directory and the `agentapi` command for it.

use std::path::PathBuf;
use std::process::{Command, Output};

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{binary, kill_survivors, remove_groups};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A data directory, its daemons stopped at the end.
pub(crate) struct Machine {
    dir: TempDir,
    data: PathBuf,
}

impl Machine {
    pub(crate) fn new() -> Result<Self> {
        Self::with_data_dir("data")
    }

    /// The same with its data directory at a path below the machine's own.
    pub(crate) fn with_data_dir(path: &str) -> Result<Self> {
        let dir = TempDir::new();
        std::fs::create_dir(dir.path().join("work"))?;
        let data = dir.path().join(path);
        Ok(Self { dir, data })
    }

    pub(crate) fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// The directory that `up` is started in, and so the workspace root.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The command with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("agentapi"));
        command.args(args).env("AGENTAPI_DATA_DIR", &self.data).current_dir(self.work());
        command.env_remove("AGENTAPI_URL").env_remove("AGENTAPI_TOKEN").env_remove("DISPLAY");
        command
    }

    /// Runs the command, which must succeed; its standard output.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!("agentapi {}: {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs the command, whatever comes of it.
    pub(crate) fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().context("agentapi runs")
    }

    /// Runs it and reads its standard output as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(args)?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Starts everything in the background; the URL and the login link that it prints.
    pub(crate) fn up(&self, args: &[&str]) -> Result<(String, String)> {
        let mut all = vec!["up", "--detach", "--listen", "127.0.0.1:0"];
        all.extend(args);
        let text = self.run(&all)?;
        let line = |start: &str| {
            text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned).with_context(|| text.clone())
        };
        Ok((line("ready: ")?, line("log in: ")?))
    }
}

impl Drop for Machine {
    /// Nothing outlives its test.
    fn drop(&mut self) {
        let _ended = self.output(&["down"]);
        kill_survivors(&self.data);
        remove_groups(&self.data.join("supervisor"));
    }
}
