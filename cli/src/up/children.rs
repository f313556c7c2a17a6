//! Keeps one daemon running: starts it, reads its ready line, starts it again when it dies, stops it when asked.
//!
//! Everything runs on the main thread, because the daemons ask the kernel to end with the *thread* that started them.
//! A daemon that dies again and again is given up, with the end of its log as the reason.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agentapi_shared::runtime::{OnEnd, TaskGroup};
use anyhow::Context as _;
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

use crate::failure::{ExitKind, Failure};
use crate::output::clean_lines;

/// A daemon that says nothing for this long after its start is killed and counts as dead.
const READY_SECONDS_MAX: Duration = Duration::from_secs(30);
/// A daemon that ran this long was well: its earlier deaths are forgotten.
const STEADY_SECONDS: Duration = Duration::from_secs(30);
/// Deaths in a row before it is given up when it never was ready: a wrong setting does not get better.
const DEATHS_BEFORE_READY_MAX: u32 = 3;
/// Deaths in a row before it is given up when it was ready before: about half a minute of trying.
const DEATHS_MAX: u32 = 8;
/// The first pause before a restart; it doubles with each death.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Time a daemon gets to end by itself: longer than its own phases of ending.
const STOP_SECONDS_MAX: Duration = Duration::from_secs(15);
/// A ready line is a few dozen bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// A log that is larger at a start is put aside, so that logs stay within twice this.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of a log's end is shown.
const TAIL_LINES: usize = 15;

/// Arguments, given the last ready line.
pub(crate) type Arguments = Box<dyn Fn(Option<&Value>) -> Vec<OsString> + Send + Sync>;

/// What to run. Arguments may depend on what the daemon said when it was last ready: a port chosen once is kept.
pub(crate) struct DaemonPlan {
    /// Its word in messages and log names.
    pub(crate) name: &'static str,
    /// The executable.
    pub(crate) program: PathBuf,
    /// Its arguments, given the last ready line.
    pub(crate) arguments: Arguments,
    /// Variables of ours that begin so are not its business.
    pub(crate) withheld: Option<&'static str>,
    /// Where its stderr goes.
    pub(crate) log: PathBuf,
}

impl fmt::Debug for DaemonPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonPlan").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a daemon is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DaemonStatus {
    /// Its process, while it has one.
    pub(crate) pid: Option<u32>,
    /// What it said when it was ready; none while it is not.
    pub(crate) ready: Option<Value>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Why it was given up.
    pub(crate) failed: Option<String>,
    /// It was stopped or given up, and no process is left.
    pub(crate) ended: bool,
}

/// A daemon that is kept running.
#[derive(Debug)]
pub(crate) struct Daemon {
    status: watch::Receiver<DaemonStatus>,
    stop: CancellationToken,
}

impl Daemon {
    /// Starts it, once the one it comes `after` is ready, and keeps it running until [`Self::stop`].
    pub(crate) fn keep_running(plan: DaemonPlan, after: Option<&Self>, group: &TaskGroup) -> Self {
        let (status, watched) = watch::channel(DaemonStatus::default());
        let stop = CancellationToken::new();
        let keeper = Keeper { plan, status, stop: stop.clone(), last_ready: None };
        let before = after.map(Self::status);
        group.spawn("daemon", OnEnd::Continue, keeper.run(before));
        Self { status: watched, stop }
    }

    /// How it is doing now, and a way to see that change.
    pub(crate) fn status(&self) -> watch::Receiver<DaemonStatus> {
        self.status.clone()
    }

    /// Waits until it serves, and returns what it said.
    pub(crate) async fn ready(&self) -> Result<Value, Failure> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| status.ready.is_some() || status.ended).await;
        let settled = settled.map(|status| status.clone()).unwrap_or_default();
        match settled {
            DaemonStatus { ready: Some(ready), .. } => Ok(ready),
            other => Err(given_up(&other)),
        }
    }

    /// Resolves when it is given up.
    pub(crate) async fn failed(&self) -> Failure {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.failed.is_some()).await {
            Ok(status) => given_up(&status),
            // The keeper ended without a failure: it was stopped, and this future is of no interest any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut status = self.status.clone();
        // An error means that the keeper is gone, and its process with it (`kill_on_drop`).
        let _gone = status.wait_for(|status| status.ended).await.map(drop);
    }
}

fn given_up(status: &DaemonStatus) -> Failure {
    Failure::new(ExitKind::Failure, status.failed.clone().unwrap_or_else(|| "it was stopped".to_owned()))
}

/// How one run of a daemon ended.
enum Ended {
    Stopped,
    Died(String),
}

struct Keeper {
    plan: DaemonPlan,
    status: watch::Sender<DaemonStatus>,
    stop: CancellationToken,
    last_ready: Option<Value>,
}

impl Keeper {
    async fn run(mut self, before: Option<watch::Receiver<DaemonStatus>>) {
        if self.may_start(before).await {
            self.keep_running().await;
        }
        self.status.send_modify(|status| (status.pid, status.ready, status.ended) = (None, None, true));
    }

