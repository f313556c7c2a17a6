//! The shim's loop: one poll over everything it holds.
//!
//! Order of a turn: what the program wrote goes to the ring, to the streams, to the journal, and only then to the screen's thread; an echo is
//! kept from the last two for a moment. Nothing in here blocks, and no timer runs unless a stop has a deadline, the CPU budget is spent, or
//! somebody has just typed.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use agentapi_shared::WindowSize;
use agentapi_shared::link::CommandError;
use agentapi_shared::shim::{ShimEvent, ShimOutcome, ShimStart};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, Uid};
use portable_pty::{MasterPty, PtySize};

use crate::budget::CpuBudget;
use crate::connection::Connection;
use crate::input::Input;
use crate::jail::{Jail, Lifeline};
use crate::output::Output;
use crate::parser::{Parsed, Parser};
use crate::pty::JailMaster;
use crate::records::Records;
use crate::streams::Streams;
use crate::{sys, trusted_peer};

mod ending;
mod newcomers;
mod requests;

use ending::Ending;
use newcomers::Newcomers;

/// Read from the PTY at once; the kernel hands out at most 4 KiB a call, so a full buffer means a busy program.
const READ_BYTES: usize = 64 * 1024;

/// A read that gives less than this has most likely emptied the terminal, and looking again would delay an echo; if not, poll says so.
const MORE_BYTES: usize = 1024;

/// Everything the shim holds.
pub(crate) struct Service {
    start: ShimStart,
    /// Whose connections are taken.
    owner: Uid,
    init: Pid,
    pidfd: OwnedFd,
    lifeline: Option<Lifeline>,
    /// Ports inside and what listens on them, for the egress gateway. Kept for life: with the last descriptor a listener is gone for good.
    egress: Vec<(u16, OwnedFd)>,
    master: JailMaster,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    listener: UnixListener,
    newcomers: Newcomers,
    connection: Option<Connection>,
    streams: Streams,
    output: Output,
    input: Input,
    /// Acknowledgements of typed input that wait for the program's reaction to it, and until when they do.
    held: Vec<ShimEvent>,
    held_until: Option<Instant>,
    /// What most likely is an echo: it is with the viewers, and goes to the journal and the screen when the acknowledgements go.
    echo: Vec<u8>,
    parser: Parser,
    records: Records,
    budget: CpuBudget,
    buffer: Vec<u8>,
    /// Reading pauses because the screen's thread is behind.
    backlogged: bool,
    /// Reading pauses until then because the CPU budget is spent.
    paused_until: Option<Instant>,
    ending: Ending,
}

/// What poll said.
struct Ready {
    listener: bool,
    newcomers: bool,
    connection: bool,
    terminal: bool,
    init_gone: bool,
    told: bool,
    parsed: bool,
}

impl Service {
    pub(crate) fn new(
        start: ShimStart,
        owner: Uid,
        jail: Jail,
        listener: UnixListener,
        output: Output,
        parser: Parser,
        records: Records,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let master = JailMaster::new(jail.master);
        let reader = master.try_clone_reader().map_err(io::Error::other)?;
        let writer = master.take_writer().map_err(io::Error::other)?;
        Ok(Self {
            start,
            owner,
            init: jail.init,
            pidfd: jail.pidfd,
            lifeline: Some(jail.lifeline),
            egress: jail.listeners,
            master,
            reader,
            writer,
            listener,
            newcomers: Newcomers::default(),
            connection: None,
            streams: Streams::default(),
            output,
            input: Input::default(),
            held: Vec::new(),
            held_until: None,
            echo: Vec::new(),
            parser,
            records,
            budget: CpuBudget::new(),
            buffer: vec![0; READ_BYTES],
            backlogged: false,
            paused_until: None,
            ending: Ending::default(),
        })
    }

