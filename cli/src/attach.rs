//! `session attach`: the local terminal becomes the session's, as with ssh.
//!
//! Keyframe and output go to the terminal through the [`Filter`]; what was written is acknowledged, so that the server never sends more than the
//! terminal takes. While output waits for the terminal nothing is read from the server, but keys, resizes and signals still are. A lost
//! connection is made again from the last byte; keys typed meanwhile are dropped, because nobody can see what they would do.

mod filter;
mod keys;
mod signals;
mod stream;
mod terminal;

use std::time::Duration;

use agentapi_shared::frame::INPUT_BYTES_MAX;
use agentapi_shared::viewer::{ACK_EVERY_BYTES, ClientMessage, Resume, ServerMessage, ViewerMode};
use agentapi_shared::{Exit, SessionId, ViewerId};
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, sleep_until};

use self::keys::DetachWatch;
use self::signals::{SignalEvent, Signals};
use self::stream::{Closed, Incoming, Position, Stream};
use self::terminal::Terminal;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::failure::{ExitKind, Failure};
use crate::output;

pub(crate) use filter::{Filter, FilterPolicy};
pub(crate) use keys::DetachKeys;
pub(crate) use terminal::own_size;

/// An outage shorter than this is not worth covering a row for; the title says it at once.
const STATUS_AFTER: Duration = Duration::from_secs(2);
/// One read of what was typed: a paste comes in several.
const KEYS_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(KEYS_BYTES_MAX <= INPUT_BYTES_MAX);

/// How to attach.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Type nothing, and leave the size alone.
    pub(crate) read_only: bool,
    /// What detaches.
    pub(crate) detach_keys: DetachKeys,
    /// Whether the agent may write to the clipboard.
    pub(crate) clipboard: bool,
}

/// How it ended.
enum Outcome {
    Detached,
    Ended(Exit),
    Signal(i32),
    Failed(Failure),
}

/// Attaches until detached, or until the session ends.
pub(crate) async fn attach(client: &Client, id: SessionId, options: &Options) -> anyhow::Result<()> {
    let mode = if options.read_only { ViewerMode::Ro } else { ViewerMode::Rw };
    if let (ViewerMode::Rw, Some(size)) = (mode, own_size()) {
        // So that the first keyframe fits. A session that has ended keeps its size, and is shown all the same.
        let _fits_or_not = client.resize(id, size).await;
    }
    // Before the terminal is touched: a refusal is an ordinary error message.
    let stream = Stream::open(client, id, mode, None, None).await?;
    let mut attachment = Attachment::enter(client, id, mode, options)?;
    let outcome = attachment.run(stream).await;
    attachment.terminal.leave(attachment.filter.observed());
    match outcome {
        Outcome::Detached => output::line("detached"),
        Outcome::Ended(exit) => output::line(&format!("session ended: {}", describe(&exit))),
        Outcome::Signal(number) => return Err(Failure::silent(u8::try_from(128 + number).unwrap_or(1)).into()),
        Outcome::Failed(failure) => return Err(failure.into()),
    }
    Ok(())
}

fn describe(exit: &Exit) -> String {
    match (exit.code, exit.signal.as_deref()) {
        (Some(code), _) if exit.reason.is_exit() => format!("exit {code}"),
        (_, Some(signal)) if exit.reason.is_exit() => output::clean(signal),
        _ => output::clean(&exit.detail),
    }
}

struct Attachment<'a> {
    client: &'a Client,
    id: SessionId,
    mode: ViewerMode,
    terminal: Terminal,
    signals: Signals,
    policy: FilterPolicy,
    filter: Filter,
    keys: DetachWatch,
    key_words: String,
    /// Bytes for the terminal, and how many of them it took.
    out: Vec<u8>,
    out_written: usize,
    /// The spawn that is shown, and the end of what was received of it.
    received: Option<Position>,
    acknowledged: u64,
    /// A keyframe is acknowledged at once, however few bytes it stands for.
    ack_due: bool,
    /// Our number on this connection, and whether the size was ours.
    viewer: Option<u64>,
    owns_size: bool,
    /// The name of this connection, which the next one takes the place of.
    connection: Option<ViewerId>,
    /// The end, once it came; shown when all output before it is on the terminal.
    exit: Option<Exit>,
    /// Our own line covers a row.
    covered: bool,
}

