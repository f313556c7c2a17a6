//! One stream of a host's link with its ring: filled by the link's socket task, read by the viewers that hold it.
//!
//! Credit is absolute and only grows. The host may send up to [`AHEAD_BYTES`] beyond what the foremost viewer was sent, so a stream on
//! which nobody takes anything stops, and no ring grows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentapi_shared::link::{CommandError, PlaneMessage};
use agentapi_shared::viewer::WINDOW_BYTES;
use agentapi_shared::{SessionId, SpawnNumber, WindowSize};
use bytes::Bytes;
use tokio::sync::watch;

use super::ring::{Mark, RING_BYTES, Ring};
use crate::fleet::Link;

/// How far the host may run ahead of the foremost viewer. Half a ring: the foremost never loses bytes, and others may be as far behind.
pub const AHEAD_BYTES: u64 = 256 * 1024;
const _: () = assert!(2 * AHEAD_BYTES <= RING_BYTES as u64);
const _: () = assert!(WINDOW_BYTES <= RING_BYTES as u64);

/// Credit beyond the newest byte: of a viewer who was sent that, or acknowledged it.
const CREDIT_MAX_BYTES: u64 = if AHEAD_BYTES > WINDOW_BYTES { AHEAD_BYTES } else { WINDOW_BYTES };

/// Credit is told in steps of this size, so that it costs a message per some reads and not per read.
const CREDIT_STEP_BYTES: u64 = 64 * 1024;

/// A keyframe as it came, for everyone who waits for one.
#[derive(Debug, Clone)]
pub(super) struct KeptKeyframe {
    /// How many had come on this stream, with it.
    pub(super) number: u64,
    /// Its position.
    pub(super) offset: u64,
    /// Size, then escape sequences, as on the wire.
    pub(super) payload: Bytes,
    /// Marks up to this one are in it.
    pub(super) mark: u64,
}

/// How the stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Size at the first byte.
    pub(super) size: WindowSize,
    /// Where it starts.
    pub(super) offset: u64,
    /// Whether that is what was asked for.
    pub(super) resumed: bool,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    opened: Option<Opened>,
    keyframes: u64,
    keyframe_requested: bool,
    keyframe: Option<KeptKeyframe>,
    granted: u64,
    limit_hits: u64,
    ended: Option<u64>,
    failed: Option<CommandError>,
    lost: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    link: Arc<Link>,
    stream: u32,
    spawn: SpawnNumber,
    from: Option<u64>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// What a viewer at some offset finds.
#[derive(Debug)]
pub(super) enum Next {
    /// A change of size.
    Mark(Mark),
    /// Bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Wait,
    /// Everything was read, and this is the end of the spawn's output.
    End(u64),
    /// The bytes are no longer here.
    Dropped,
    /// Everything was read, and no more comes on this stream.
    Lost,
    /// The host cannot serve it.
    Failed(CommandError),
}

impl Feed {
    /// Opens a stream. `from` none: it begins with a keyframe of now. `known`: a ring that ends where this stream begins.
    pub(super) fn open(
        link: &Arc<Link>,
        session: SessionId,
        spawn: SpawnNumber,
        from: Option<u64>,
        ahead: u64,
        known: Option<Ring>,
    ) -> Arc<Self> {
        let start = from.unwrap_or(0);
        let granted = start.saturating_add(ahead);
        let ring = known.unwrap_or_else(|| Ring::new(start, WindowSize::DEFAULT));
        let feed = link.open_feed(|stream| {
            let state = State {
                ring,
                opened: None,
                keyframes: 0,
                keyframe_requested: from.is_none(),
                keyframe: None,
                granted,
                limit_hits: 0,
                ended: None,
                failed: None,
                lost: false,
            };
            let (changed, state) = (watch::Sender::new(()), Mutex::new(state));
            Arc::new(Self { link: link.clone(), stream, spawn, from, state, changed })
        });
        let limit = if from.is_some() { granted } else { ahead };
        link.send(PlaneMessage::Watch { stream: feed.stream, session, spawn, from, limit });
        feed
    }

    /// The link it is on.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Its number there.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Whose output it is.
    pub(super) fn spawn(&self) -> SpawnNumber {
        self.spawn
    }

    /// Changes whenever something else may be found here.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    // What the host sent:

    /// The stream is open.
    pub fn opened(&self, size: WindowSize, offset: u64, resumed: bool) {
        self.change(|state| {
            let asked = self.from.is_some_and(|from| from == offset);
            // A ring that was handed on stays only if the stream goes on exactly where it ends.
            if !(resumed && asked && state.ring.head() == offset && state.ring.tail() < offset) {
                state.ring = Ring::new(offset, size);
            }
            let resumed = resumed && (self.from.is_none() || asked);
            state.opened = Some(Opened { size, offset, resumed });
            // Where the stream does not go on from what was asked for, credit for that was never given: it may have been beyond every end.
            if !asked {
                state.granted = offset + AHEAD_BYTES;
            }
            // A keyframe follows by itself where the stream does not go on.
            state.keyframe_requested |= state.keyframes == 0 && (self.from.is_none() || !resumed);
        });
    }

    /// Output.
    pub fn output(&self, offset: u64, payload: Bytes) {
        self.change(|state| {
            state.ring.push(offset, payload);
            state.limit_hits += u64::from(state.ring.head() + CREDIT_STEP_BYTES >= state.granted);
        });
    }

