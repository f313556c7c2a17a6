//! The event stream: everything a caller may see, in one order, with a bounded memory for those who reconnect.
//!
//! One ring for all; a subscriber is only a position in it. A subscriber that falls out of the ring is ended and comes back with its
//! last id, so nothing grows for it. An event about a session that is older than one already told is left out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentapi_shared::api::ServerEvent;
use agentapi_shared::{EventId, OrgId, SessionId};
use tokio::sync::watch;

use crate::store::records::SessionFacts;

/// Events remembered. Overflow: the oldest is forgotten, and who needs it is told `gap`.
pub const EVENTS_MAX: usize = 1000;

/// One event, written once for all subscribers.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number; from 1.
    pub seq: u64,
    /// Its name.
    pub name: &'static str,
    /// Its JSON.
    pub data: std::sync::Arc<str>,
    org: Option<OrgId>,
    session: Option<SessionId>,
    audience: Audience,
}

/// Who of an organisation is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody.
    All,
    /// Whoever sees a session with these facts.
    Sees(SessionFacts),
    /// Whoever saw it before and does not now.
    Lost {
        /// As it was.
        before: SessionFacts,
        /// As it is.
        now: SessionFacts,
    },
}

impl Event {
    /// Whether a member of that organisation is told, who `sees` sessions with such facts.
    pub fn is_for(&self, org: OrgId, sees: impl Fn(SessionFacts) -> bool) -> bool {
        self.org.is_none_or(|own| own == org)
            && match self.audience {
                Audience::All => true,
                Audience::Sees(facts) => sees(facts),
                Audience::Lost { before, now } => sees(before) && !sees(now),
            }
    }
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Everything after this event follows.
    Resumed(u64),
    /// Something was missed, or there was nothing before; this is the newest event.
    Gap(u64),
}

/// The subscriber was too slow: events that it did not see are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber fell out of the ring")]
pub struct Lagged;

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    last: u64,
    /// Newest revision told of each session that has an event in the ring.
    revisions: HashMap<SessionId, u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Events {
    /// Tells one run of the process from the next, in which numbers begin anew.
    boot: String,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// An empty ring.
    #[must_use]
    pub fn new() -> Self {
        let boot = EventId::generate().to_string();
        Self { boot, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// The id of an event on the wire.
    #[must_use]
    pub fn id_of(&self, seq: u64) -> String {
        format!("{}-{seq}", self.boot)
    }

    /// Tells the members of an organisation, or everyone.
    pub fn publish(&self, org: Option<OrgId>, event: &ServerEvent) {
        self.push(org, None, Audience::All, event);
    }

    /// Tells those who see it how a session is at a revision, unless something newer was told already.
    pub fn publish_session(&self, org: OrgId, id: SessionId, revision: u64, audience: Audience, event: &ServerEvent) {
        self.push(Some(org), Some((id, revision)), audience, event);
    }

    fn push(&self, org: Option<OrgId>, session: Option<(SessionId, u64)>, audience: Audience, event: &ServerEvent) {
        // A value of our own types always has a JSON form.
        let Ok(data) = serde_json::to_string(event) else { return };
        let mut ring = self.lock();
        if let Some((id, revision)) = session {
            let told = ring.revisions.entry(id).or_default();
            // The same revision again is allowed: the reach of its host may have changed.
            if revision < *told {
                return;
            }
            *told = revision;
        }
        ring.last += 1;
        let seq = ring.last;
        ring.events.push_back(Event {
            seq,
            name: name_of(event),
            data: data.into(),
            org,
            session: session.map(|(id, _)| id),
            audience,
        });
        if ring.events.len() > EVENTS_MAX {
            ring.forget_oldest();
        }
        drop(ring);
        self.last.send_replace(seq);
    }

    /// Where a subscriber that last saw the event with this id goes on.
    #[must_use]
    pub fn start(&self, last_event_id: Option<&str>) -> Start {
        let ring = self.lock();
        let seen = last_event_id
            .and_then(|id| id.strip_prefix(self.boot.as_str())?.strip_prefix('-')?.parse::<u64>().ok())
            .filter(|seen| *seen <= ring.last && seen + 1 >= ring.first());
        seen.map_or(Start::Gap(ring.last), Start::Resumed)
    }

    /// The event after `seq`; none if there is none yet.
    pub fn after(&self, seq: u64) -> Result<Option<Event>, Lagged> {
        let ring = self.lock();
        if seq + 1 < ring.first() {
            return Err(Lagged);
        }
        let index = usize::try_from(seq + 1 - ring.first()).unwrap_or(usize::MAX);
        Ok(ring.events.get(index).cloned())
    }

    /// Whether anything was told of a session after `seq`, and the number of the newest event.
    #[must_use]
    pub fn told_since(&self, seq: u64, id: SessionId) -> (bool, u64) {
        let ring = self.lock();
        // What fell out of the ring may have been about it.
        let lagged = seq + 1 < ring.first();
        let told = ring.events.iter().rev().take_while(|event| event.seq > seq).any(|event| event.session == Some(id));
        (lagged || told, ring.last)
    }

    /// Changes whenever there is a newer event.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // The ring is never left half-changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn first(&self) -> u64 {
        self.events.front().map_or(self.last + 1, |event| event.seq)
    }

    fn forget_oldest(&mut self) {
        let Some(id) = self.events.pop_front().and_then(|event| event.session) else { return };
        if !self.events.iter().any(|event| event.session == Some(id)) {
            self.revisions.remove(&id);
        }
    }
}

fn name_of(event: &ServerEvent) -> &'static str {
    match event {
        ServerEvent::Hello { .. } => "hello",
        ServerEvent::Session { .. } => "session",
        ServerEvent::SessionPurged { .. } => "session_purged",
        ServerEvent::SessionHidden { .. } => "session_hidden",
        ServerEvent::Host { .. } => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::DEFAULT_ORG;

    fn purged(events: &Events, id: SessionId, revision: u64) {
        events.publish_session(DEFAULT_ORG, id, revision, Audience::All, &ServerEvent::SessionPurged { id });
    }

    #[test]
    fn a_subscriber_resumes_while_the_ring_has_what_it_missed() {
        let events = Events::new();
        assert_eq!(events.start(None), Start::Gap(0));
        for _ in 0..3 {
            purged(&events, SessionId::generate(), 1);
        }
        assert_eq!(events.start(Some(&events.id_of(1))), Start::Resumed(1));
        assert_eq!(events.after(1).unwrap().map(|event| event.seq), Some(2));
        assert_eq!(events.start(Some(&events.id_of(3))), Start::Resumed(3));
        assert!(events.after(3).unwrap().is_none());
        // Of another run, of the future, or nonsense.
        for id in [Events::new().id_of(1), events.id_of(4), "x".to_owned(), String::new()] {
            assert_eq!(events.start(Some(&id)), Start::Gap(3), "{id}");
        }
        for _ in 0..EVENTS_MAX {
            purged(&events, SessionId::generate(), 1);
        }
        assert_eq!(events.after(2).map(|_| ()), Err(Lagged));
        assert!(matches!(events.start(Some(&events.id_of(2))), Start::Gap(_)));
        assert_eq!(events.start(Some(&events.id_of(3))), Start::Resumed(3));
        assert_eq!(events.lock().revisions.len(), EVENTS_MAX);
    }

    #[test]
    fn what_is_late_is_left_out() {
        let (events, id) = (Events::new(), SessionId::generate());
        for revision in [1, 3, 2, 3] {
            purged(&events, id, revision);
        }
        assert_eq!(*events.watch().borrow(), 3);
    }
}
