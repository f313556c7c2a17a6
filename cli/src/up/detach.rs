//! `up --detach`: the same program again, in a session of its own, and a wait until it says that it is ready or why not.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::process::Command;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::ready::{Announcement, show};
use super::{UpPlan, Voice, children, run};
use crate::failure::{self, ExitKind, Failure};
use crate::output;

/// A line is a url, or the words of a failure with the end of a log.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Starts it and returns once it is ready.
pub(super) async fn launch(plan: &UpPlan) -> anyhow::Result<()> {
    plan.data.create()?;
    let log_path = plan.data.log("up");
    let log_start = std::fs::metadata(&log_path).map(|found| found.len()).unwrap_or(0);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path)?;
    let mut command = Command::new(std::env::current_exe().context("cannot tell where this program lies")?);
    command
        .args(["up", "--background", "--listen", &plan.args.listen, "--data-dir"])
        .arg(plan.data.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log));
    for root in &plan.roots {
        command.arg("--workspace-root").arg(root);
    }
    for (flag, given) in [("--keep-sessions", plan.args.keep_sessions), ("--unsafe-no-jail", plan.args.unsafe_no_jail)]
    {
        if given {
            command.arg(flag);
        }
    }
    let mut child = command.spawn().context("cannot start the background process")?;
    let stdout = child.stdout.take().context("the background process has no stdout")?;
    let mut lines = FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    match lines.next().await {
        Some(Ok(line)) => {
            match serde_json::from_str(&line).context("the background process said what nobody understands")? {
                ready @ Announcement::Ready { .. } => {
                    output::note(&format!("running in the background; its log is {}", log_path.display()));
                    show(&ready, plan.json)
                }
                Announcement::Failed { code, failed } => {
                    output::note(&format!("agentapi: {failed}"));
                    Err(Failure::silent(code).into())
                }
            }
        }
        _ => {
            let words = children::tail(&log_path, log_start);
            Err(Failure::new(ExitKind::Failure, format!("the background process ended:\n{words}")).into())
        }
    }
}

/// What the background process does.
pub(super) async fn in_background(plan: &UpPlan) -> anyhow::Result<()> {
    // Away from the terminal, so that neither its end nor its Ctrl-C is ours.
    nix::unistd::setsid().context("cannot leave the terminal")?;
    let ended = run(plan, &Voice::Background).await;
    if let Err(error) = &ended {
        let (code, words) = failure::describe(error);
        let failed = words.unwrap_or_default();
        // Nobody reads this any more if it was ready before; the log has the words too.
        output::line(&serde_json::to_string(&Announcement::Failed { code, failed })?);
    }
    ended
}
