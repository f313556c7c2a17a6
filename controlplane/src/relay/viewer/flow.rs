//! Where a viewer is in the output, and what it is sent next. No I/O: a step gives an action, the viewer's task carries it out.
//!
//! ```text
//! Opening -> (Keyframe ->) Streaming -> Done -> Opening of the next spawn
//!    ^          ^             |  |
//!    |          +-- skips ----+  |   too slow, and may skip
//!    +---------------------------+   the feed is gone, or no longer has the bytes: the journal has
//! ```
//! Credit: output below `acked + window` may be sent. A skip leaves out bytes that were never sent, so acknowledgements of what was
//! sent before it are counted towards the position after it.

mod refresh;

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::frame::{FLAG_SKIPPED, FrameType, Header, Keyframe};
use agentapi_shared::link::CommandError;
use agentapi_shared::viewer::{Catchup, LAG_BYTES_MAX, LAG_MS_MAX, Resume, ServerMessage, WINDOW_BYTES};
use agentapi_shared::{SpawnNumber, SpawnState, WindowSize};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::From;
use crate::fleet::Link;
use crate::relay::feed::{AHEAD_BYTES, Feed, KeptKeyframe, Next};
use crate::relay::hub::{Hub, View};
use crate::relay::ring::RING_BYTES;
use crate::store::records::SpawnRecord;
use refresh::Refresh;

/// A chunk is cut to the credit that is left only if that is at least so much: fewer, larger frames.
const CUT_AT_BYTES: u64 = 32 * 1024;

/// A host that could not serve a stream is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const LAG_MAX: Duration = Duration::from_millis(LAG_MS_MAX);

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Send a control message.
    Say(ServerMessage),
    /// Send a binary frame.
    Frame(Header, Bytes),
    /// Look again: something was decided.
    Again,
    /// Wait until something changes.
    Wait,
}

/// What a flow looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) view: &'a View,
    /// The link of the session's host, while it is up.
    pub(super) link: Option<&'a Arc<Link>>,
}

/// The viewer acknowledged what it was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Finding the feed that goes on at `want`; none: with a keyframe. `otherwise`: what is said if it has to be a keyframe.
    /// `silent`: the viewer is in the middle of the output and need not be told if it goes on.
    Opening { want: Option<u64>, otherwise: Resume, silent: bool },
    /// Waiting for the keyframe with this number. `announce`: a SPAWN message goes before it.
    Keyframe { number: u64, announce: Option<Resume> },
    /// Output.
    Streaming,
    /// The spawn is over and all was sent.
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    catchup: Catchup,
    spawn: SpawnNumber,
    phase: Phase,
    /// Next byte to be sent.
    offset: u64,
    /// Marks of the feed's ring up to this one were told.
    mark: u64,
    /// Everything below was parsed, in terms of `offset`.
    acked: u64,
    /// The newest skip: where it began and where it led to.
    skip: Option<(u64, u64)>,
    feed: Option<Arc<Feed>>,
    /// Whether the feed serves this viewer alone.
    private: bool,
    /// Since when there is output for which no credit is left.
    blocked_since: Option<Instant>,
    /// When it was last looked at whether credit holds the host back, and how often it had until then.
    checked: Option<(Instant, u64)>,
    /// A keyframe that was asked for to see how far behind this viewer is.
    probe: Option<u64>,
    /// A keyframe of which a SPAWN message spoke, and which comes next.
    announced: Option<KeptKeyframe>,
    refresh: Refresh,
    retry_at: Option<Instant>,
    watched: Option<Arc<Feed>>,
}

impl Flow {
    pub(super) fn new(catchup: Catchup, from: From, newest: SpawnNumber) -> Self {
        let (spawn, want, otherwise) = match from {
            From::Fresh => (newest, None, Resume::Fresh),
            From::At(spawn, offset) => (spawn, Some(offset), Resume::Gap),
        };
        Self {
            catchup,
            spawn,
            phase: Phase::Opening { want, otherwise, silent: false },
            offset: 0,
            mark: 0,
            acked: 0,
            skip: None,
            feed: None,
            private: false,
            blocked_since: None,
            checked: None,
            probe: None,
            announced: None,
            refresh: Refresh::Idle,
            retry_at: None,
            watched: None,
        }
    }