    /// Serves until everything is over and written down.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.listener {
                self.accept();
            }
            if ready.newcomers {
                self.hear_newcomers();
            }
            if ready.connection {
                self.serve_connection();
            }
            if ready.parsed && self.take_parsed()? {
                return Ok(());
            }
            if ready.terminal {
                self.read_terminal();
            }
            if !self.input.is_empty() {
                self.write_input();
            }
            if ready.told {
                self.hear_init();
            }
            self.pass_time(ready.init_gone);
            self.pump();
        }
    }

    /// Waits for whatever comes next.
    fn wait(&self) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(6);
        for newcomer in self.newcomers.iter() {
            add(&mut fds, Some(newcomer.as_fd()), PollFlags::POLLIN);
        }
        let newcomers = fds.len();
        let listener = add(&mut fds, Some(self.listener.as_fd()), PollFlags::POLLIN);
        let parsed = add(&mut fds, Some(self.parser.done()), PollFlags::POLLIN);
        let connection = add(&mut fds, self.connection.as_ref().map(AsFd::as_fd), self.connection_interest());
        let terminal = add(&mut fds, Some(self.master.as_fd()), self.terminal_interest());
        let told = add(&mut fds, self.lifeline.as_ref().map(AsFd::as_fd), PollFlags::POLLIN);
        let init = add(&mut fds, (!self.ending.init_gone).then(|| self.pidfd.as_fd()), PollFlags::POLLIN);
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is = |slot: Option<usize>| slot.and_then(|slot| fds.get(slot)?.any()).unwrap_or(false);
        Ok(Ready {
            listener: is(listener),
            newcomers: fds.iter().take(newcomers).any(|fd| fd.any() == Some(true)),
            connection: is(connection),
            terminal: is(terminal),
            init_gone: is(init),
            told: is(told),
            parsed: is(parsed),
        })
    }

    fn connection_interest(&self) -> PollFlags {
        let blocked = self.connection.as_ref().is_some_and(|connection| !connection.is_clear());
        if blocked { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// Nothing at all while reading pauses: a hang-up could not be masked, and poll would spin on it.
    fn terminal_interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.ending.terminal_closed {
            return interest;
        }
        interest.set(PollFlags::POLLIN, !self.backlogged && self.paused_until.is_none());
        interest.set(PollFlags::POLLOUT, !self.input.is_empty());
        interest
    }

    /// Until the next deadline, if there is one.
    fn timeout(&self) -> PollTimeout {
        let deadlines = [self.paused_until, self.held_until, self.ending.kill_at, self.ending.drain_until];
        let Some(next) = deadlines.into_iter().flatten().min() else { return PollTimeout::NONE };
        // Rounded up: a timeout that ends a little early would turn once for nothing.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else { return };
        if !trusted_peer(&socket, self.owner) {
            crate::log("a connection of another user was refused");
            return;
        }
        self.newcomers.push(socket);
    }

    /// Reads up to one buffer and passes it on, viewers first.
    fn read_terminal(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => self.ending.terminal_closed = true,
                Ok(count) => {
                    filled += count;
                    if count >= MORE_BYTES {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // EIO: the last holder of the other side is gone.
                Err(_) => self.ending.terminal_closed = true,
            }
            break;
        }
        let chunk = buffer.get(..filled).unwrap_or_default();
        if !chunk.is_empty() {
            self.output.ring.push(chunk);
            self.pump();
            if !self.held.is_empty() && self.echo.is_empty() && chunk.len() < MORE_BYTES {
                // Those who pass it on need the processors now; nobody waits for the rest.
                self.echo.extend_from_slice(chunk);
            } else {
                self.settle_echo();
                self.record(chunk);
                self.release_held();
            }
        }
        self.buffer = buffer;
    }

    /// To the journal and to the screen's thread.
    fn record(&mut self, chunk: &[u8]) {
        self.output.record(chunk);
        self.backlogged = !self.parser.output(chunk, self.output.journal_bytes_max());
        self.paused_until = self.budget.pause().map(|pause| Instant::now() + pause);
    }

    /// Records what was kept back as an echo: before anything that journal or screen are asked for.
    fn settle_echo(&mut self) {
        if !self.echo.is_empty() {
            let mut echo = std::mem::take(&mut self.echo);
            self.record(&echo);
            echo.clear();
            self.echo = echo;
        }
    }

    fn write_input(&mut self) {
        match self.input.write(&mut self.writer) {
            Ok(done) => {
                for (origin, written) in done {
                    self.answer_input(origin, Ok(written));
                }
            }
            Err(_) => self.abandon_input(),
        }
    }

    /// Nobody reads input any more.
    fn abandon_input(&mut self) {
        for origin in self.input.abandon() {
            self.answer_input(origin, Err(CommandError::new("not_running", "the program has ended")));
        }
    }

    /// Lets the streams send what they may.
    fn pump(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        match self.streams.pump(&self.output, connection) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                self.settle_echo();
                lost.into_iter().for_each(|stream| self.parser.keyframe(stream));
            }
            Err(_) => self.disconnect(),
        }
    }

    fn send(&mut self, event: &ShimEvent) {
        let Some(connection) = &mut self.connection else { return };
        if connection.send(event).is_err() {
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.streams.clear();
        self.held.clear();
        self.held_until = None;
        self.settle_echo();
    }

    fn resize(&mut self, size: WindowSize) -> Result<(), CommandError> {
        if size == self.output.marks.newest() {
            return Ok(());
        }
        let pty = PtySize { rows: size.rows(), cols: size.cols(), pixel_width: 0, pixel_height: 0 };
        self.settle_echo();
        self.master.resize(pty).map_err(|error| CommandError::new("internal", format!("cannot resize: {error}")))?;
        self.output.resize(size);
        self.parser.resize(size);
        Ok(())
    }

    /// Takes what the screen's thread has done; true if that was the last thing to do.
    fn take_parsed(&mut self) -> io::Result<bool> {
        for parsed in self.parser.take() {
            match parsed {
                Parsed::Replies(bytes) => self.input.push_replies(bytes),
                Parsed::Drained => self.backlogged = false,
                Parsed::Quiet => {
                    self.settle_echo();
                    self.output.release();
                    sys::trim_heap();
                }
                Parsed::Screen { id, screen } => {
                    self.send(&ShimEvent::Reply { id, outcome: ShimOutcome::Screen(screen) });
                }
                Parsed::Keyframe { stream, taken } => {
                    if let Some(connection) = &mut self.connection
                        && self.streams.keyframe(stream, &taken, &self.output, connection).is_err()
                    {
                        self.disconnect();
                    }
                }
                Parsed::Finished { screen, keyframe } => {
                    self.conclude(&screen, &keyframe)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn add<'fd>(fds: &mut Vec<PollFd<'fd>>, fd: Option<BorrowedFd<'fd>>, interest: PollFlags) -> Option<usize> {
    let fd = fd.filter(|_| !interest.is_empty())?;
    fds.push(PollFd::new(fd, interest));
    Some(fds.len() - 1)
}