impl<'a> Attachment<'a> {
    fn enter(client: &'a Client, id: SessionId, mode: ViewerMode, options: &Options) -> anyhow::Result<Self> {
        let signals = Signals::new()?;
        let terminal = Terminal::enter()?;
        let policy = FilterPolicy { clipboard: options.clipboard };
        let rows = terminal.size().unwrap_or_default().rows();
        Ok(Self {
            client,
            id,
            mode,
            terminal,
            signals,
            policy,
            filter: Filter::new(policy),
            keys: DetachWatch::new(&options.detach_keys),
            key_words: options.detach_keys.words().to_owned(),
            out: terminal::enter_sequence(rows).into_bytes(),
            out_written: 0,
            received: None,
            acknowledged: 0,
            ack_due: false,
            viewer: None,
            connection: None,
            // Whoever attaches from a terminal wants it in that terminal's size.
            owns_size: mode == ViewerMode::Rw,
            exit: None,
            covered: false,
        })
    }

    async fn run(&mut self, mut stream: Stream) -> Outcome {
        loop {
            match self.connected(&mut stream).await {
                Err(Closed::Final(failure)) => return Outcome::Failed(failure),
                Err(Closed::Lost) => {}
                Ok(outcome) => {
                    stream.close().await;
                    return outcome;
                }
            }
            match self.reconnect().await {
                Ok(again) => stream = again,
                Err(outcome) => return outcome,
            }
        }
    }

    /// One connection, until it breaks or there is a reason to leave.
    async fn connected(&mut self, stream: &mut Stream) -> Result<Outcome, Closed> {
        let mut typed = vec![0; KEYS_BYTES_MAX];
        loop {
            let writing = self.out_written < self.out.len();
            if !writing {
                self.acknowledge(stream).await?;
                if let Some(exit) = self.exit.take() {
                    return Ok(Outcome::Ended(exit));
                }
            }
            tokio::select! {
                incoming = stream.next(), if !writing => self.take(stream, incoming?).await?,
                written = self.terminal.write(&self.out[self.out_written..]), if writing => {
                    stream.restart_silence();
                    if !self.wrote(written) {
                        return Ok(Outcome::Signal(SignalKind::hangup().as_raw_value()));
                    }
                }
                read = self.terminal.read(&mut typed) => {
                    let Ok(count @ 1..) = read else { return Ok(Outcome::Signal(SignalKind::hangup().as_raw_value())) };
                    if let Some(outcome) = self.type_keys(stream, &typed[..count]).await? {
                        return Ok(outcome);
                    }
                }
                event = self.signals.next() => match event {
                    SignalEvent::Resized => self.resize(stream).await?,
                    SignalEvent::End(number) => return Ok(Outcome::Signal(number)),
                },
            }
        }
    }

    /// Takes note of what the terminal took; false: it is gone.
    fn wrote(&mut self, written: std::io::Result<usize>) -> bool {
        let Ok(count) = written else { return false };
        self.out_written += count;
        if self.out_written == self.out.len() {
            self.out.clear();
            self.out_written = 0;
        }
        true
    }

    async fn take(&mut self, stream: &mut Stream, incoming: Incoming) -> Result<(), Closed> {
        match incoming {
            Incoming::Output(at, bytes) => self.output(at, &bytes),
            Incoming::Keyframe(at, _size, bytes) => self.keyframe(at, &bytes),
            Incoming::Message(ServerMessage::Hello { viewer, id, .. }) => {
                (self.viewer, self.connection) = (Some(viewer), id);
                if self.owns_size {
                    stream.tell(&ClientMessage::TakeSize).await?;
                }
                self.resize(stream).await?;
            }
            Incoming::Message(ServerMessage::Spawn { spawn, offset, resume, .. }) => {
                if resume == Resume::Resumed || self.received.is_none_or(|received| received.spawn != spawn) {
                    self.received = Some(Position { spawn, offset });
                    self.acknowledged = offset;
                }
            }
            Incoming::Message(ServerMessage::SizeOwner { viewer }) => {
                self.owns_size = viewer.is_some() && viewer == self.viewer;
            }
            Incoming::Message(ServerMessage::Ended { exit, .. }) => self.exit = Some(exit),
            Incoming::Message(_) => {}
        }
        Ok(())
    }

    fn output(&mut self, at: Position, bytes: &[u8]) {
        let end = at.offset + bytes.len() as u64;
        // Bytes that are here already came twice: the seam of a resumed stream.
        let known = match self.received {
            Some(received) if received.spawn == at.spawn => received.offset.saturating_sub(at.offset),
            _ => 0,
        };
        let fresh = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        self.filter.push(fresh, &mut self.out);
        if self.received.is_none_or(|received| received < Position { offset: end, ..at }) {
            self.received = Some(Position { offset: end, ..at });
        }
    }

    fn keyframe(&mut self, at: Position, bytes: &[u8]) {
        self.out.extend_from_slice(terminal::clear_sequence(self.filter.observed()).as_bytes());
        self.filter = Filter::new(self.policy);
        self.filter.push(bytes, &mut self.out);
        self.received = Some(at);
        (self.acknowledged, self.ack_due) = (at.offset, true);
        self.covered = false;
    }

