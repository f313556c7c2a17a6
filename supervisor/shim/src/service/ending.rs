//! The end of a spawn: asked for or not, in good time or by force, written down before the shim goes.

use std::io;
use std::time::{Duration, Instant};

use agentapi_shared::shim::{FinalScreen, ShimEvent};
use agentapi_shared::{Exit, ExitReason};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;

use super::Service;
use crate::jail::{InitMessage, ShimMessage};
use crate::parser::KeyframeTaken;

/// After everything in the jail is gone its last output is read for at most this long; the terminal closes by itself long before.
const DRAIN: Duration = Duration::from_secs(2);
/// The last message may take this long to leave; the supervisor reads the records if it does not come.
const FAREWELL: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Somebody asked for it.
    asked: bool,
    /// It was not enough to ask.
    forced: bool,
    /// When asking becomes killing.
    pub(super) kill_at: Option<Instant>,
    /// What init said of the agent: exit code, signal.
    status: Option<(Option<i32>, Option<i32>)>,
    pub(super) init_gone: bool,
    pub(super) terminal_closed: bool,
    pub(super) drain_until: Option<Instant>,
    finishing: bool,
}

impl Service {
    pub(super) fn stop(&mut self, grace_ms: u64, force: bool) {
        if self.ending.init_gone {
            return;
        }
        self.ending.asked = true;
        if force {
            return self.kill();
        }
        let deadline = Instant::now() + Duration::from_millis(grace_ms);
        self.ending.kill_at = Some(self.ending.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        if let Some(lifeline) = &self.lifeline {
            // Init that cannot hear is killed at the deadline.
            let _told = lifeline.send(&ShimMessage::Terminate, &[]);
        }
    }

    /// Ends everything now. Init ends when its lifeline does, and nothing inside can keep it from that; with a pid namespace its end is everyone's,
    /// without one it kills what is left first. A signal could not be sent: we may be of another user than init, and of none with rights.
    fn kill(&mut self) {
        self.ending.kill_at = None;
        self.ending.forced = true;
        self.lifeline = None;
    }

    pub(super) fn hear_init(&mut self) {
        let Some(lifeline) = &mut self.lifeline else { return };
        match lifeline.receive::<InitMessage>() {
            Ok(Some((InitMessage::Ended { code, signal }, _))) => self.ending.status = Some((code, signal)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => self.lifeline = None,
        }
    }

    /// Deadlines, and the steps of the end that are due.
    pub(super) fn pass_time(&mut self, init_gone: bool) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.held_until.is_some_and(|until| until <= now) {
            self.release_held();
        }
        if self.ending.kill_at.is_some_and(|at| at <= now) {
            self.kill();
        }
        if init_gone && !self.ending.init_gone {
            while self.lifeline.is_some() {
                self.hear_init();
            }
            let _status = waitpid(self.init, None);
            self.ending.init_gone = true;
            self.ending.kill_at = None;
            self.ending.drain_until = Some(now + DRAIN);
        }
        let drained = self.ending.terminal_closed || self.ending.drain_until.is_some_and(|until| until <= now);
        if self.ending.init_gone && drained && !self.ending.finishing {
            self.ending.finishing = true;
            self.ending.drain_until = None;
            self.ending.terminal_closed = true;
            self.abandon_input();
            self.settle_echo();
            self.parser.finish();
        }
    }

    /// Writes everything down and says good-bye.
    pub(super) fn conclude(&mut self, screen: &FinalScreen, keyframe: &KeyframeTaken) -> io::Result<()> {
        let exit = self.exit();
        self.output.sync();
        self.records.write(&exit, screen, keyframe)?;
        self.release_held();
        self.send(&ShimEvent::Exited { offset: self.output.ring.end(), exit });
        if let Some(connection) = &mut self.connection {
            connection.finish(FAREWELL);
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        let (code, number) = self.ending.status.unwrap_or((None, None));
        let signal = number.or((code.is_none()).then_some(libc::SIGKILL));
        let signal = signal
            .map(|number| Signal::try_from(number).map_or_else(|_| format!("SIG{number}"), |s| s.as_str().to_owned()));
        let how = match (code, &signal) {
            (Some(code), _) => format!("with exit code {code}"),
            (None, Some(signal)) => format!("by {signal}"),
            (None, None) => String::new(),
        };
        let (reason, detail) = match (self.ending.asked, self.ending.forced) {
            (true, true) => (ExitReason::Killed, "killed on request".to_owned()),
            (true, false) => (ExitReason::Stopped, format!("stopped on request, {how}")),
            (false, _) if code.is_some() => (ExitReason::Exited, format!("the program ended {how}")),
            (false, _) => (ExitReason::Signaled, format!("the program was ended {how}")),
        };
        Exit { code, signal, reason, detail }
    }
}
