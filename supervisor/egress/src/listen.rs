//! Listeners: taking connections in and giving each to what its listener is for, within the session's caps.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::egress::ListenerRole;
use agentapi_shared::runtime::OnEnd;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::dial::prepare;
use crate::gateway::Shared;
use crate::model::{Model, UpstreamError};
use crate::proxy;
use crate::refusal::Refusal;
use crate::session::Session;

/// After an accept that failed for want of descriptors or memory: others end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What waits for a client to take it; the kernel allows twice as much, its own bookkeeping included. A client is on this host, where nothing is on
/// its way for long: more than what a processor's cache holds makes a transfer slower, by a sixth, and lets slow clients keep megabytes.
const CLIENT_SEND_BYTES: usize = 256 * 1024;

/// Why a listener is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The descriptor.
    #[error("a descriptor is no listening socket")]
    NotListening,
    /// The runtime.
    #[error("a listener cannot be watched")]
    Watch(#[source] std::io::Error),
    /// What a model listener leads to.
    #[error("a model listener cannot be set up")]
    Upstream(#[from] UpstreamError),
}

/// A listener and what it is for.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    role: Role,
}

#[derive(Debug, Clone)]
enum Role {
    Proxy,
    Model(Arc<Model>),
}

impl Server {
    /// Takes a descriptor over.
    pub(crate) fn new(role: ListenerRole, descriptor: OwnedFd, shared: &Arc<Shared>) -> Result<Self, ListenError> {
        if !getsockopt(&descriptor, sockopt::AcceptConn).unwrap_or(false) {
            return Err(ListenError::NotListening);
        }
        let listener = std::net::TcpListener::from(descriptor);
        listener.set_nonblocking(true).map_err(ListenError::Watch)?;
        let role = match role {
            ListenerRole::Proxy => Role::Proxy,
            ListenerRole::Model { name, upstream, header, value } => {
                Role::Model(Arc::new(Model::new(&name, &upstream, &header, &value, shared)?))
            }
        };
        Ok(Self { listener: TcpListener::from_std(listener).map_err(ListenError::Watch)?, role })
    }
}

/// Accepts until the listener is closed.
pub(crate) async fn serve(session: Arc<Session>, server: Server, closed: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            accepted = server.listener.accept() => accepted,
        };
        match accepted {
            // Closed at once, so that the supervisor is heard whatever sessions do.
            Ok((stream, _)) if !session.shared.descriptors.allow(&stream) => {
                session.refuse(session.record("", 0), &Refusal::ConnectionsMax);
                drop(stream);
                sleep(ACCEPT_PAUSE).await;
            }
            Ok((stream, _)) => take_in(&session, stream, server.role.clone()),
            Err(error) => {
                warn!(session.id = %session.id, %error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn take_in(session: &Arc<Session>, stream: TcpStream, role: Role) {
    // Paid here for its first request, whatever that is, and also if none comes.
    let admitted = session.meter.open().and_then(|permit| session.meter.count_one().map(|()| permit));
    let (permit, refused) = match admitted {
        Ok(permit) => (permit, None),
        // A few are told why, the others only see their connection closed.
        Err(refusal) => match session.meter.open_to_refuse() {
            Some(permit) => (permit, Some(refusal)),
            None => {
                session.refuse(session.record("", 0), &refusal);
                return;
            }
        },
    };
    prepare(&stream);
    // The kernel's own choice works too.
    let _bounded = setsockopt(&stream, sockopt::SndBuf, &CLIENT_SEND_BYTES);
    let (session, open) = (Arc::clone(session), session.shared.count());
    let cancelled = session.tasks().cancelled();
    session.tasks().clone().spawn("connection", OnEnd::Continue, async move {
        let _counted = (permit, open);
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = connection(session, stream, role, refused) => {}
        }
    });
}

async fn connection(session: Arc<Session>, stream: TcpStream, role: Role, refused: Option<Refusal>) {
    match role {
        Role::Proxy => proxy::serve(session, stream, refused).await,
        Role::Model(model) => model.serve(session, stream, refused).await,
    }
}
