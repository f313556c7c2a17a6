//! `agentapi up`: runs control plane and supervisor on this machine, each a process of its own, and ends them in order.
//!
//! Sessions are not its children: they live in shims of their own. They are stopped when `up` ends because it was asked to, and are left alone
//! when it fails, is killed, or is told to keep them.

pub(crate) mod children;
pub(crate) mod control;
mod detach;
pub(crate) mod lock;
mod plans;
pub(crate) mod preflight;
mod ready;
mod remote;
mod stop;

use std::path::PathBuf;
use std::time::Duration;

use agentapi_shared::runtime::TaskGroup;
use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::children::Daemon;
use self::control::{Ending, View, Wish};
use self::lock::Locked;
use self::plans::{controlplane_plan, supervisor_plan};
use self::preflight::Programs;
use self::stop::Sessions;
use crate::args::{GlobalArgs, UpArgs};
use crate::config::{self, Environment};
use crate::datadir::DataDir;
use crate::failure::{ExitKind, Failure};
use crate::output;

pub(crate) use remote::{down, status};

/// Time for those who asked for the end to be told of it.
const FAREWELL_SECONDS_MAX: Duration = Duration::from_secs(2);

/// What to run, with every path made absolute.
#[derive(Debug, Clone)]
struct UpPlan {
    args: UpArgs,
    data: DataDir,
    roots: Vec<PathBuf>,
    json: bool,
}

impl UpPlan {
    fn new(args: &UpArgs, global: &GlobalArgs, env: &Environment) -> anyhow::Result<Self> {
        let data = DataDir::new(config::data_dir(global, env)?);
        Ok(Self { args: args.clone(), data, roots: workspace_roots(&args.workspace_roots)?, json: global.json })
    }
}

/// The roots as the kernel sees them; the current directory if none is given.
pub(crate) fn workspace_roots(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let current = [PathBuf::from(".")];
    let roots = if given.is_empty() { &current[..] } else { given };
    roots
        .iter()
        .map(|root| {
            let real = std::fs::canonicalize(root)
                .and_then(|real| if real.is_dir() { Ok(real) } else { Err(std::io::Error::other("not a directory")) });
            real.with_context(|| format!("workspace root {}", root.display()))
        })
        .collect()
}

/// Runs it, in the foreground or in the background.
pub(crate) async fn up(args: &UpArgs, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let plan = UpPlan::new(args, global, env)?;
    if args.background {
        return detach::in_background(&plan).await;
    }
    if args.detach {
        return detach::launch(&plan).await;
    }
    run(&plan, &Voice::Terminal { json: plan.json }).await
}

/// Where `up` speaks.
#[derive(Debug, Clone, Copy)]
enum Voice {
    /// To whoever started it.
    Terminal { json: bool },
    /// To the log; only that it is ready, or failed, goes to the process that waits for that.
    Background,
}

impl Voice {
    fn say(self, words: &str) {
        match self {
            Self::Terminal { json: false } => output::line(words),
            Self::Terminal { json: true } | Self::Background => output::note(words),
        }
    }
}

/// The two daemons.
struct Daemons {
    controlplane: Daemon,
    supervisor: Daemon,
}

async fn run(plan: &UpPlan, voice: &Voice) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    plan.data.create()?;
    let lock = match lock::lock(&plan.data)? {
        Locked::Ours(lock) => lock,
        Locked::Held { pid } => return Err(already_running(plan, pid).into()),
    };
    let programs = Programs::beside_us()?;
    tokio::select! {
        checked = preflight::check(&programs, &plan.roots, plan.args.unsafe_no_jail) => checked?,
        _wish = signals.next() => return Ok(()),
    }
    let group = TaskGroup::new();
    let daemons = start(plan, &programs, &group);
    let (ending, watched) = watch::channel(Ending::default());
    let view =
        View { controlplane: daemons.controlplane.status(), supervisor: daemons.supervisor.status(), ending: watched };
    let mut wishes = control::serve(&plan.data, view, &group)?;
    let asked = tokio::select! {
        failure = serve(plan, &daemons, voice) => Err(failure),
        wish = signals.next() => Ok(wish),
        Some(wish) = wishes.recv() => Ok(wish),
    };
    let say = |words: String| {
        voice.say(&words);
        ending.send_modify(|ending| ending.lines.push(words));
    };
    let result = match asked {
        Ok(wish) => {
            let sessions = Sessions { supervisor: programs.supervisor, state_dir: plan.data.supervisor() };
            let keep = wish.keep_sessions || plan.args.keep_sessions;
            let force = CancellationToken::new();
            hurry_on(wish, &force);
            let work = wind_down(&daemons, (!keep).then_some(&sessions), &force, &say);
            until_ended(work, &force, &mut signals, &mut wishes).await
        }
        Err(failure) => {
            // What failed is not the sessions' fault: they run on, and the next `up` finds them.
            daemons.supervisor.stop().await;
            daemons.controlplane.stop().await;
            Err(failure)
        }
    };
    // Free before anyone is told that it is over, so that `agentapi down && agentapi up` never meets itself.
    drop(lock);
    let failed = result.as_ref().err().map(|error| format!("{error:#}"));
    ending.send_modify(|ending| ending.ended = Some(failed));
    group.shutdown();
    group.drain(FAREWELL_SECONDS_MAX).await;
    result
}

