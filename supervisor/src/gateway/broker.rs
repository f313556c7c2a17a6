//! The broker's task: which gateway serves, which sessions it has to serve, and what it decided on its way to the outbox.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::egress::{EgressDecision, GatewayEvent, GatewayRequest, Lasting};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::place::{Fit, Found, Running};
use super::{DecisionSink, Done, Egress, GatewayError, Order, Orders, Place, Taken, listeners};
use crate::chain;

/// Decisions stored in one go: one sync of the disk for all of them.
const BATCH_MAX: usize = 256;
/// Waits between attempts to start a gateway, to serve a session, and to store decisions.
const BACKOFF_MS: [u64; 5] = [0, 250, 1000, 2000, 5000];

#[derive(Debug)]
struct Wanted {
    spawn: u32,
    egress: Egress,
    state: State,
    waiting: Vec<Done>,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No gateway knows of it.
    Unserved,
    /// The current gateway was asked, or serves it.
    Asked,
}

/// Decisions that could not be stored. Nothing is read from a gateway before they are: it keeps the others.
#[derive(Debug)]
struct Unstored {
    /// The gateway that gave them.
    from: u64,
    taken: Taken,
    last: Option<u64>,
    failures: usize,
    retry: Instant,
}

/// The broker.
pub(crate) struct Broker {
    place: Place,
    sink: DecisionSink,
    wanted: HashMap<SessionId, Wanted>,
    /// The gateway that serves.
    current: Option<Running>,
    /// One that served, whose connection ended, and of which is not known whether it lives.
    lost: Option<u64>,
    /// Others: of another release, or retired.
    older: Vec<Running>,
    /// Sessions that gateways of before serve.
    found: Vec<(SessionId, u32)>,
    settled: bool,
    failures: usize,
    /// When what failed is tried again.
    retry: Option<Instant>,
    unstored: Option<Unstored>,
}

/// What happened next.
enum Next {
    Order(Option<Order>),
    Retry,
    Store,
    Event(u64, io::Result<GatewayEvent>),
}

