//! A provider's connection, read ahead of TLS, which asks for one record of 16 KiB at a time: a system call for each, and often a packet that tells
//! the other end. While a connection brings more than that, as much is read as is there, up to a bound; a quiet one has no buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// Read at once, and kept in memory by each connection that is busy.
const AHEAD_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ahead {
    stream: TcpStream,
    held: BytesMut,
    /// The last read got all that it asked for, so there is more.
    more: bool,
}

impl Ahead {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, held: BytesMut::new(), more: false }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<()>> {
        self.held.reserve(AHEAD_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.held);
        self.more = matches!(read, Poll::Ready(Ok(count)) if count > wanted);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        read.map_ok(drop)
    }
}

impl AsyncRead for Ahead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            if !this.more {
                let read = ready!(Pin::new(&mut this.stream).poll_read(cx, out));
                this.more = out.remaining() == 0;
                return Poll::Ready(read);
            }
            ready!(this.poll_ahead(cx, out.remaining()))?;
        }
        let count = out.remaining().min(this.held.len());
        out.put_slice(this.held.get(..count).unwrap_or_default());
        this.held.advance(count);
        if this.held.is_empty() && !this.more {
            this.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connection for Ahead {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What TLS asks for.
    const RECORD: usize = 16 * 1024;

    #[tokio::test]
    async fn everything_comes_in_its_order_and_a_quiet_connection_keeps_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut from, mut to) = (Ahead::new(connected.unwrap()), accepted.unwrap().0);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let sending = async move {
            to.write_all(&sent).await.unwrap();
            to
        };
        let receiving = async {
            let (mut got, mut most) = (Vec::new(), 0);
            while got.len() < expected.len() {
                let mut record = vec![0; RECORD];
                let count = from.read(&mut record).await.unwrap();
                assert_ne!(count, 0, "{} bytes came", got.len());
                got.extend_from_slice(&record[..count]);
                most = most.max(from.held.len());
            }
            (got, most)
        };
        let (mut to, (got, most)) = tokio::join!(sending, receiving);
        assert!(got == expected);
        assert!(most > RECORD, "{most}");
        to.write_all(b"end").await.unwrap();
        drop(to);
        let mut end = Vec::new();
        from.read_to_end(&mut end).await.unwrap();
        assert_eq!((end.as_slice(), from.held.capacity()), (&b"end"[..], 0));
    }
}
