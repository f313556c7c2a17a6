//! The thread that keeps the screen, off the echo path: bytes reach viewers and the journal first, the terminal engine afterwards.
//!
//! Work arrives in order, so that a keyframe or a screen shows exactly the output before it. Results are collected for the main thread and
//! announced on an eventfd. When the program has been quiet for a while the engine gives memory back; after that the thread sleeps for good.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agentapi_shared::WindowSize;
use agentapi_shared::api::{ScreenFormat, ScreenResponse};
use agentapi_shared::journal::{Item, JournalReader};
use agentapi_shared::shim::FinalScreen;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::screen;
use crate::terminal::{Feedback, Terminal};

/// Output that waits for the engine in memory. Overflow: what comes next is read from the journal, where it lies already.
const MEMORY_BYTES_MAX: usize = 512 * 1024;
/// Output that waits for the engine at all, if the journal keeps it: viewers get a burst at the speed of the program, and the screen follows
/// within a second. Overflow: reading from the program pauses until little is left.
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same while there is no journal.
const BACKLOG_BYTES_MAX_UNJOURNALED: usize = 4 * 1024 * 1024;
/// Quiet for this long: give memory back.
const QUIET: Duration = Duration::from_secs(2);
/// Scrollback in a keyframe: what a person scrolls back at once; more is a request of its own.
const KEYFRAME_SCROLLBACK_ROWS: usize = 1000;
/// The engine recurses little; the default of 8 MiB would only be address space, this keeps it honest.
const STACK_BYTES: usize = 512 * 1024;

/// Something for the thread to do.
#[derive(Debug)]
enum Job {
    Output(Vec<u8>),
    /// So much output, which lies in the journal.
    Journaled(usize),
    Resize(WindowSize),
    Keyframe {
        stream: u32,
    },
    Screen {
        id: u64,
        format: ScreenFormat,
        scrollback: u32,
    },
    Finish,
}

/// A keyframe.
#[derive(Debug)]
pub(crate) struct KeyframeTaken {
    pub(crate) offset: u64,
    pub(crate) size: WindowSize,
    pub(crate) bytes: Vec<u8>,
}

/// Something the thread has done.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Answers to the program's queries, to be typed before anything else.
    Replies(Vec<u8>),
    Keyframe {
        stream: u32,
        taken: KeyframeTaken,
    },
    Screen {
        id: u64,
        screen: Box<ScreenResponse>,
    },
    /// There is room in the backlog again.
    Drained,
    /// Nothing happened for [`QUIET`].
    Quiet,
    Finished {
        screen: Box<FinalScreen>,
        keyframe: KeyframeTaken,
    },
}

#[derive(Debug, Default)]
struct Queues {
    jobs: VecDeque<Job>,
    backlog: usize,
    /// The part of it in memory.
    in_memory: usize,
    full: bool,
    done: Vec<Parsed>,
}

impl Queues {
    fn hand_over(&mut self, bytes: &[u8], journaled: bool) {
        match self.jobs.back_mut() {
            Some(Job::Journaled(waiting)) if journaled => *waiting += bytes.len(),
            _ if journaled && self.in_memory > MEMORY_BYTES_MAX => self.jobs.push_back(Job::Journaled(bytes.len())),
            _ => {
                self.in_memory += bytes.len();
                self.jobs.push_back(Job::Output(bytes.to_vec()));
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    done: EventFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // A panic of the other side leaves the queues whole: they are only pushed to and taken from.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, parsed: Parsed) {
        self.lock().done.push(parsed);
        // It fails only when 2^64 announcements are unread.
        let _announced = self.done.write(1);
    }
}

/// The main thread's end.
#[derive(Debug)]
pub(crate) struct Parser {
    shared: Arc<Shared>,
    _thread: JoinHandle<()>,
}

impl Parser {
    /// Starts the thread. `journal` is where the output is read again if the engine fails.
    pub(crate) fn start(spawn: u32, size: WindowSize, journal: OwnedFd) -> std::io::Result<Self> {
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { queues: Mutex::default(), work: Condvar::new(), done });
        let mut worker =
            Worker { shared: Arc::clone(&shared), terminal: Terminal::new(size), spawn, journal, quiet: true };
        let thread =
            thread::Builder::new().name("screen".to_owned()).stack_size(STACK_BYTES).spawn(move || worker.run())?;
        Ok(Self { shared, _thread: thread })
    }

    /// Readable when [`Self::take`] has something.
    pub(crate) fn done(&self) -> BorrowedFd<'_> {
        self.shared.done.as_fd()
    }