fn backoff(failures: usize) -> Instant {
    let wait = BACKOFF_MS.get(failures).or(BACKOFF_MS.last()).copied().unwrap_or(0);
    Instant::now() + Duration::from_millis(wait)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Broker {
    pub(crate) fn new(place: Place, sink: DecisionSink) -> Self {
        Self {
            place,
            sink,
            wanted: HashMap::new(),
            current: None,
            lost: None,
            older: Vec::new(),
            found: Vec::new(),
            settled: false,
            failures: 0,
            retry: None,
            unstored: None,
        }
    }

    /// Serves orders until the daemon ends; the gateway goes on.
    pub(crate) async fn run(mut self, mut orders: Orders, cancelled: CancellationToken) {
        let work = async {
            self.find().await;
            loop {
                match self.next(&mut orders).await {
                    Next::Order(None) => return,
                    Next::Order(Some(order)) => self.obey(order).await,
                    Next::Retry => self.catch_up().await,
                    Next::Store => self.store_again().await,
                    Next::Event(number, Ok(event)) => self.take(number, event).await,
                    Next::Event(number, Err(error)) => self.ended(number, &error).await,
                }
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = work => {}
        }
    }

    async fn next(&mut self, orders: &mut Orders) -> Next {
        let event = async {
            let all: Vec<_> = self.current.iter().chain(&self.older).collect();
            if all.is_empty() || self.unstored.is_some() {
                return std::future::pending().await;
            }
            let receiving = all.iter().map(|running| Box::pin(running.socket.receive()));
            let (event, index, _) = futures_util::future::select_all(receiving).await;
            match all.get(index) {
                Some(running) => (running.number, event),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.0.recv() => Next::Order(order),
            () = until(self.retry) => Next::Retry,
            () = until(self.unstored.as_ref().map(|unstored| unstored.retry)) => Next::Store,
            (number, event) = event => Next::Event(number, event),
        }
    }

    /// Takes over the gateways that live: the newest that is ours serves, the others are replaced.
    async fn find(&mut self) {
        for number in self.place.numbers() {
            match self.place.connect(number).await {
                Ok(Some(found)) => self.adopt(found),
                Ok(None) => {}
                Err(error) => {
                    warn!(number, %error, "an egress gateway does not answer");
                    self.lost = Some(number);
                }
            }
        }
    }

    fn adopt(&mut self, found: Found) {
        let Found { running, fit, sessions } = found;
        match fit {
            Fit::Ours => {
                self.found.extend(sessions);
                self.older.extend(self.current.replace(running));
            }
            Fit::Another => self.older.push(running),
        }
    }

    /// A connection has ended. That is not always the end of its gateway.
    async fn ended(&mut self, number: u64, error: &io::Error) {
        if self.current.as_ref().is_some_and(|current| current.number == number) {
            warn!(%error, "the connection to the egress gateway is gone");
            self.current = None;
            self.lost = Some(number);
            for wanted in self.wanted.values_mut() {
                wanted.state = State::Unserved;
            }
            self.catch_up().await;
            return;
        }
        self.older.retain(|older| older.number != number);
        match self.place.connect(number).await {
            Ok(Some(found)) => {
                self.older.push(found.running);
                self.retire().await;
            }
            Ok(None) => info!(number, "a retired egress gateway has ended"),
            Err(error) => warn!(number, %error, "a retired egress gateway does not answer"),
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Serve { session, spawn, egress, given, done } => {
                let mut waiting = self.wanted.remove(&session).map(|wanted| wanted.waiting).unwrap_or_default();
                waiting.push(done);
                self.wanted.insert(session, Wanted { spawn, egress, state: State::Unserved, waiting });
                match given {
                    Ok(descriptors) if self.current.is_some() => self.hand_over(session, descriptors).await,
                    // Started now, or together with what else waits for the next attempt.
                    Ok(_) if self.retry.is_none() => self.catch_up().await,
                    Ok(_) => {}
                    Err(error) => {
                        self.fail(session, GatewayError::Listeners(error));
                        self.try_again();
                    }
                }
            }
            Order::Release { session, spawn } => {
                if self.wanted.get(&session).is_some_and(|wanted| wanted.spawn == spawn) {
                    self.wanted.remove(&session);
                }
                for running in self.current.iter().chain(&self.older) {
                    // One that is gone serves nothing.
                    let _sent = running.socket.send(&GatewayRequest::Release { session, spawn }, &[]).await;
                }
            }
            Order::Settled => {
                self.settled = true;
                self.release_found().await;
                self.retire().await;
            }
        }
    }

    /// Releases what the current gateway serves and nobody wants.
    async fn release_found(&mut self) {
        let Some(current) = self.current.clone().filter(|_| self.settled) else { return };
        for (session, spawn) in std::mem::take(&mut self.found) {
            if self.wanted.get(&session).is_none_or(|wanted| wanted.spawn != spawn) {
                let _sent = current.socket.send(&GatewayRequest::Release { session, spawn }, &[]).await;
            }
        }
    }

    /// Lets older gateways go, once their sessions have another.
    async fn retire(&self) {
        let served = self.wanted.is_empty() || self.current.is_some();
        if !self.settled || !served {
            return;
        }
        for running in &self.older {
            let _sent = running.socket.send(&GatewayRequest::Retire, &[]).await;
        }
    }

    /// Sends one session to the current gateway. If that is gone, whoever reads from it notices.
    async fn hand_over(&mut self, session: SessionId, descriptors: Vec<OwnedFd>) {
        let (Some(current), Some(wanted)) = (&self.current, self.wanted.get_mut(&session)) else { return };
        let Wanted { spawn, egress, .. } = wanted;
        let (policy, listeners) = (egress.policy.clone(), egress.roles.clone());
        let request = GatewayRequest::Session { session, spawn: *spawn, policy, listeners };
        match current.socket.send(&request, &descriptors).await {
            Ok(()) => wanted.state = State::Asked,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.refuse(session, &error.to_string()),
            Err(error) => {
                warn!(session.id = %session, %error, "a session could not be handed to the egress gateway");
                self.try_again();
            }
        }
    }

    /// Has what is not served tried again, later each time.
    fn try_again(&mut self) {
        if self.retry.is_none() {
            self.failures += 1;
            self.retry = Some(backoff(self.failures));
        }
    }

    /// A gateway, if there is none and somebody needs one, and every session that it does not serve yet.
    async fn catch_up(&mut self) {
        self.retry = None;
        if self.wanted.is_empty() && self.lost.is_none() {
            return;
        }
        if let Err(reason) = self.bring_up().await {
            warn!(reason, failures = self.failures, "there is no egress gateway");
            // Whoever waits is told; all are served as soon as they can be.
            let all: Vec<SessionId> = self.wanted.keys().copied().collect();
            for session in all {
                self.fail(session, GatewayError::Gone);
            }
            self.try_again();
            return;
        }
        let unserved = self.wanted.iter().filter(|(_, wanted)| wanted.state == State::Unserved);
        let unserved: Vec<(SessionId, Egress)> =
            unserved.map(|(session, wanted)| (*session, wanted.egress.clone())).collect();
        let asked = unserved.iter().map(|(session, egress)| async move { (*session, listeners(egress).await) });
        for (session, given) in join_all(asked).await {
            match given {
                Ok(descriptors) => self.hand_over(session, descriptors).await,
                Err(error) => {
                    self.fail(session, GatewayError::Listeners(error));
                    self.try_again();
                }
            }
        }
        if self.retry.is_none() {
            self.failures = 0;
        }
        self.release_found().await;
        self.retire().await;
    }

    /// Connects to the gateway that was lost, and starts another only if that one has ended.
    async fn bring_up(&mut self) -> Result<(), String> {
        if let Some(number) = self.lost.filter(|_| self.current.is_none()) {
            if let Some(found) = self.place.connect(number).await.map_err(|error| error.to_string())? {
                self.adopt(found);
            }
            self.lost = None;
        }
        if self.current.is_none() && !self.wanted.is_empty() {
            self.current = Some(self.place.start().await.map_err(|error| chain(&error))?);
        }
        Ok(())
    }

    /// Tells whoever waits that the session is not served. It stays wanted.
    fn fail(&mut self, session: SessionId, error: GatewayError) {
        let Some(wanted) = self.wanted.get_mut(&session) else { return };
        let detail = chain(&error);
        let mut error = Some(error);
        for done in wanted.waiting.drain(..) {
            // Whoever asked may have given up.
            let _told = done.send(Err(error.take().unwrap_or_else(|| GatewayError::Refused(detail.clone()))));
        }
    }

    /// A session that no gateway would take, however often it is asked.
    fn refuse(&mut self, session: SessionId, detail: &str) {
        warn!(session.id = %session, detail, "a session has no egress");
        self.fail(session, GatewayError::Refused(detail.to_owned()));
        self.wanted.remove(&session);
    }

    async fn take(&mut self, number: u64, event: GatewayEvent) {
        match event {
            GatewayEvent::Decision { seq, decision } => self.read_on(number, Some((seq, *decision)), 0).await,
            GatewayEvent::Dropped { count } => self.read_on(number, None, count).await,
            other => self.heed(number, other),
        }
    }

    /// An answer; those of older gateways are about what the current one does now.
    fn heed(&mut self, number: u64, event: GatewayEvent) {
        if self.current.as_ref().is_none_or(|current| current.number != number) {
            return;
        }
        match event {
            GatewayEvent::Serving { session, spawn } => {
                let Some(wanted) = self.wanted.get_mut(&session).filter(|wanted| wanted.spawn == spawn) else { return };
                for done in wanted.waiting.drain(..) {
                    let _told = done.send(Ok(()));
                }
            }
            GatewayEvent::Refused { session, detail, lasting: Lasting::Permanent } => self.refuse(session, &detail),
            GatewayEvent::Refused { session, detail, lasting: Lasting::Transient } => {
                warn!(session.id = %session, detail, "a session has no egress yet");
                if let Some(wanted) = self.wanted.get_mut(&session) {
                    wanted.state = State::Unserved;
                }
                self.fail(session, GatewayError::Refused(detail));
                self.try_again();
            }
            _ => {}
        }
    }

    /// Takes a decision and those that are there behind it, and stores them.
    async fn read_on(&mut self, number: u64, first: Option<(u64, EgressDecision)>, dropped: u64) {
        let mut all = self.current.iter().chain(&self.older);
        let Some(socket) = all.find(|running| running.number == number).map(|running| running.socket.clone()) else {
            return;
        };
        let mut taken = Taken { decisions: Vec::new(), dropped };
        let mut last = None;
        if let Some((seq, decision)) = first {
            (last, taken.decisions) = (Some(seq), vec![decision]);
        }
        while taken.decisions.len() < BATCH_MAX {
            match socket.receive_now() {
                Some(GatewayEvent::Decision { seq, decision }) => {
                    last = Some(seq);
                    taken.decisions.push(*decision);
                }
                Some(GatewayEvent::Dropped { count }) => taken.dropped += count,
                Some(other) => self.heed(number, other),
                None => break,
            }
        }
        self.store(Unstored { from: number, taken, last, failures: 0, retry: Instant::now() }).await;
    }

    async fn store_again(&mut self) {
        if let Some(unstored) = self.unstored.take() {
            self.store(unstored).await;
        }
    }

    /// Stores decisions and acknowledges the last, or keeps them for another attempt.
    async fn store(&mut self, mut unstored: Unstored) {
        if let Err(error) = (self.sink)(unstored.taken.clone()).await {
            warn!(error = chain(error.as_ref()), failures = unstored.failures, "egress decisions could not be stored");
            unstored.failures += 1;
            unstored.retry = backoff(unstored.failures);
            self.unstored = Some(unstored);
            return;
        }
        let Some(seq) = unstored.last else { return };
        let giver = self.current.iter().chain(&self.older).find(|running| running.number == unstored.from);
        if let Some(running) = giver {
            let _sent = running.socket.send(&GatewayRequest::Ack { seq }, &[]).await;
        }
    }
}