    pub(super) fn catchup(&self) -> Catchup {
        self.catchup
    }

    /// When it wants to be looked at although nothing changed.
    pub(super) fn timer(&self) -> Option<Instant> {
        [self.retry_at, self.refresh.timer()].into_iter().flatten().min()
    }

    pub(super) fn timer_fired(&mut self) {
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|at| *at > now);
        self.refresh.timer_fired(now);
    }

    /// Where this viewer is, if it is in that spawn.
    pub(super) fn offset_in(&self, spawn: SpawnNumber) -> Option<u64> {
        (self.spawn == spawn && self.phase == Phase::Streaming).then_some(self.offset)
    }

    /// Takes an acknowledgement.
    pub(super) fn ack(&mut self, spawn: SpawnNumber, offset: u64) -> Result<(), Violation> {
        if spawn < self.spawn {
            return Ok(());
        }
        if spawn > self.spawn || offset > self.offset {
            return Err(Violation);
        }
        let counted = match self.skip {
            Some((from, to)) if offset < to => to.saturating_sub(from.saturating_sub(offset)),
            _ => offset,
        };
        self.acked = self.acked.max(counted);
        self.grant();
        Ok(())
    }

    /// Points the task's watch at the feed that is read now.
    pub(super) fn watch_feed(&mut self, watched: &mut watch::Receiver<()>) {
        let same = match (&self.feed, &self.watched) {
            (Some(feed), Some(watched)) => Arc::ptr_eq(feed, watched),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.watched = self.feed.clone();
            *watched = self.feed.as_ref().map_or_else(super::never_changes, |feed| {
                let mut fresh = feed.watch();
                // It may have changed between the last look and now.
                fresh.mark_changed();
                fresh
            });
        }
    }

    /// Gives up what only this viewer uses.
    pub(super) fn leave(&mut self) {
        self.refresh.feed_left();
        if let Some(feed) = self.feed.take().filter(|_| self.private) {
            feed.close();
        }
        self.private = false;
    }

    /// What to do next.
    pub(super) fn step(&mut self, around: Around<'_>) -> Action {
        if self.retry_at.is_some() {
            return Action::Wait;
        }
        match self.phase {
            Phase::Opening { want, otherwise, silent } => self.open(around, want, otherwise, silent),
            Phase::Keyframe { number, announce } => self.keyframe(around, number, announce),
            Phase::Streaming => self.stream(around),
            Phase::Done => self.next_spawn(around.view),
        }
    }

    // Opening:

    fn open(&mut self, around: Around<'_>, want: Option<u64>, otherwise: Resume, silent: bool) -> Action {
        let Some(feed) = self.feed.clone() else { return self.choose_feed(around, want, otherwise) };
        if let Some(error) = feed.failure() {
            return self.refused(around.view, &error, otherwise, silent);
        }
        let Some(opened) = feed.opening() else {
            if feed.is_over() {
                self.leave();
                return Action::Again;
            }
            return Action::Wait;
        };
        let Some(want) = want else { return self.await_newest(around, &feed, Some(otherwise)) };
        if self.private {
            if !opened.resumed {
                self.phase = Phase::Keyframe { number: 1, announce: Some(Resume::Gap) };
                return Action::Again;
            }
            self.mark = 0;
        } else {
            // What the live ring has not is in the journal.
            let Some(mark) = feed.covers(want) else { return self.open_private(around, Some(want)) };
            self.mark = mark;
        }
        self.offset = want;
        self.phase = Phase::Streaming;
        if silent {
            return Action::Again;
        }
        self.acked = want;
        let size = if self.private { opened.size } else { feed.size_at(want) };
        self.announce(around.view, Resume::Resumed, size, want)
    }

    fn choose_feed(&mut self, around: Around<'_>, want: Option<u64>, otherwise: Resume) -> Action {
        let newest = around.view.record.spawn();
        let Some(known) = self.record_of_spawn(around.view) else {
            // A spawn that never was: the newest, from its screen.
            self.spawn = newest;
            self.phase = Phase::Opening { want: None, otherwise: Resume::Gap, silent: false };
            return Action::Again;
        };
        // Asked before its terminal is there, the host could only refuse; that it runs is told.
        let begun = known.accepted && !matches!(known.state, SpawnState::Pending | SpawnState::Starting);
        if !begun {
            if !known.state.is_ended() {
                return Action::Wait;
            }
            // It never ran: there is nothing to see but its end.
            self.offset = 0;
            self.phase = Phase::Streaming;
            self.feed = None;
            return self.announce(around.view, otherwise, around.view.record.size, 0);
        }
        let Some(link) = around.link else { return Action::Wait };
        if self.spawn != newest {
            return self.open_private(around, want);
        }
        self.feed = Some(around.hub.live(link, want));
        self.private = false;
        Action::Again
    }

    fn open_private(&mut self, around: Around<'_>, from: Option<u64>) -> Action {
        let Some(link) = around.link else { return Action::Wait };
        self.leave();
        self.feed = Some(Feed::open(link, around.view.record.id, self.spawn, from, WINDOW_BYTES, None));
        self.private = true;
        Action::Again
    }

    /// The host cannot serve it. Of a spawn that is over nothing is left then but its end; otherwise it is asked again.
    fn refused(&mut self, view: &View, error: &CommandError, otherwise: Resume, silent: bool) -> Action {
        tracing::debug!(session.id = %view.record.id, spawn = self.spawn, %error, "stream refused");
        self.leave();
        if self.record_of_spawn(view).is_some_and(|spawn| spawn.state.is_ended()) {
            self.phase = Phase::Done;
            if !silent {
                // The end is said by the next step.
                self.phase = Phase::Streaming;
                return self.announce(view, otherwise, view.record.size, self.offset);
            }
            return self.say_end(view, self.offset);
        }
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        Action::Wait
    }

    // Keyframes:

    /// A newcomer takes the keyframe that is there if the output after it is too; otherwise it waits for the next.
    fn await_newest(&mut self, around: Around<'_>, feed: &Arc<Feed>, announce: Option<Resume>) -> Action {
        let number = match feed.usable_keyframe() {
            Some(kept) if announce.is_some() => kept.number,
            // A stream that was sent to its end answers nothing more.
            _ if feed.end().is_some() && !self.private => {
                let opened = self.open_private(around, None);
                if opened == Action::Wait {
                    return opened;
                }
                1
            }
            _ => feed.request_keyframe(),
        };
        self.phase = Phase::Keyframe { number, announce };
        Action::Again
    }

    fn keyframe(&mut self, around: Around<'_>, number: u64, announce: Option<Resume>) -> Action {
        let Some(feed) = self.feed.clone() else { return self.reopen() };
        // The one that was announced is the one that is sent, although a newer one may have come.
        if let Some(kept) = self.announced.take() {
            return self.send_keyframe(around, &feed, &kept);
        }
        let Some(kept) = feed.keyframe_from(number) else {
            if !feed.is_over() {
                return Action::Wait;
            }
            self.leave();
            match announce {
                Some(otherwise) => self.phase = Phase::Opening { want: None, otherwise, silent: false },
                None => return self.reopen(),
            }
            return Action::Again;
        };
        let Some(resume) = announce else { return self.send_keyframe(around, &feed, &kept) };
        self.phase = Phase::Keyframe { number: kept.number, announce: None };
        // What was sent before counts for nothing any more: the viewer begins anew.
        (self.offset, self.acked, self.skip) = (kept.offset, kept.offset, None);
        let size = Keyframe::parse(&kept.payload).map_or(around.view.record.size, |keyframe| keyframe.size);
        let offset = kept.offset;
        self.announced = Some(kept);
        self.announce(around.view, resume, size, offset)
    }

    fn send_keyframe(&mut self, around: Around<'_>, feed: &Arc<Feed>, kept: &KeptKeyframe) -> Action {
        let skipped = kept.offset > self.offset;
        let under_way = self.offset.saturating_sub(self.acked).min(WINDOW_BYTES);
        if skipped {
            self.skip = Some((self.offset, kept.offset));
        }
        self.offset = kept.offset;
        self.acked = kept.offset.saturating_sub(under_way);
        self.mark = kept.mark;
        self.phase = Phase::Streaming;
        self.level();
        if kept.offset > feed.head() + RING_BYTES as u64 {
            // What lies between is of no use to anyone who is here: the stream goes on at the keyframe.
            if self.private {
                self.leave();
            } else {
                around.hub.restart_live(feed, kept.offset);
            }
            self.reopen();
        }
        self.grant();
        let mut header = Header::new(FrameType::Keyframe, self.spawn, kept.offset);
        header.flags = if skipped { FLAG_SKIPPED } else { 0 };
        Action::Frame(header, kept.payload.clone())
    }

    // Output:

    fn stream(&mut self, around: Around<'_>) -> Action {
        self.join_live(around);
        let Some(feed) = self.feed.clone() else { return self.without_feed(around.view) };
        let next = feed.next(self.offset, self.mark);
        let refresh = if self.private { None } else { self.refresh.keyframe(&feed, self.offset, self.mark) };
        match (next, refresh) {
            (Next::Mark(mark), _) => {
                self.mark = mark.seq;
                if self.catchup == Catchup::Screen {
                    self.refresh.resized();
                }
                Action::Say(ServerMessage::Resized { spawn: self.spawn, offset: mark.offset, size: mark.size })
            }
            (_, Some(kept)) if kept.offset == self.offset => self.send_keyframe(around, &feed, &kept),
            (Next::Bytes(bytes), refresh) => {
                let before = refresh.map_or(u64::MAX, |kept| kept.offset - self.offset);
                let len = usize::try_from(before).map_or(bytes.len(), |before| bytes.len().min(before));
                self.bytes(around, &feed, bytes.slice(..len))
            }
            (Next::Wait, _) => {
                self.blocked_since = None;
                Action::Wait
            }
            (Next::End(end), _) => self.say_end(around.view, end),
            (Next::Dropped, _) => self.dropped(around, &feed),
            (Next::Lost, _) => self.reopen(),
            (Next::Failed(error), _) => {
                let action = self.refused(around.view, &error, Resume::Gap, true);
                if self.phase == Phase::Streaming {
                    self.reopen();
                }
                action
            }
        }
    }

    fn without_feed(&mut self, view: &View) -> Action {
        // Only a spawn that never ran, or of which nothing is left, streams without a feed.
        if self.record_of_spawn(view).is_some_and(|spawn| spawn.state.is_ended()) {
            return self.say_end(view, self.offset);
        }
        self.reopen()
    }

    fn bytes(&mut self, around: Around<'_>, feed: &Arc<Feed>, bytes: Bytes) -> Action {
        let credit = (self.acked + WINDOW_BYTES).saturating_sub(self.offset);
        let len = bytes.len() as u64;
        if credit < len && credit < CUT_AT_BYTES {
            self.blocked_since.get_or_insert_with(Instant::now);
            return Action::Wait;
        }
        if self.must_skip(feed) {
            return self.await_newest(around, feed, None);
        }
        self.blocked_since = None;
        let part = if credit < len { bytes.slice(..usize::try_from(credit).unwrap_or(bytes.len())) } else { bytes };
        let header = Header::new(FrameType::Output, self.spawn, self.offset);
        self.offset += part.len() as u64;
        if self.private {
            feed.drop_below(self.offset);
        }
        self.grant();
        Action::Frame(header, part)
    }

    /// Whether this viewer is too far behind and may skip. Called only while it has credit: what it gets then is of now.
    fn must_skip(&mut self, feed: &Arc<Feed>) -> bool {
        if self.catchup == Catchup::Bytes {
            return false;
        }
        let stalled = self.blocked_since.is_some_and(|since| since.elapsed() > LAG_MAX);
        if stalled || (!self.private && feed.head().saturating_sub(self.offset) > LAG_BYTES_MAX) {
            return true;
        }
        // How far the host is ahead of a stream that credit holds back, only a keyframe tells.
        if let Some(kept) = self.probe.and_then(|number| feed.keyframe_from(number)) {
            self.probe = None;
            return kept.offset.saturating_sub(self.offset) > LAG_BYTES_MAX;
        }
        let hits = feed.limit_hits();
        let (since, before) = *self.checked.get_or_insert_with(|| (Instant::now(), hits));
        if since.elapsed() > LAG_MAX {
            self.checked = Some((Instant::now(), hits));
            if hits > before && self.probe.is_none() && feed.end().is_none() {
                self.probe = Some(feed.request_keyframe());
            }
        }
        false
    }

    /// Its bytes left the ring, because others are faster.
    fn dropped(&mut self, around: Around<'_>, feed: &Arc<Feed>) -> Action {
        if self.acked + WINDOW_BYTES < self.offset + CUT_AT_BYTES {
            self.blocked_since.get_or_insert_with(Instant::now);
            return Action::Wait;
        }
        if self.must_skip(feed) {
            return self.await_newest(around, feed, None);
        }
        self.blocked_since = None;
        self.phase = Phase::Opening { want: Some(self.offset), otherwise: Resume::Gap, silent: true };
        self.open_private(around, Some(self.offset))
    }

    /// From a private feed back to the live one, once its ring has what comes next.
    fn join_live(&mut self, around: Around<'_>) {
        if !self.private || self.spawn != around.view.record.spawn() {
            return;
        }
        let Some(live) = around.hub.current() else { return };
        let Some(mark) = live.covers(self.offset) else { return };
        // Not at the very end of the ring, from which it would fall out again at once.
        let margin = live.head().saturating_sub(live.tail()) / 4;
        if self.offset >= live.tail() + margin {
            self.leave();
            (self.feed, self.mark) = (Some(live), mark);
            self.probe = None;
            self.grant();
        }
    }

    fn reopen(&mut self) -> Action {
        self.leave();
        self.probe = None;
        self.phase = Phase::Opening { want: Some(self.offset), otherwise: Resume::Gap, silent: true };
        Action::Again
    }

    // The end, and the next spawn:

    fn say_end(&mut self, view: &View, end: u64) -> Action {
        let exit = self.record_of_spawn(view).and_then(|spawn| spawn.exit.clone());
        // The end of output and the record of the exit come on different ways; both are needed.
        let Some(exit) = exit else { return Action::Wait };
        self.leave();
        self.phase = Phase::Done;
        Action::Say(ServerMessage::Ended { spawn: self.spawn, offset: end, exit })
    }

    fn next_spawn(&mut self, view: &View) -> Action {
        let Some(next) = view.record.spawns.iter().find(|spawn| spawn.number > self.spawn) else { return Action::Wait };
        self.spawn = next.number;
        (self.offset, self.acked, self.mark, self.skip) = (0, 0, 0, None);
        self.level();
        let want = (self.catchup == Catchup::Bytes).then_some(0);
        self.phase = Phase::Opening { want, otherwise: Resume::Fresh, silent: false };
        Action::Again
    }

    // Small things:

    fn announce(&self, view: &View, resume: Resume, size: WindowSize, offset: u64) -> Action {
        let state = self.record_of_spawn(view).map_or(view.record.state(), |spawn| spawn.state);
        Action::Say(ServerMessage::Spawn { spawn: self.spawn, state, size, resume, offset })
    }

    fn record_of_spawn<'v>(&self, view: &'v View) -> Option<&'v SpawnRecord> {
        view.record.spawns.iter().find(|spawn| spawn.number == self.spawn)
    }

    /// Lets the host go on: a live feed ahead of what was sent, a private one as far as this viewer may be sent.
    fn grant(&self) {
        if let Some(feed) = &self.feed {
            feed.grant(if self.private { self.acked + WINDOW_BYTES } else { self.offset + AHEAD_BYTES });
        }
    }

    fn level(&mut self) {
        self.blocked_since = None;
        self.checked = None;
        self.probe = None;
        self.refresh = Refresh::Idle;
    }
}

#[cfg(test)]
mod tests;
