//! SOCKS5 on the proxy listener.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{HEAD_TIMEOUT, tunnel};
use crate::refusal::Refusal;
use crate::session::Session;
use crate::socks::{self, GREETING_BYTES_MAX, REQUEST_BYTES_MAX, Read, Reply, Request};

/// Reply to a client that cannot do without authentication.
const NO_METHOD: [u8; 2] = [socks::VERSION, 0xff];
/// Reply to the others.
const METHOD: [u8; 2] = [socks::VERSION, 0];

/// Serves one connection.
pub(super) async fn serve(session: &Arc<Session>, mut stream: TcpStream, refused: Option<Refusal>) {
    let mut early = Vec::new();
    let Ok(Some(request)) = timeout(HEAD_TIMEOUT, handshake(&mut stream, &mut early)).await else { return };
    let opened = match refused {
        Some(refusal) => {
            session.refuse(session.record(&request.host, request.port), &refusal);
            Err(refusal)
        }
        None => session.open(&request.host, request.port, || Ok(())).await,
    };
    match opened {
        Ok(outgoing) => {
            if stream.write_all(&Reply::Succeeded.bytes()).await.is_ok() {
                tunnel::run(session, stream, early, outgoing).await;
            }
        }
        Err(refusal) => {
            // A client that is gone needs no reply.
            let _told = stream.write_all(&refusal.reply().bytes()).await;
        }
    }
}

/// Greeting and request. What the client sent behind them stays in `early`.
async fn handshake(stream: &mut TcpStream, early: &mut Vec<u8>) -> Option<Request> {
    let can_do_without = read(stream, early, GREETING_BYTES_MAX, socks::greeting).await?;
    let method = if can_do_without { METHOD } else { NO_METHOD };
    stream.write_all(&method).await.ok()?;
    if !can_do_without {
        return None;
    }
    read(stream, early, REQUEST_BYTES_MAX, socks::request).await
}

async fn read<T>(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    bytes_max: usize,
    parse: impl Fn(&[u8]) -> Read<T>,
) -> Option<T> {
    loop {
        match parse(buffer) {
            Read::Done(message, used) => {
                buffer.drain(..used);
                return Some(message);
            }
            Read::Invalid(reply) => {
                let _told = stream.write_all(&reply.bytes()).await;
                return None;
            }
            Read::Incomplete if buffer.len() >= bytes_max => return None,
            Read::Incomplete => {}
        }
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
    }
}