    /// A keyframe.
    pub fn keyframe(&self, offset: u64, payload: Bytes) {
        self.change(|state| {
            state.keyframes += 1;
            state.keyframe_requested = false;
            let (number, mark) = (state.keyframes, state.ring.last_mark());
            state.keyframe = Some(KeptKeyframe { number, offset, payload, mark });
        });
    }

    /// From an offset on the terminal has this size.
    pub fn resized(&self, offset: u64, size: WindowSize) {
        self.change(|state| state.ring.mark(offset, size));
    }

    /// All was sent.
    pub fn ended(&self, offset: u64) {
        self.change(|state| state.ended = Some(offset));
    }

    /// The host cannot go on with it.
    pub fn failed(&self, error: CommandError) {
        self.change(|state| state.failed = Some(error));
    }

    /// No more comes: the link is down, or the stream was closed here.
    pub fn lost(&self) {
        self.change(|state| state.lost = true);
    }

    // What viewers ask:

    /// Closes the stream.
    pub(super) fn close(&self) {
        self.link.close_feed(self.stream);
        self.lost();
    }

    /// How it began, once known.
    pub(super) fn opening(&self) -> Option<Opened> {
        self.lock().opened
    }

    /// Whether it can serve nobody any more.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.lost || state.failed.is_some()
    }

    /// Why the host could not serve it.
    pub(super) fn failure(&self) -> Option<CommandError> {
        self.lock().failed.clone()
    }

    /// End of output, if the spawn is over and all was sent.
    pub(super) fn end(&self) -> Option<u64> {
        self.lock().ended
    }

    /// What is at `offset` for a viewer that saw marks up to `seen`.
    pub(super) fn next(&self, offset: u64, seen: u64) -> Next {
        let state = self.lock();
        if let Some(error) = &state.failed {
            return Next::Failed(error.clone());
        }
        let ring = &state.ring;
        if let Some(mark) = ring.due_mark(offset, seen) {
            return Next::Mark(mark);
        }
        if offset < ring.tail() {
            return Next::Dropped;
        }
        if let Some(bytes) = ring.at(offset) {
            return Next::Bytes(bytes);
        }
        match state.ended {
            Some(end) if offset >= end => Next::End(end),
            _ if state.lost => Next::Lost,
            _ => Next::Wait,
        }
    }

    /// Whether the bytes from `offset` on are, or will be, in the ring; and the mark from which a viewer goes on there.
    pub(super) fn covers(&self, offset: u64) -> Option<u64> {
        let state = self.lock();
        let sound = state.opened.is_some() && !state.lost && state.failed.is_none();
        (sound && (state.ring.tail()..=state.ring.head()).contains(&offset)).then(|| state.ring.last_mark_below(offset))
    }

    /// The size at an offset.
    pub(super) fn size_at(&self, offset: u64) -> WindowSize {
        self.lock().ring.size_at(offset)
    }

    /// Offset after the newest byte.
    pub(super) fn head(&self) -> u64 {
        self.lock().ring.head()
    }

    /// Oldest offset that is there.
    pub(super) fn tail(&self) -> u64 {
        self.lock().ring.tail()
    }

    /// The ring, to be handed on to the next stream of the same spawn.
    pub(super) fn take_ring(&self) -> Option<Ring> {
        let mut state = self.lock();
        state.opened?;
        let (head, size) = (state.ring.head(), state.ring.newest_size());
        Some(std::mem::replace(&mut state.ring, Ring::new(head, size)))
    }

    /// How often the host had sent nearly all that it may: then credit held it back.
    pub(super) fn limit_hits(&self) -> u64 {
        self.lock().limit_hits
    }

    /// A keyframe that a newcomer may use: the output after it is still in the ring.
    pub(super) fn usable_keyframe(&self) -> Option<KeptKeyframe> {
        let state = self.lock();
        state.keyframe.clone().filter(|kept| kept.offset >= state.ring.tail() && kept.offset <= state.ring.head())
    }

    /// The keyframe with this number, or a newer one.
    pub(super) fn keyframe_from(&self, number: u64) -> Option<KeptKeyframe> {
        self.lock().keyframe.clone().filter(|kept| kept.number >= number)
    }

    /// Asks for a keyframe, unless one is under way. Gives the number that it will have at least.
    pub(super) fn request_keyframe(&self) -> u64 {
        let mut state = self.lock();
        let number = state.keyframes + 1;
        if !std::mem::replace(&mut state.keyframe_requested, true) {
            self.link.send(PlaneMessage::Keyframe { stream: self.stream });
        }
        number
    }

    /// A viewer was sent everything below an offset, or may be sent up to one: the host may go on beyond it.
    pub(super) fn grant(&self, limit: u64) {
        let mut state = self.lock();
        // Nobody was sent more than is here, whatever offset they named.
        let limit = limit.min(state.ring.head() + CREDIT_MAX_BYTES);
        // Before the stream is open, what it was opened with is what the host goes by.
        let goes_on = state.opened.is_some() && state.ended.is_none() && !state.lost;
        if goes_on && limit >= state.granted + CREDIT_STEP_BYTES {
            state.granted = limit;
            self.link.send(PlaneMessage::Credit { stream: self.stream, limit });
        }
    }

    /// Of a feed with one viewer: what was sent is of no more use.
    pub(super) fn drop_below(&self, offset: u64) {
        self.lock().ring.drop_below(offset);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held would be one of our own on plain data; the state stays readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