    /// What was done since the last call.
    pub(crate) fn take(&self) -> Vec<Parsed> {
        let _count = self.shared.done.read();
        std::mem::take(&mut self.shared.lock().done)
    }

    /// Hands over output; false if no more should be read until [`Parsed::Drained`]. `journal_bytes_max`: what the journal keeps, if these bytes are
    /// in it.
    pub(crate) fn output(&self, bytes: &[u8], journal_bytes_max: Option<u64>) -> bool {
        let mut queues = self.shared.lock();
        queues.backlog += bytes.len();
        let backlog_max = match journal_bytes_max {
            // What waits must still be kept when its turn comes.
            Some(kept) => BACKLOG_BYTES_MAX.min(usize::try_from(kept / 2).unwrap_or(usize::MAX)),
            None => BACKLOG_BYTES_MAX_UNJOURNALED,
        };
        queues.hand_over(bytes, journal_bytes_max.is_some());
        queues.full |= queues.backlog > backlog_max;
        let more = !queues.full;
        drop(queues);
        self.shared.work.notify_one();
        more
    }

    pub(crate) fn resize(&self, size: WindowSize) {
        self.push(Job::Resize(size));
    }

    pub(crate) fn keyframe(&self, stream: u32) {
        self.push(Job::Keyframe { stream });
    }

    pub(crate) fn screen(&self, id: u64, format: ScreenFormat, scrollback: u32) {
        self.push(Job::Screen { id, format, scrollback });
    }

    pub(crate) fn finish(&self) {
        self.push(Job::Finish);
    }

    fn push(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }
}

