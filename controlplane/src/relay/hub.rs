//! One watched session: its record, its live feed, its viewers and who owns the size.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentapi_shared::{HostId, SessionId};
use tokio::sync::watch;

use super::feed::{AHEAD_BYTES, Feed};
use super::port::Port;
use crate::fleet::Link;
use crate::store::records::SessionRecord;

/// Every watched session. One that nobody watches costs nothing.
#[derive(Debug, Default, Clone)]
pub struct Hubs {
    hubs: Arc<Mutex<HashMap<SessionId, Arc<Hub>>>>,
}

/// How a session is now, for viewers.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Its record.
    pub(super) record: Arc<SessionRecord>,
    /// Whether its host is connected.
    pub(super) reachable: bool,
    /// Whether it is gone.
    pub(super) purged: bool,
    /// Who owns the size.
    pub(super) size_owner: Option<u64>,
}

#[derive(Debug)]
struct State {
    view: View,
    live: Option<Arc<Feed>>,
    viewers: BTreeMap<u64, Arc<Port>>,
    next_viewer: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    session: SessionId,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// One viewer's place in a hub; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    hubs: Hubs,
    pub(super) hub: Arc<Hub>,
    pub(super) viewer: u64,
    pub(super) port: Arc<Port>,
}

impl Hubs {
    /// Takes a place among the viewers of a session.
    pub(super) fn join(&self, record: &SessionRecord, reachable: bool) -> Seat {
        let mut hubs = lock(&self.hubs);
        let hub = hubs.entry(record.id).or_insert_with(|| Arc::new(Hub::new(record, reachable))).clone();
        let port = Arc::new(Port::default());
        let viewer = {
            let mut state = hub.lock();
            let viewer = state.next_viewer;
            state.next_viewer += 1;
            state.viewers.insert(viewer, port.clone());
            viewer
        };
        drop(hubs);
        Seat { hubs: self.clone(), hub, viewer, port }
    }

    fn get(&self, id: SessionId) -> Option<Arc<Hub>> {
        lock(&self.hubs).get(&id).cloned()
    }

    /// Whether somebody watches a session.
    #[must_use]
    pub fn is_watched(&self, id: SessionId) -> bool {
        lock(&self.hubs).contains_key(&id)
    }

    /// A session changed.
    pub fn session_changed(&self, record: &SessionRecord, reachable: bool) {
        if let Some(hub) = self.get(record.id) {
            hub.update(record, reachable);
        }
    }

    /// A session is gone.
    pub fn session_purged(&self, id: SessionId) {
        if let Some(hub) = self.get(id) {
            hub.change(|state| state.view.purged = true);
        }
    }

    /// A host came or went.
    pub fn host_changed(&self, host: HostId, reachable: bool) {
        let hubs: Vec<_> = lock(&self.hubs).values().cloned().collect();
        for hub in hubs {
            hub.change(|state| {
                if state.view.record.host == Some(host) {
                    state.view.reachable = reachable;
                }
            });
        }
    }
}

impl Hub {
    fn new(record: &SessionRecord, reachable: bool) -> Self {
        let view = View { record: Arc::new(record.clone()), reachable, purged: false, size_owner: None };
        let state = State { view, live: None, viewers: BTreeMap::new(), next_viewer: 1 };
        Self { session: record.id, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// A record, unless a newer one is known.
    pub(super) fn update(&self, record: &SessionRecord, reachable: bool) {
        self.change(|state| {
            if record.revision >= state.view.record.revision {
                state.view.record = Arc::new(record.clone());
                state.view.reachable = reachable;
            }
        });
    }

    /// How the session is now.
    pub(super) fn view(&self) -> View {
        self.lock().view.clone()
    }

    /// Changes whenever the view does, or the live feed is another.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The live feed of the newest spawn, opened if there is none. `from`: where it should begin if it has to be opened.
    pub(super) fn live(&self, link: &Arc<Link>, from: Option<u64>) -> Arc<Feed> {
        let mut state = self.lock();
        let spawn = state.view.record.spawn();
        if let Some(live) = &state.live
            && live.spawn() == spawn
            && !live.is_over()
        {
            return live.clone();
        }
        let before = state.live.take();
        // The bytes that the one before has got stay of use: the new one goes on where it ends.
        let handed = before.as_ref().filter(|live| live.spawn() == spawn).and_then(|live| live.take_ring());
        let from = handed.as_ref().map(super::ring::Ring::head).or(from);
        if let Some(before) = before {
            before.close();
        }
        let live = Feed::open(link, self.session, spawn, from, AHEAD_BYTES, handed);
        state.live = Some(live.clone());
        drop(state);
        self.changed.send_replace(());
        live
    }

    /// The live feed, if there is one and it goes on.
    pub(super) fn current(&self) -> Option<Arc<Feed>> {
        self.lock().live.clone().filter(|live| !live.is_over())
    }

    /// Opens the live feed anew at an offset, if it is still `old`: nobody took what is before it.
    pub(super) fn restart_live(&self, old: &Arc<Feed>, from: u64) {
        let mut state = self.lock();
        if !state.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, old)) {
            return;
        }
        old.close();
        state.live = Some(Feed::open(old.link(), self.session, old.spawn(), Some(from), AHEAD_BYTES, None));
        drop(state);
        self.changed.send_replace(());
    }

    /// Which session it is.
    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Makes a viewer the owner of the size. If that is new, tells who was it before.
    pub(super) fn take_size(&self, viewer: u64) -> Option<Option<u64>> {
        let mut state = self.lock();
        if state.view.size_owner == Some(viewer) {
            return None;
        }
        let before = state.view.size_owner.replace(viewer);
        drop(state);
        self.changed.send_replace(());
        Some(before)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The map is locked first, as in `join`, so that nobody enters a hub that is being taken out.
        let mut hubs = lock(&self.hubs.hubs);
        let mut state = self.hub.lock();
        state.viewers.remove(&self.viewer);
        if state.view.size_owner == Some(self.viewer) {
            state.view.size_owner = None;
        }
        if state.viewers.is_empty() {
            if let Some(live) = state.live.take() {
                live.close();
            }
            hubs.remove(&self.hub.session);
        }
        drop(state);
        drop(hubs);
        self.hub.changed.send_replace(());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Map operations only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
