//! The proxy listener: one port for HTTP CONNECT, plain HTTP and SOCKS5, told apart by their first byte.

mod http;
mod socks;
mod tunnel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::meter::Meter;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::socks::VERSION;

/// A request is there by then, also the next on a connection that is kept.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a connection's first request has come: that one was counted with the connection, each after it counts itself.
#[derive(Debug, Default)]
pub(crate) struct First(AtomicBool);

impl First {
    /// Counts a request.
    pub(crate) fn count(&self, meter: &Meter) -> Result<(), Refusal> {
        if self.0.swap(true, Ordering::Relaxed) { meter.count_one() } else { Ok(()) }
    }
}

/// Serves one connection. With a refusal it is told that, whatever it asks for.
pub(crate) async fn serve(session: Arc<Session>, stream: TcpStream, refused: Option<Refusal>) {
    let mut first = [0];
    match timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [VERSION] => socks::serve(&session, stream, refused).await,
        Ok(Ok(1)) => http::serve(&session, stream, refused).await,
        // Closed, broken or silent: nothing was asked for.
        _ => {}
    }
}