struct Worker {
    shared: Arc<Shared>,
    terminal: Terminal,
    spawn: u32,
    journal: OwnedFd,
    quiet: bool,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let job = self.next_job();
            match job {
                None => {
                    self.quiet = true;
                    self.terminal.compact();
                    self.shared.publish(Parsed::Quiet);
                }
                Some(Job::Output(bytes)) => {
                    self.feed(&bytes);
                    self.shared.lock().in_memory -= bytes.len();
                }
                Some(Job::Journaled(count)) => self.feed_journaled(count),
                Some(Job::Resize(size)) => resize(&mut self.terminal, size),
                Some(Job::Keyframe { stream }) => {
                    let taken = take_keyframe(&self.terminal);
                    self.shared.publish(Parsed::Keyframe { stream, taken });
                }
                Some(Job::Screen { id, format, scrollback }) => {
                    let screen = Box::new(screen::respond(&self.terminal, self.spawn, format, scrollback));
                    self.shared.publish(Parsed::Screen { id, screen });
                }
                Some(Job::Finish) => {
                    let (screen, keyframe) = finished(&self.terminal, self.spawn);
                    self.shared.publish(Parsed::Finished { screen: Box::new(screen), keyframe });
                    return;
                }
            }
        }
    }

    /// The next job; none if nothing came for [`QUIET`] after something had.
    fn next_job(&mut self) -> Option<Job> {
        let mut queues = self.shared.lock();
        loop {
            if let Some(job) = queues.jobs.pop_front() {
                self.quiet = false;
                return Some(job);
            }
            if self.quiet {
                queues = self.shared.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (again, waited) = self.shared.work.wait_timeout(queues, QUIET).unwrap_or_else(PoisonError::into_inner);
            queues = again;
            if waited.timed_out() && queues.jobs.is_empty() {
                return None;
            }
        }
    }

    /// Feeds the next `count` bytes of output from the journal. Changes of size in it come as jobs of their own.
    fn feed_journaled(&mut self, count: usize) {
        let end = self.terminal.offset() + count as u64;
        let reader =
            self.journal.try_clone().ok().and_then(|dir| JournalReader::open(dir, self.terminal.offset()).ok());
        if let Some(mut reader) = reader {
            while self.terminal.offset() < end {
                match reader.next_item() {
                    Ok(Some(Item::Output { mut bytes, .. })) => {
                        bytes.truncate(usize::try_from(end - self.terminal.offset()).unwrap_or(usize::MAX));
                        self.feed(&bytes);
                    }
                    Ok(Some(Item::Resize { .. })) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        let missing = end - self.terminal.offset();
        if missing > 0 {
            crate::log("output in the journal cannot be read again; the screen goes on without it");
            self.terminal.skip_to(end);
            self.fed(usize::try_from(missing).unwrap_or(0));
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut feedback = Feedback::default();
        if self.terminal.feed(bytes, &mut feedback).is_err() {
            crate::log(
                "the screen engine failed on this output; the screen is built again from the journal without it",
            );
            let past = self.terminal.offset();
            self.terminal = rebuild(&self.journal, self.terminal.size(), past - bytes.len() as u64, past);
        }
        if !feedback.replies.is_empty() {
            self.shared.publish(Parsed::Replies(feedback.replies));
        }
        self.fed(bytes.len());
    }

    /// So much less waits.
    fn fed(&self, count: usize) {
        let mut queues = self.shared.lock();
        queues.backlog -= count;
        if queues.full && queues.backlog < BACKLOG_BYTES_MAX_UNJOURNALED / 4 {
            queues.full = false;
            drop(queues);
            self.shared.publish(Parsed::Drained);
        }
    }
}

fn take_keyframe(terminal: &Terminal) -> KeyframeTaken {
    KeyframeTaken {
        offset: terminal.offset(),
        size: terminal.size(),
        bytes: terminal.keyframe(KEYFRAME_SCROLLBACK_ROWS),
    }
}

/// All that stays of a terminal.
pub(crate) fn finished(terminal: &Terminal, spawn: u32) -> (FinalScreen, KeyframeTaken) {
    (screen::last(terminal, spawn), take_keyframe(terminal))
}

/// A terminal fed with the journal up to `until`, then placed at `past`: what lies between is what the engine could not take.
fn rebuild(journal: &OwnedFd, size: WindowSize, until: u64, past: u64) -> Terminal {
    let mut terminal = replay(journal, size, Some(until));
    resize(&mut terminal, size);
    terminal.skip_to(past);
    terminal
}

/// A terminal fed with everything that the journal still has.
pub(crate) fn replay(journal: &OwnedFd, size: WindowSize, until: Option<u64>) -> Terminal {
    let opened = journal.try_clone().ok().and_then(|dir| JournalReader::from_start(dir).ok());
    let Some(mut reader) = opened else { return Terminal::new(size) };
    let mut terminal = Terminal::starting_at(size, reader.next_offset());
    let mut feedback = Feedback::default();
    while let Ok(Some(item)) = reader.next_item() {
        match item {
            Item::Resize { size, .. } => resize(&mut terminal, size),
            Item::Output { offset, mut bytes } => {
                let keep = until
                    .map_or(bytes.len(), |until| usize::try_from(until.saturating_sub(offset)).unwrap_or(usize::MAX));
                bytes.truncate(keep);
                // An engine that fails again leaves a blank screen of the right size and goes on from there.
                let _lost = terminal.feed(&bytes, &mut feedback);
                feedback = Feedback::default();
            }
        }
        if until.is_some_and(|until| terminal.offset() >= until) {
            break;
        }
    }
    terminal
}

/// An engine that fails on this is replaced by a blank one of the new size; programs draw anew after a change of size.
fn resize(terminal: &mut Terminal, size: WindowSize) {
    if terminal.resize(size).is_err() {
        crate::log("the screen engine failed on a change of size; the screen starts blank");
    }
}
