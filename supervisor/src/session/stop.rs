//! The end of a spawn on demand. The shim is asked first; what has not ended by then is killed here, past the shim: nothing that runs inside can
//! hold a stop up.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use agentapi_shared::SpawnState;
use agentapi_shared::link::CommandResult;
use agentapi_shared::shim::ShimRequest;
use tokio::time::Instant;
use tracing::warn;

use super::{Answer, Session, blocking, internal};
use crate::cgroup::Cgroups;
use crate::files::SpawnRecord;
use crate::sys;

/// After the grace period the shim has this long to end its session itself.
const KILL_MARGIN: Duration = Duration::from_secs(2);
/// The same where there is no grace: it takes milliseconds.
const FORCE_MARGIN: Duration = Duration::from_millis(500);
/// A shim reads at once; the request to one that does not is given up, and its session is killed from here.
const ASK_PATIENCE: Duration = Duration::from_millis(250);

impl Session {
    pub(super) async fn stop(&mut self, spawn: u32, generation: u64, grace_ms: u64, force: bool) -> Answer {
        self.raise_generation(generation).map_err(internal)?;
        let Some(live) = self.live.as_mut().filter(|live| live.record.number == spawn) else {
            return Ok(CommandResult::Done);
        };
        let patience = if force { FORCE_MARGIN } else { Duration::from_millis(grace_ms) + KILL_MARGIN };
        let kill_at = Instant::now() + patience;
        live.kill_at = Some(live.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        // If the shim is gone already, its end is about to be heard.
        let request = ShimRequest::Stop { grace_ms, force };
        let _sent = tokio::time::timeout(ASK_PATIENCE, live.shim.send(&request)).await;
        live.state = SpawnState::Stopping;
        self.report().await;
        Ok(CommandResult::Done)
    }

    /// Kills what the living spawn runs. Its end is heard from the shim, which is not touched.
    pub(super) async fn kill_work(&mut self) {
        let Some(live) = &mut self.live else { return };
        live.kill_at = None;
        let (cgroups, session, record) = (self.context.cgroups.clone(), self.id, live.record.clone());
        warn!(session.id = %session, spawn = record.number, "a spawn has not ended in time, it is killed");
        let boot_id = self.context.boot_id.clone();
        if let Err(error) = blocking(move || kill(&cgroups, session, &record, &boot_id)).await {
            warn!(session.id = %session, %error, "a spawn could not be killed");
        }
    }
}

fn kill(cgroups: &Cgroups, session: agentapi_shared::SessionId, record: &SpawnRecord, boot_id: &str) -> io::Result<()> {
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

/// When a process began, in ticks since boot.
pub(super) fn began(pid: i32) -> Option<u64> {
    /// Fields of `/proc/PID/stat` between the name, in parentheses, and this.
    const FIELDS_BEFORE: usize = 19;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(FIELDS_BEFORE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn without_groups_init_is_killed_and_whoever_has_its_pid_later_is_not() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
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
