//! Turning a request into a WebSocket. Everything that can be refused is refused before, as a problem document.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::ApiError;

/// A request that may become a WebSocket.
#[derive(Debug)]
pub(super) struct Upgrade {
    on_upgrade: OnUpgrade,
    accept: HeaderValue,
    subprotocol: &'static str,
}

impl Upgrade {
    /// Checks the handshake and that the client offers `subprotocol`.
    pub(super) fn check(parts: &mut Parts, subprotocol: &'static str) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let asks = has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket");
        if !asks {
            return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this path is a WebSocket"));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_handshake", "Sec-WebSocket-Version must be 13"));
        }
        if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, subprotocol) {
            let detail = format!("offer the subprotocol {subprotocol}");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "subprotocol_required", detail));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
        let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
        let bad =
            || ApiError::new(StatusCode::BAD_REQUEST, "bad_handshake", "Sec-WebSocket-Key is missing or malformed");
        let accept = accept.ok_or_else(bad)?;
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
            ApiError::new(
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "this connection cannot be upgraded; use HTTP/1.1",
            )
        })?;
        Ok(Self { on_upgrade, accept, subprotocol })
    }

    /// The answer that accepts, and what becomes of the connection.
    pub(super) fn accept(self) -> (Response, Pending) {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.subprotocol));
        (answer, Pending(self.on_upgrade))
    }
}

/// A connection whose answer is on its way.
#[derive(Debug)]
pub(super) struct Pending(OnUpgrade);

impl Pending {
    /// The bare connection, and what the client sent already. None if it went away.
    pub(super) async fn connection(self) -> Option<(TcpStream, Vec<u8>)> {
        let upgraded = self.0.await.ok()?;
        // Below HTTP lies the socket itself: nothing of hyper stays with a connection that may live for days.
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf.to_vec()))
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}
