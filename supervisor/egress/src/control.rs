//! The supervisor's socket: its requests in, answers and decisions out. One connection at a time; a new one replaces the old.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::egress::{GatewayEvent, GatewayRequest, LISTENERS_MAX, MESSAGE_BYTES_MAX, PROTOCOL};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt,
    listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::unistd::Uid;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::gateway::Gateway;
use crate::sys;

/// Supervisors that wait to be taken in: there is one, and the one before it.
const BACKLOG: i32 = 8;
/// A supervisor says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// What a retired gateway has decided is kept for a supervisor this long after its last tunnel.
const RETIRED_LINGER: Duration = Duration::from_secs(60);
/// Whoever starts a gateway greets it at once; one that nobody has greeted by then is needed by nobody.
const GREETING_TIMEOUT: Duration = Duration::from_secs(60);
/// After an accept that failed for want of descriptors or memory: others end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the socket. Its path may be longer than a socket's address, so it is reached through its directory.
pub(crate) fn make(path: &Path) -> io::Result<OwnedFd> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // Its user alone; as root that is root, also when this process no longer is.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    bind(made.as_raw_fd(), &UnixAddr::new(&short)?)?;
    listen(&made, Backlog::new(BACKLOG)?)?;
    Ok(made)
}

/// Serves supervisors until nothing is left to do: the gateway has retired, or the supervisor went and has left no session behind, or none ever came.
/// `trusted` is the user who started this process.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listener: OwnedFd,
    trusted: Uid,
    configuration: &str,
) -> io::Result<()> {
    let listener = watched(listener)?;
    let mut connection: Option<Connection> = None;
    let (mut retired, mut greeted) = (false, false);
    let ungreeted = Instant::now() + GREETING_TIMEOUT;
    loop {
        greeted |= connection.as_ref().is_some_and(|connection| connection.greeted);
        let needless = retired || (greeted && connection.is_none() && gateway.sessions().is_empty());
        let serving = async {
            match &mut connection {
                Some(connection) => connection.serve(&gateway, configuration).await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            if !needless {
                std::future::pending::<()>().await;
            }
            finish(&gateway).await;
        };
        tokio::select! {
            // Whoever comes at the last moment is taken in before this process ends.
            biased;
            socket = accept(&listener, trusted) => connection = Some(Connection::new(socket)),
            ended = serving => {
                match ended {
                    End::Retire => retired = true,
                    End::Gone(error) => {
                        info!(%error, "the supervisor went; tunnels go on");
                        greeted |= connection.take().is_some_and(|connection| connection.greeted);
                    }
                }
            }
            () = over => return Ok(()),
            () = sleep_until(ungreeted), if !greeted => {
                greeted = connection.as_ref().is_some_and(|connection| connection.greeted);
                if !greeted {
                    warn!("no supervisor has come");
                    return Ok(());
                }
            }
        }
    }
}

/// Until every tunnel has ended, and what was decided is stored or nobody comes for it.
async fn finish(gateway: &Gateway) {
    gateway.idle().await;
    let mut newest = gateway.decisions().newest();
    let stored = async { while !gateway.decisions().is_empty() && newest.changed().await.is_ok() {} };
    // The supervisor counts on no more than that.
    let _stored = timeout(RETIRED_LINGER, stored).await;
}

/// The next connection of somebody who has business here. That one cannot be taken in is nothing to end for.
async fn accept(listener: &UnixDatagram, trusted: Uid) -> UnixDatagram {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    loop {
        match listener.async_io(Interest::READABLE, || Ok(accept4(listener.as_raw_fd(), flags)?)).await {
            Ok(accepted) => match take_in(sys::own_received(accepted), trusted) {
                Ok(Some(socket)) => return socket,
                Ok(None) => warn!("a connection of a stranger was refused"),
                Err(error) => warn!(%error, "a supervisor's connection cannot be used"),
            },
            Err(error) => {
                warn!(%error, "a supervisor could not be taken in");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn take_in(socket: OwnedFd, trusted: Uid) -> io::Result<Option<UnixDatagram>> {
    let peer = Uid::from_raw(getsockopt(&socket, sockopt::PeerCredentials)?.uid());
    if !peer.is_root() && peer != trusted {
        return Ok(None);
    }
    setsockopt(&socket, sockopt::SndBuf, &(2 * MESSAGE_BYTES_MAX))?;
    watched(socket).map(Some)
}

/// A socket that the runtime watches. It is of another type than the wrapper's name says; only its readiness is used, and calls that fit both.
fn watched(socket: OwnedFd) -> io::Result<UnixDatagram> {
    UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))
}

/// How a connection's part ended.
enum End {
    /// Asked to retire; the connection goes on.
    Retire,
    /// Closed or broken.
    Gone(io::Error),
}

#[derive(Debug)]
struct Connection {
    socket: UnixDatagram,
    greeted: bool,
    /// Answers that are still to be sent, the newest of each session: as many as the supervisor has sessions.
    answers: HashMap<SessionId, GatewayEvent>,
    /// Number of the last decision sent on this connection.
    sent: u64,
}

/// What was sent.
enum Sent {
    Answer(SessionId),
    Dropped(u64),
    /// Up to this number.
    Decision(u64),
}

impl Connection {
    fn new(socket: UnixDatagram) -> Self {
        Self { socket, greeted: false, answers: HashMap::new(), sent: 0 }
    }

    async fn serve(&mut self, gateway: &Gateway, configuration: &str) -> End {
        match self.run(gateway, configuration).await {
            Ok(()) => End::Retire,
            Err(error) => End::Gone(error),
        }
    }

    /// Until it is asked to retire. May be dropped at any await: nothing is half done then.
    async fn run(&mut self, gateway: &Gateway, configuration: &str) -> io::Result<()> {
        if !self.greeted {
            let socket = &self.socket;
            let hello = timeout(HELLO_TIMEOUT, receive(socket)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            let Some((GatewayRequest::Hello { protocol }, _)) = hello else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            info!(protocol, "a supervisor came");
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let (configuration, sessions) = (configuration.to_owned(), gateway.sessions());
            send(socket, &GatewayEvent::Hello { protocol: PROTOCOL, version, configuration, sessions }).await?;
            self.greeted = true;
        }
        loop {
            tokio::select! {
                // Also while nothing can be sent: a supervisor may read nothing before its own request is taken.
                request = receive(&self.socket) => {
                    // One of a later release is not for this one.
                    let Some((request, descriptors)) = request? else { continue };
                    match answer(gateway, request, descriptors) {
                        Some(Answer::Event(session, event)) => drop(self.answers.insert(session, event)),
                        Some(Answer::Retire) => return Ok(()),
                        None => {}
                    }
                }
                sent = self.send_next(gateway) => match sent? {
                    Sent::Answer(session) => drop(self.answers.remove(&session)),
                    Sent::Dropped(count) => gateway.decisions().told_dropped(count),
                    Sent::Decision(seq) => self.sent = seq,
                },
            }
        }
    }

    /// Sends what is next, once there is something. Dropped before its end, it has sent nothing.
    async fn send_next(&self, gateway: &Gateway) -> io::Result<Sent> {
        if let Some((session, event)) = self.answers.iter().next() {
            send(&self.socket, event).await?;
            return Ok(Sent::Answer(*session));
        }
        let (decisions, sent) = (gateway.decisions(), self.sent);
        let mut newest = decisions.newest();
        let newest = *newest.wait_for(|newest| *newest > sent).await.map_err(io::Error::other)?;
        let count = decisions.dropped();
        if count > 0 {
            send(&self.socket, &GatewayEvent::Dropped { count }).await?;
            warn!(count, "decisions were dropped, because no supervisor took them");
            return Ok(Sent::Dropped(count));
        }
        match decisions.after(sent) {
            Some((seq, decision)) => {
                send(&self.socket, &GatewayEvent::Decision { seq, decision: Box::new(decision) }).await?;
                Ok(Sent::Decision(seq))
            }
            // Acknowledged on an earlier connection.
            None => Ok(Sent::Decision(newest)),
        }
    }
}

enum Answer {
    /// About this session.
    Event(SessionId, GatewayEvent),
    Retire,
}

fn answer(gateway: &Gateway, request: GatewayRequest, descriptors: Vec<OwnedFd>) -> Option<Answer> {
    match request {
        GatewayRequest::Hello { .. } => None,
        GatewayRequest::Session { session, spawn, policy, listeners } => {
            let event = match gateway.serve(session, spawn, policy, listeners, descriptors) {
                Ok(()) => GatewayEvent::Serving { session, spawn },
                Err(error) => GatewayEvent::Refused { session, detail: crate::chain(&error), lasting: error.lasting() },
            };
            Some(Answer::Event(session, event))
        }
        GatewayRequest::Release { session, spawn } => {
            gateway.release(session, spawn);
            None
        }
        GatewayRequest::Ack { seq } => {
            gateway.decisions().acknowledged(seq);
            None
        }
        GatewayRequest::Retire => {
            gateway.retire();
            Some(Answer::Retire)
        }
    }
}

async fn send(socket: &UnixDatagram, event: &GatewayEvent) -> io::Result<()> {
    let bytes = serde_json::to_vec(event)?;
    let write = || {
        let sent = sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &[], MsgFlags::MSG_NOSIGNAL, None);
        Ok(sent.map(drop)?)
    };
    socket.async_io(Interest::WRITABLE, write).await
}

/// The next request with its descriptors; none if it is unknown here.
async fn receive(socket: &UnixDatagram) -> io::Result<Option<(GatewayRequest, Vec<OwnedFd>)>> {
    let received = socket.async_io(Interest::READABLE, || receive_now(socket.as_fd())).await?;
    let (bytes, descriptors) = received;
    match serde_json::from_slice(&bytes) {
        Ok(request) => Ok(Some((request, descriptors))),
        Err(error) => {
            // Without the text: there may be a key in it.
            warn!(category = ?error.classify(), "a request of the supervisor is unknown here");
            Ok(None)
        }
    }
}

/// A message; what it was in is wiped afterwards, because it may hold keys.
fn receive_now(socket: BorrowedFd<'_>) -> io::Result<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)> {
    let mut buffer = Zeroizing::new(vec![0; MESSAGE_BYTES_MAX]);
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; LISTENERS_MAX]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let (length, flags) = (message.bytes, message.flags);
    let mut descriptors = Vec::new();
    // Owned first, so that they are closed whatever is wrong with the message.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(sys::own_received));
        }
    }
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
    Ok((bytes, descriptors))
}
