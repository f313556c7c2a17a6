//! The broker of the egress gateway: keeps one running, hands it the listeners and policies of sessions, and takes what it has decided.
//!
//! The gateway is a process of its own that outlives this one, as shims do. At the start a living one is found by its socket; one of another
//! program or configuration is replaced: a new one is started, gets every session, and the old one retires, which cuts no tunnel. One that died is started again.
//! A connection that ended is made again first, because a gateway may live on without one. A session that could not be served is tried again until
//! it is. Decisions are acknowledged when they are in the outbox, so none that was sent is lost to a crash of the supervisor.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::egress::{EgressDecision, EgressPolicy, ListenerRole};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

mod broker;
mod environment;
mod place;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use broker::Broker;
pub(crate) use environment::{environment, listeners as listeners_for};
pub(crate) use place::Place;

/// Orders that wait. Overflow: the session that gives one waits.
const ORDERS_MAX: usize = 64;
/// A session that is to be served waits this long for a gateway; a start of one takes some 50 ms.
const SERVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A shim gives its listeners at once.
const LISTENERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a spawn's shim for duplicates of its listeners, in the order of its roles.
pub(crate) type ListenerSource = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Vec<OwnedFd>>> + Send + Sync>;
/// Takes decisions into the outbox; done when they are on disk.
pub(crate) type DecisionSink = Box<dyn Fn(Taken) -> BoxFuture<'static, Result<(), SinkError>> + Send + Sync>;
/// Whatever keeps decisions from being stored.
pub(crate) type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// What a gateway gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) decisions: Vec<EgressDecision>,
    /// How many it had to drop.
    pub(crate) dropped: u64,
}

/// The egress of one spawn.
#[derive(Clone)]
pub(crate) struct Egress {
    pub(crate) policy: EgressPolicy,
    pub(crate) roles: Vec<ListenerRole>,
    pub(crate) listeners: ListenerSource,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// Why a session has no egress.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Its shim.
    #[error("the shim did not give the session's listeners")]
    Listeners(#[source] io::Error),
    /// The gateway does not want it.
    #[error("the egress gateway refused the session: {0}")]
    Refused(String),
    /// There is no gateway.
    #[error("the egress gateway does not run (see gateway/log in the state directory)")]
    Gone,
}

#[derive(Debug)]
enum Order {
    Serve { session: SessionId, spawn: u32, egress: Egress, given: io::Result<Vec<OwnedFd>>, done: Done },
    Release { session: SessionId, spawn: u32 },
    Settled,
}

type Done = oneshot::Sender<Result<(), GatewayError>>;

/// Handle of the broker.
#[derive(Debug, Clone)]
pub(crate) struct Gateway(mpsc::Sender<Order>);

/// The other end of a handle, for the broker's task.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::Receiver<Order>);

impl Gateway {
    /// A handle and its other end.
    pub(crate) fn new() -> (Self, Orders) {
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        (Self(orders), Orders(taken))
    }

    /// Has a spawn served; a gateway is started if there is none. Doing it again renews policy and listeners. An error says that it is not served
    /// yet: that is tried until it is released, unless the gateway has refused it.
    pub(crate) async fn serve(&self, session: SessionId, spawn: u32, egress: Egress) -> Result<(), GatewayError> {
        let given = listeners(&egress).await;
        let (done, answered) = oneshot::channel();
        let order = Order::Serve { session, spawn, egress, given, done };
        let served = async {
            self.0.send(order).await.map_err(|_| GatewayError::Gone)?;
            answered.await.map_err(|_| GatewayError::Gone)?
        };
        timeout(SERVE_TIMEOUT, served).await.map_err(|_| GatewayError::Gone)?
    }

    /// A spawn is over. That it never was served does no harm.
    pub(crate) async fn release(&self, session: SessionId, spawn: u32) {
        // Without a broker there is nothing to release.
        let _sent = self.0.send(Order::Release { session, spawn }).await;
    }

    /// Every session that lives has asked to be served, also those whose shim was slow: what a gateway of before serves beyond these is over.
    pub(crate) async fn settled(&self) {
        let _sent = self.0.send(Order::Settled).await;
    }
}

async fn listeners(egress: &Egress) -> io::Result<Vec<OwnedFd>> {
    let given = timeout(LISTENERS_TIMEOUT, (egress.listeners)()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if given.len() == egress.roles.len() { Ok(given) } else { Err(io::ErrorKind::InvalidData.into()) }
}
