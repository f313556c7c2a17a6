//! Stopping every session of this machine, through the supervisor, saying how many there are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agentapi_shared::api::STOP_GRACE_MS;
use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

/// Beyond the grace period: the time to kill what did not end, and to write down how it ended, on a busy machine.
const AFTER_GRACE_SECONDS_MAX: Duration = Duration::from_secs(30);
/// A line is a few dozen bytes.
const LINE_BYTES_MAX: usize = 4096;

/// What `agentapi-supervisor stop-all` says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Sessions { sessions: u64 },
    Stopped { stopped: u64 },
}

/// Where the supervisor is that knows the sessions.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    /// The program.
    pub(crate) supervisor: PathBuf,
    /// Its state dir.
    pub(crate) state_dir: PathBuf,
}

impl Sessions {
    /// Stops all of them. `force` hurries: what has not ended then is killed.
    pub(crate) async fn stop(&self, force: &CancellationToken, say: impl Fn(String)) -> anyhow::Result<()> {
        let grace = Duration::from_millis(STOP_GRACE_MS);
        let gentle = self.run(grace, &say, true);
        tokio::pin!(gentle);
        tokio::select! {
            ended = &mut gentle => return ended,
            () = force.cancelled() => say("killing what still runs".to_owned()),
        }
        // The gentle one is read on: it is what counts the sessions down.
        let (hard, gentle) = tokio::join!(self.run(Duration::ZERO, &say, false), gentle);
        hard.and(gentle)
    }

    async fn run(&self, grace: Duration, say: &impl Fn(String), tell: bool) -> anyhow::Result<()> {
        let work = async {
            let mut child = self.start(grace)?;
            let stdout = child.stdout.take().context("stop-all has no stdout")?;
            let mut lines = FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
            let mut done = false;
            while let Some(line) = lines.next().await {
                let said: Said = serde_json::from_str(&line?).context("stop-all said what nobody understands")?;
                let words = match said {
                    Said::Sessions { sessions: 0 } => "no sessions to stop".to_owned(),
                    Said::Sessions { sessions } => format!("stopping {}", count(sessions)),
                    Said::Stopped { stopped } => {
                        done = true;
                        format!("stopped {}", count(stopped))
                    }
                };
                // Of none there is nothing more to say.
                if tell && !matches!(said, Said::Stopped { stopped: 0 }) {
                    say(words);
                }
            }
            let status = child.wait().await?;
            if !status.success() || !done {
                bail!("`agentapi-supervisor stop-all` did not stop them ({status})");
            }
            Ok(())
        };
        tokio::time::timeout(grace + AFTER_GRACE_SECONDS_MAX, work)
            .await
            .unwrap_or_else(|_| bail!("they still run after {:?}", grace + AFTER_GRACE_SECONDS_MAX))
    }

    fn start(&self, grace: Duration) -> anyhow::Result<Child> {
        let words = stop_all_arguments(&self.state_dir, grace);
        Command::new(&self.supervisor)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Out of the terminal's group: the second Ctrl-C is for us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.supervisor.display()))
    }
}

fn stop_all_arguments(state_dir: &Path, grace: Duration) -> [OsString; 5] {
    let grace_ms = grace.as_millis().to_string();
    ["stop-all".into(), "--state-dir".into(), state_dir.into(), "--grace-ms".into(), grace_ms.into()]
}

/// `1 session`, `3 sessions`.
pub(crate) fn count(sessions: u64) -> String {
    if sessions == 1 { "1 session".to_owned() } else { format!("{sessions} sessions") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::tests::write_program;
    use std::cell::RefCell;

    fn sessions(script: &str) -> Sessions {
        let dir = std::env::temp_dir().join(format!("agentapi-stop-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let supervisor = dir.join("supervisor");
        write_program(&supervisor, &format!("#!/bin/sh\n{script}\n"));
        Sessions { supervisor, state_dir: dir }
    }

    #[tokio::test]
    async fn it_says_how_many() {
        let sessions = sessions(r#"echo '{"sessions":2}'; echo '{"stopped":2}'"#);
        let said = RefCell::new(Vec::new());
        sessions.stop(&CancellationToken::new(), |words| said.borrow_mut().push(words)).await.unwrap();
        assert_eq!(said.take(), ["stopping 2 sessions", "stopped 2 sessions"]);
        std::fs::remove_dir_all(sessions.state_dir).unwrap();
    }

    #[tokio::test]
    async fn force_asks_again_without_grace() {
        // The gentle one ends only once the hard one came by.
        let sessions = sessions(
            r#"cd "$3"; mkfifo hurry 2>/dev/null
            if [ "$5" = 0 ]; then echo x > hurry; echo '{"sessions":1}'; else echo '{"sessions":1}'; read x < hurry; fi
            echo '{"stopped":1}'"#,
        );
        let said = RefCell::new(Vec::new());
        let force = CancellationToken::new();
        let hurry = force.clone();
        let say = |words: String| {
            if words.starts_with("stopping") {
                hurry.cancel();
            }
            said.borrow_mut().push(words);
        };
        sessions.stop(&force, say).await.unwrap();
        assert_eq!(said.take(), ["stopping 1 session", "killing what still runs", "stopped 1 session"]);
        std::fs::remove_dir_all(sessions.state_dir).unwrap();
    }

    #[tokio::test]
    async fn a_supervisor_that_is_not_there_is_an_error() {
        let sessions = sessions("exit 1");
        assert!(sessions.stop(&CancellationToken::new(), drop).await.is_err());
        std::fs::remove_dir_all(sessions.state_dir).unwrap();
    }
}