fn already_running(plan: &UpPlan, pid: Option<i32>) -> Failure {
    let pid = pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
    let url =
        config::local_server(plan.data.root()).map_or_else(|_| String::new(), |server| format!(" at {}", server.url));
    Failure::new(
        ExitKind::Conflict,
        format!(
            "already running{url} (data dir {}{pid}). `agentapi open` makes a login link, `agentapi down` ends it",
            plan.data.root().display()
        ),
    )
}

fn start(plan: &UpPlan, programs: &Programs, group: &TaskGroup) -> Daemons {
    let controlplane = Daemon::keep_running(controlplane_plan(plan, programs), None, group);
    // After the control plane: the first start of that makes the credential that the supervisor needs.
    let supervisor = Daemon::keep_running(supervisor_plan(plan, programs), Some(&controlplane), group);
    Daemons { controlplane, supervisor }
}

/// Brings everything up, says so, and returns only when a daemon is given up.
async fn serve(plan: &UpPlan, daemons: &Daemons, voice: &Voice) -> anyhow::Error {
    let up = async {
        daemons.controlplane.ready().await?;
        daemons.supervisor.ready().await?;
        let ready = daemons.controlplane.status().borrow().ready.clone();
        let url = ready.and_then(|ready| ready["ready"].as_str().map(str::to_owned));
        ready::announce(plan, url, voice).await
    };
    if let Err(error) = up.await {
        return error;
    }
    tokio::select! {
        failure = daemons.controlplane.failed() => failure.into(),
        failure = daemons.supervisor.failed() => failure.into(),
    }
}

/// Sessions, then supervisor, then control plane: each can still report to the next.
async fn wind_down(
    daemons: &Daemons,
    sessions: Option<&Sessions>,
    force: &CancellationToken,
    say: &impl Fn(String),
) -> anyhow::Result<()> {
    let supervisor_ready = daemons.supervisor.status().borrow().ready.is_some();
    let stopped = match sessions {
        Some(sessions) if supervisor_ready => sessions.stop(force, say).await.context("cannot stop the sessions"),
        Some(_) => {
            say("the supervisor does not run: sessions, if there are any, run on".to_owned());
            Ok(())
        }
        None => {
            say("sessions run on; the next `agentapi up` finds them".to_owned());
            Ok(())
        }
    };
    daemons.supervisor.stop().await;
    say("stopped the supervisor".to_owned());
    daemons.controlplane.stop().await;
    say("stopped the control plane".to_owned());
    stopped
}

/// Waits for the end. Whoever asks again meanwhile is in a hurry.
async fn until_ended(
    work: impl Future<Output = anyhow::Result<()>>,
    force: &CancellationToken,
    signals: &mut Signals,
    wishes: &mut mpsc::Receiver<Wish>,
) -> anyhow::Result<()> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _wish = signals.next() => force.cancel(),
            Some(wish) = wishes.recv() => hurry_on(wish, force),
        }
    }
}

fn hurry_on(wish: Wish, force: &CancellationToken) {
    if wish.force {
        force.cancel();
    }
}

/// The signals that ask `up` to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        let keep_sessions = tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => false,
            // The terminal was closed, which is not the same as asking for an end of the work in it.
            _ = self.hangup.recv() => true,
        };
        Wish { keep_sessions, force: false }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a program through another process: while this one forks in another test, its own open file would make the kernel refuse to
    /// run the program ("text file busy").
    pub(crate) fn write_program(path: &std::path::Path, text: &str) {
        let script = "printf %s \"$1\" > \"$0\" && chmod 700 \"$0\"";
        let written = std::process::Command::new("sh").args(["-c", script]).arg(path).arg(text).status().unwrap();
        assert!(written.success());
    }

    #[test]
    fn a_root_that_is_no_directory_is_refused() {
        assert!(workspace_roots(&["/etc/passwd".into()]).is_err());
        assert!(workspace_roots(&["/nowhere".into()]).is_err());
        assert_eq!(workspace_roots(&[]).unwrap(), [std::env::current_dir().unwrap()]);
    }
}
