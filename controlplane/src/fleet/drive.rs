//! One WebSocket driven by one task in both directions, without splitting it and without a lock.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::{Sink, Stream};
use tokio_tungstenite::tungstenite::{Error, Message};

/// What a driven socket did.
#[derive(Debug)]
pub enum Drive {
    /// Everything written so far is with the kernel.
    Flushed,
    /// It received something, failed, or ended.
    Received(Option<Result<Message, Error>>),
}

/// Flushes what is `unflushed` and receives, whichever is ready first. Cancel safe.
pub async fn drive<S>(socket: &mut S, unflushed: &mut bool) -> Drive
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    poll_fn(|cx| {
        if *unflushed {
            match Pin::new(&mut *socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    *unflushed = false;
                    return Poll::Ready(Drive::Flushed);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Drive::Received(Some(Err(error)))),
                Poll::Pending => {}
            }
        }
        Pin::new(&mut *socket).poll_next(cx).map(|received| {
            if matches!(received, Some(Ok(Message::Ping(_) | Message::Close(_)))) {
                // The answer is queued inside the socket.
                *unflushed = true;
            }
            Drive::Received(received)
        })
    })
    .await
}