    /// Tells the server what the terminal has taken.
    async fn acknowledge(&mut self, stream: &mut Stream) -> Result<(), Closed> {
        let Some(Position { spawn, offset }) = self.received else { return Ok(()) };
        if self.ack_due || offset >= self.acknowledged + ACK_EVERY_BYTES {
            (self.acknowledged, self.ack_due) = (offset, false);
            stream.tell(&ClientMessage::Ack { spawn, offset }).await?;
        }
        Ok(())
    }

    /// Sends what was typed, unless it detaches.
    async fn type_keys(&mut self, stream: &mut Stream, typed: &[u8]) -> Result<Option<Outcome>, Closed> {
        let (send, detached) = self.keys.push(typed);
        match (self.mode, self.received) {
            (ViewerMode::Rw, Some(received)) if !send.is_empty() => stream.input(received.spawn, &send).await?,
            // Nothing can be typed, so the key that everyone tries means leaving.
            (ViewerMode::Ro, _) if send.contains(&0x03) => return Ok(Some(Outcome::Detached)),
            _ => {}
        }
        Ok(detached.then_some(Outcome::Detached))
    }

    async fn resize(&mut self, stream: &mut Stream) -> Result<(), Closed> {
        match (self.mode, self.terminal.size()) {
            (ViewerMode::Rw, Some(size)) => stream.tell(&ClientMessage::Resize { size }).await,
            _ => Ok(()),
        }
    }

    /// Tries until there is a connection again, or a reason to leave.
    async fn reconnect(&mut self) -> Result<Stream, Outcome> {
        let mut backoff = Backoff::default();
        let lost_at = Instant::now();
        self.out.extend_from_slice(b"\x1b]2;agentapi: connection lost, trying again\x1b\\");
        loop {
            // A row that our line covers is drawn again by a keyframe only.
            let from = if self.covered { None } else { self.received };
            let (client, id, mode, replaces) = (self.client, self.id, self.mode, self.connection);
            let attempt = Stream::open(client, id, mode, from, replaces);
            match self.meanwhile(attempt, lost_at).await? {
                Ok(stream) => {
                    self.restore_title();
                    return Ok(stream);
                }
                Err(failure) if is_final(&failure) => return Err(Outcome::Failed(failure)),
                Err(_) => self.meanwhile(tokio::time::sleep(backoff.next_pause()), lost_at).await?,
            }
        }
    }

    /// Waits for something, with the terminal alive: output is written, the detach key works, the status is shown.
    async fn meanwhile<T>(&mut self, wait: impl Future<Output = T>, lost_at: Instant) -> Result<T, Outcome> {
        tokio::pin!(wait);
        let mut typed = vec![0; KEYS_BYTES_MAX];
        loop {
            let writing = self.out_written < self.out.len();
            tokio::select! {
                done = &mut wait => return Ok(done),
                () = sleep_until(lost_at + STATUS_AFTER), if !self.covered => self.cover(),
                written = self.terminal.write(&self.out[self.out_written..]), if writing => {
                    if !self.wrote(written) {
                        return Err(Outcome::Signal(SignalKind::hangup().as_raw_value()));
                    }
                }
                read = self.terminal.read(&mut typed) => {
                    let Ok(count @ 1..) = read else { return Err(Outcome::Signal(SignalKind::hangup().as_raw_value())) };
                    let (send, detached) = self.keys.push(&typed[..count]);
                    if detached || (self.mode == ViewerMode::Ro && send.contains(&0x03)) {
                        return Err(Outcome::Detached);
                    }
                }
                event = self.signals.next() => if let SignalEvent::End(number) = event {
                    return Err(Outcome::Signal(number));
                },
            }
        }
    }

    fn cover(&mut self) {
        self.covered = true;
        let words = format!(" connection lost; trying again. {} leaves; the agent runs on.", self.key_words);
        let line = terminal::status_line(&words, self.terminal.size().unwrap_or_default());
        self.out.extend_from_slice(line.as_bytes());
    }

    /// The title that the agent had set, or that the terminal had before us.
    fn restore_title(&mut self) {
        match &self.filter.observed().title {
            Some(title) => self.out.extend_from_slice(&[b"\x1b]2;", &title[..], b"\x1b\\"].concat()),
            None => self.out.extend_from_slice(b"\x1b[23;0t\x1b[22;0t"),
        }
    }
}

/// Whether trying again would get the same answer.
fn is_final(failure: &Failure) -> bool {
    [ExitKind::Refused, ExitKind::NotFound, ExitKind::Usage].iter().any(|kind| *kind as u8 == failure.code())
}