    /// Waits for the daemon that comes first; false: this one is to stop before it ran.
    async fn may_start(&self, before: Option<watch::Receiver<DaemonStatus>>) -> bool {
        let Some(mut before) = before else { return true };
        tokio::select! {
            ready = before.wait_for(|status| status.ready.is_some()) => ready.is_ok(),
            () = self.stop.cancelled() => false,
        }
    }

    async fn keep_running(&mut self) {
        let mut deaths: u32 = 0;
        loop {
            let started = Instant::now();
            let log_start = self.open_log_end();
            let how = match self.run_once().await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Died(how)) => how,
                Err(error) => format!("{error:#}"),
            };
            self.status.send_modify(|status| (status.pid, status.ready) = (None, None));
            deaths = if started.elapsed() >= STEADY_SECONDS { 1 } else { deaths + 1 };
            let deaths_max = if self.last_ready.is_some() { DEATHS_MAX } else { DEATHS_BEFORE_READY_MAX };
            if deaths >= deaths_max {
                let words = format!("{} {how}, {deaths} times in a row{}", self.plan.name, self.tail(log_start));
                self.status.send_modify(|status| status.failed = Some(words));
                break;
            }
            let pause = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.saturating_pow(deaths - 1));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
            self.status.send_modify(|status| status.restarts += 1);
        }
    }

    /// One run, from start to end.
    async fn run_once(&mut self) -> anyhow::Result<Ended> {
        let mut child = self.start()?;
        self.status.send_modify(|status| status.pid = child.id());
        let stdout = child.stdout.take().context("the daemon has no stdout")?;
        let mut lines = FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
        let deadline = tokio::time::sleep(READY_SECONDS_MAX);
        tokio::pin!(deadline);
        let (mut open, mut ready) = (true, false);
        loop {
            tokio::select! {
                line = lines.next(), if open => match line {
                    Some(Ok(line)) if !ready => ready = self.read_ready(&line),
                    // Nothing more is promised; it is read so that a daemon that does write is not stopped by a full pipe.
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => open = false,
                },
                exit = child.wait() => return Ok(Ended::Died(format!("ended ({})", exit.context("wait")?))),
                () = &mut deadline, if !ready => {
                    end(&mut child).await;
                    return Ok(Ended::Died(format!("was not ready after {READY_SECONDS_MAX:?}")));
                }
                () = self.stop.cancelled() => {
                    end(&mut child).await;
                    return Ok(Ended::Stopped);
                }
            }
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.plan.log)
            .with_context(|| format!("cannot open {}", self.plan.log.display()))?;
        let mut command = Command::new(&self.plan.program);
        command
            .args((self.plan.arguments)(self.last_ready.as_ref()))
            .args(["--exit-with-parent", &std::process::id().to_string()])
            // The token of whoever started us is not the daemons' business, nor that of the agents they start.
            .env_remove("AGENTAPI_TOKEN")
            .env_remove("AGENTAPI_URL")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            // Ctrl-C goes to the group of the terminal: it is ours to answer, in our order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(prefix) = self.plan.withheld {
            let ours = std::env::vars_os().map(|(name, _)| name);
            for name in ours.filter(|name| name.to_str().is_some_and(|name| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        command.spawn().with_context(|| format!("cannot be started ({})", self.plan.program.display()))
    }

    fn read_ready(&mut self, line: &str) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return false };
        if value.get("ready").is_none() {
            return false;
        }
        self.last_ready = Some(value.clone());
        self.status.send_modify(|status| status.ready = Some(value));
        true
    }

    /// Puts a log aside that has grown too large, and says where this run's lines will start.
    fn open_log_end(&self) -> u64 {
        let length = std::fs::metadata(&self.plan.log).map(|found| found.len()).unwrap_or(0);
        if length <= LOG_BYTES_MAX {
            return length;
        }
        let aside = self.plan.log.with_extension("log.1");
        if std::fs::rename(&self.plan.log, aside).is_ok() { 0 } else { length }
    }

    fn tail(&self, from: u64) -> String {
        let lines = tail(&self.plan.log, from);
        if lines.is_empty() {
            String::new()
        } else {
            format!(". Its log ({}) ends with:\n{lines}", self.plan.log.display())
        }
    }
}

/// The last lines of a log after an offset.
pub(crate) fn tail(log: &Path, from: u64) -> String {
    let Ok(bytes) = std::fs::read(log) else { return String::new() };
    let from = usize::try_from(from).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[from..]);
    let lines: Vec<&str> = text.lines().collect();
    clean_lines(&lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// Asks a process to end, and kills it if it does not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended this moment; then waiting tells.
        let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_SECONDS_MAX, child.wait()).await.is_err() {
        // `kill` waits too; it fails only for a process that is gone.
        let _gone = child.kill().await;
    }
}

#[cfg(test)]
mod tests;
