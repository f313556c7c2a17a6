//! From a destination to a connection: the name is resolved once, every address it has is judged, and one of exactly those is dialled.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::descriptors::Descriptors;
use crate::guard::{self, Guard};
use crate::refusal::Refusal;
use crate::ruling::Destination;

/// A resolver that has not answered by then does not.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// For all addresses of a name together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For one of them while there are others.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);
/// Names that one session resolves at once; each keeps a thread. Overflow: the next waits its turn.
pub(crate) const LOOKUPS_MAX: usize = 3;
/// The same for one model listener, which has one name.
pub(crate) const MODEL_LOOKUPS_MAX: usize = 1;

/// What dialling needs.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    /// Which addresses may be.
    pub(crate) guard: Guard,
    /// How many connections there may be.
    pub(crate) descriptors: Descriptors,
    /// Turns of this session at the resolver.
    pub(crate) lookups: Arc<Semaphore>,
}

impl Dialler {
    /// Connects, or says why not.
    pub(crate) async fn dial(&self, destination: &Destination, port: u16) -> Result<(TcpStream, SocketAddr), Refusal> {
        let addresses = match destination {
            Destination::Name(name) => self.resolve(name.as_str().to_owned(), port).await?,
            Destination::Address(address) => vec![SocketAddr::new(*address, port)],
        };
        self.judge(addresses.iter().map(SocketAddr::ip))?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        for (index, address) in addresses.iter().enumerate() {
            let last = index + 1 == addresses.len();
            let until = if last { deadline } else { deadline.min(Instant::now() + ATTEMPT_TIMEOUT) };
            match timeout_at(until, TcpStream::connect(*address)).await {
                Ok(Ok(stream)) if !self.descriptors.allow(&stream) => {
                    warn!("as many connections are open as may be");
                    return Err(Refusal::Unreachable);
                }
                Ok(Ok(stream)) => {
                    prepare(&stream);
                    return Ok((stream, *address));
                }
                Ok(Err(error)) => debug!(%address, %error, "an address does not answer"),
                Err(_) => debug!(%address, "an address does not answer in time"),
            }
        }
        Err(Refusal::Unreachable)
    }

    /// One address that must not be reached spoils the name: which of them is dialled would be chance.
    fn judge(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<(), Refusal> {
        let own = guard::own_addresses().map_err(|error| {
            warn!(%error, "the addresses of this host cannot be read");
            Refusal::Unreachable
        })?;
        addresses.into_iter().try_for_each(|address| self.guard.check(address, &own)).map_err(Refusal::Address)
    }

    async fn resolve(&self, name: String, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let looked_up = async {
            let turn = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                // Held until the resolver answers, also if nobody waits for it any more.
                let _turn = turn;
                (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        };
        match timeout(RESOLVE_TIMEOUT, looked_up).await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            _ => Err(Refusal::Unresolved),
        }
    }
}

/// Small writes go at once, and a peer that is gone is noticed.
pub(crate) fn prepare(stream: &TcpStream) {
    // Neither is needed for the connection to work.
    let _nodelay = stream.set_nodelay(true);
    let _keepalive = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::KeepAlive, &true);
}
