//! The end of a spawn on demand. The shim is asked first; what has not ended by then is killed here, past the shim: nothing that runs inside can
//! hold a stop up.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::link::{Command, CommandResult, HostMessage};
use agentapi_shared::shim::ShimRequest;
use agentapi_shared::{SessionId, SpawnState};
use tokio::time::Instant;
use tracing::warn;

use super::inbox::{Busy, Inbox};
use super::{Answer, Session, blocking, internal};
use crate::cgroup::Cgroups;
use crate::context::Context;
use crate::files::{SessionFiles, SpawnRecord};
use crate::proc::began;
use crate::sys;

/// After the grace period the shim has this long to end its session itself.
const KILL_MARGIN: Duration = Duration::from_secs(2);
/// The same where there is no grace: it takes milliseconds.
const FORCE_MARGIN: Duration = Duration::from_millis(500);
/// A shim reads at once; the request to one that does not is given up, and its session is killed from here.
const ASK_PATIENCE: Duration = Duration::from_millis(250);

/// A stop that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    grace_ms: u64,
    force: bool,
    /// When what has not ended by itself is killed.
    pub(super) kill_at: Instant,
}

impl Stop {
    pub(super) fn new(grace_ms: u64, force: bool) -> Self {
        let patience = if force { FORCE_MARGIN } else { Duration::from_millis(grace_ms) + KILL_MARGIN };
        Self { grace_ms, force, kill_at: Instant::now() + patience }
    }
}

impl Session {
    pub(super) async fn stop(&mut self, spawn: u32, generation: u64, stop: Stop) -> Answer {
        self.raise_generation(generation).map_err(internal)?;
        if let Some(starting) = self.starting.as_mut().filter(|starting| starting.record.number == spawn) {
            // Asked for once there is somebody to ask; until then the first to be due is the one that counts.
            let earlier = starting.stop.filter(|earlier| earlier.kill_at <= stop.kill_at);
            starting.stop = Some(earlier.unwrap_or(stop));
            let record = starting.record.clone();
            let stopping = self.report_of(&record, SpawnState::Stopping);
            self.view.send_modify(|view| view.newest = Some(stopping.clone()));
            self.context.link.send(&HostMessage::Report(stopping)).await;
        } else if self.live.as_ref().is_some_and(|live| live.record.number == spawn) {
            self.stop_live(stop).await;
        }
        Ok(CommandResult::Done)
    }

    /// Asks the living spawn to end.
    pub(super) async fn stop_live(&mut self, stop: Stop) {
        let Some(live) = &mut self.live else { return };
        let Stop { grace_ms, force, kill_at } = stop;
        live.kill_at = Some(live.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        // If the shim is gone already, its end is about to be heard.
        let request = ShimRequest::Stop { grace_ms, force };
        let _sent = tokio::time::timeout(ASK_PATIENCE, live.shim.send(&request)).await;
        live.state = SpawnState::Stopping;
        self.report().await;
    }

    /// When what was asked to stop is killed from here.
    pub(super) fn kill_at(&self) -> Option<Instant> {
        let start = self.starting.as_ref().filter(|starting| !starting.abort.is_aborted());
        let start = start.and_then(|starting| starting.stop).map(|stop| stop.kill_at);
        start.or(self.live.as_ref().and_then(|live| live.kill_at))
    }

    /// Ends what has not ended in time.
    pub(super) async fn overdue(&mut self) {
        match &self.starting {
            Some(starting) => {
                warn!(session.id = %self.id, spawn = starting.record.number, "a spawn that has not started in time is given up");
                starting.abort.abort();
            }
            None => self.kill_work().await,
        }
    }

    /// Kills what the living spawn runs. Its end is heard from the shim, which is not touched.
    async fn kill_work(&mut self) {
        let Some(live) = &mut self.live else { return };
        live.kill_at = None;
        kill_spawn(&self.context, self.id, live.record.clone()).await;
    }
}

async fn kill_spawn(context: &Context, session: SessionId, record: SpawnRecord) {
    warn!(session.id = %session, spawn = record.number, "a spawn has not ended in time, it is killed");
    let (cgroups, boot_id) = (context.cgroups.clone(), context.boot_id.clone());
    if let Err(error) = blocking(move || kill(&cgroups, session, &record, &boot_id)).await {
        warn!(session.id = %session, %error, "a spawn could not be killed");
    }
}

/// What a session whose spawn is still being adopted is asked: everything waits, but for a stop.
pub(super) struct Adopting {
    context: Arc<Context>,
    id: SessionId,
    files: SessionFiles,
    /// The newest stop, to be done again in full once the spawn is adopted.
    stop: Option<(u32, u64, Stop)>,
    kill_at: Option<Instant>,
}

impl Adopting {
    pub(super) fn new(session: &Session) -> Self {
        let (context, id, files) = (Arc::clone(&session.context), session.id, session.files.clone());
        Self { context, id, files, stop: None, kill_at: None }
    }

    /// Takes stops for ever; may be dropped at any await.
    pub(super) async fn hear(&mut self, inbox: &mut Inbox) {
        loop {
            let kill_at = self.kill_at;
            let overdue = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = overdue => self.kill().await,
                asked = inbox.next(Busy::Yes) => match asked {
                    Some((Command::Stop { spawn, generation, grace_ms, force }, answer)) => {
                        let stop = Stop::new(grace_ms, force);
                        self.kill_at = Some(self.kill_at.map_or(stop.kill_at, |earlier| earlier.min(stop.kill_at)));
                        self.stop = Some((spawn, generation, stop));
                        // Whoever asked may have given up.
                        let _told = answer.send(Ok(CommandResult::Done));
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// What was not done yet.
    pub(super) fn stop(self) -> Option<(u32, u64, Stop)> {
        self.stop
    }

    async fn kill(&mut self) {
        // The groups are the session's: a spawn that has been replaced is none to kill by them.
        let newest = self.files.spawns().ok().and_then(|mut spawns| spawns.pop());
        let wanted = self.stop.map(|(spawn, ..)| spawn).filter(|spawn| Some(*spawn) == newest);
        if let Some(record) = wanted.and_then(|spawn| self.files.spawn(spawn).record().ok()) {
            kill_spawn(&self.context, self.id, record).await;
        }
        self.kill_at = None;
    }
}

fn kill(cgroups: &Cgroups, session: SessionId, record: &SpawnRecord, boot_id: &str) -> io::Result<()> {
    if cgroups.kill_work(session).map_err(io::Error::other)? {
        return Ok(());
    }
    if record.boot_id == boot_id { kill_init(record.init_pid, record.init_began) } else { Ok(()) }
}

/// Kills the first process of a jail, and with it, by the kernel, all others. Nothing if that process is over.
fn kill_init(pid: Option<i32>, since: Option<u64>) -> io::Result<()> {
    let (Some(pid), Some(since)) = (pid, since) else { return Ok(()) };
    let process = match sys::pidfd_open(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => other?,
    };
    // After it was opened: if it is the one now, the descriptor is of that one.
    if began(pid) == Some(since) { sys::pidfd_kill(process.as_fd()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn without_groups_init_is_killed_and_whoever_has_its_pid_later_is_not() {
        let mut child = Process::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let since = began(pid).unwrap();
        kill_init(Some(pid), Some(since - 1)).unwrap();
        kill_init(Some(pid), None).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        kill_init(Some(pid), Some(since)).unwrap();
        assert!(!child.wait().unwrap().success());
        kill_init(Some(pid), Some(since)).unwrap();
    }
}
