//! Bodies of HTTP messages on their way through: passed on frame by frame as they come, counted, and slowed down where a cap says so.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::decisions::{Record, Traffic};
use crate::meter::Meter;
use crate::refusal::Refusal;

/// Any error of a body: it ends the message, and nobody looks into it.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// What is answered.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BodyError>;

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Out of the session.
    Up,
    /// Into it.
    Down,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Incoming,
    meter: Arc<Meter>,
    traffic: Arc<Traffic>,
    direction: Direction,
    wait: Option<Pin<Box<Sleep>>>,
    /// Of an answer: written when the answer has passed, or is given up.
    _record: Option<Record>,
}

/// A cap of the session ended a message.
#[derive(Debug, thiserror::Error)]
#[error("the session has sent and received as much as it may")]
struct Exhausted;

impl Counted {
    /// A body that is charged to a session.
    pub(crate) fn new(
        inner: Incoming,
        meter: &Arc<Meter>,
        traffic: &Arc<Traffic>,
        direction: Direction,
        record: Option<Record>,
    ) -> Self {
        let (meter, traffic) = (Arc::clone(meter), Arc::clone(traffic));
        Self { inner, meter, traffic, direction, wait: None, _record: record }
    }

    fn moved(&self) -> &AtomicU64 {
        match self.direction {
            Direction::Up => &self.traffic.up,
            Direction::Down => &self.traffic.down,
        }
    }

    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Exhausted>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            match self.meter.delay() {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(delay)) => self.wait = Some(Box::pin(sleep(delay))),
                Err(_) => return Poll::Ready(Err(Exhausted)),
            }
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        ready!(this.poll_allowed(cx))?;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.meter.charge(data.len());
            this.moved().fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The answer as it came, apart from what concerned the connection it came on, charged to a session.
pub(crate) fn passed_on(
    response: http::Response<Incoming>,
    meter: &Arc<Meter>,
    record: Record,
) -> http::Response<AnyBody> {
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    remove_hop_by_hop(&mut parts.headers);
    let traffic = Arc::clone(&record.traffic);
    let body = Counted::new(body, meter, &traffic, Direction::Down, Some(record));
    http::Response::from_parts(parts, body.boxed_unsync())
}

/// An answer of our own: the reason, for people.
pub(crate) fn refused(refusal: &Refusal, host: &str, port: u16) -> http::Response<AnyBody> {
    let text = Full::from(refusal.sentence(host, port)).map_err(|never| match never {}).boxed_unsync();
    let mut response = http::Response::new(text);
    *response.status_mut() = refusal.status();
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

/// Removes what concerns one connection only, by RFC 9110 section 7.6.1. Framing is made anew from the body.
pub(crate) fn remove_hop_by_hop(headers: &mut http::HeaderMap) {
    let listed: Vec<http::HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy-authentication-info",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_connection_does_not_pass() {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret , te"),
            ("x-secret", "1"),
            ("proxy-authorization", "Basic eDp5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
    }
}
