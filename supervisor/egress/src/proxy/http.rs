//! HTTP on the proxy listener: CONNECT, and plain requests in absolute form. Both sides are parsed and written by the same library, so what is sent on
//! is what was understood, and never bytes as they came.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::{First, HEAD_TIMEOUT, tunnel};
use crate::body::{AnyBody, Counted, Direction, passed_on, refused, remove_hop_by_hop};
use crate::refusal::Refusal;
use crate::session::{Outgoing, Session};
use agentapi_shared::runtime::OnEnd;

/// A head is never larger; cookies and tokens fit.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one.
const HEADERS_MAX: usize = 128;

/// Port of a URL without one.
const PORT_DEFAULT: u16 = 80;

/// A CONNECT that was answered: the tunnel begins where HTTP ends.
struct Connected {
    upgrade: OnUpgrade,
    outgoing: Outgoing,
}

type Slot = Arc<Mutex<Option<Connected>>>;

/// Serves requests until the connection ends, or becomes a tunnel.
pub(super) async fn serve(session: &Arc<Session>, stream: TcpStream, turned_away: Option<Refusal>) {
    let slot = Slot::default();
    let first = First::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (session, slot) = (Arc::clone(session), Arc::clone(&slot));
        let turned_away = turned_away.clone().or_else(|| first.count(&session.meter).err());
        async move { Ok::<_, Infallible>(answer(&session, &slot, turned_away, request).await) }
    });
    let connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A client that has asked and says that nothing more comes wants its answer all the same.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // On the heap, so that a tunnel does not carry it along.
    if let Err(error) = Box::pin(connection).await {
        debug!(session.id = %session.id, %error, "a proxy connection ended");
    }
    let connected = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Connected { upgrade, outgoing }) = connected else { return };
    let Ok(Ok(upgraded)) = timeout(HEAD_TIMEOUT, upgrade).await else { return };
    if let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() {
        let early = parts.read_buf.to_vec();
        tunnel::run(session, parts.io.into_inner(), early, outgoing).await;
    }
}

async fn answer(
    session: &Arc<Session>,
    slot: &Slot,
    turned_away: Option<Refusal>,
    request: Request<Incoming>,
) -> Response<AnyBody> {
    let (host, port) = target(request.uri());
    let (host, port) = (host.to_owned(), port.unwrap_or(0));
    let answered = match turned_away {
        Some(refusal) => {
            session.refuse(session.record(&host, port), &refusal);
            Err(refusal)
        }
        None if *request.method() == Method::CONNECT => connect(session, slot, request).await,
        None => plain(session, request).await,
    };
    answered.unwrap_or_else(|refusal| {
        let mut response = refused(&refusal, &host, port);
        if matches!(refusal.status(), http::StatusCode::BAD_REQUEST | http::StatusCode::TOO_MANY_REQUESTS) {
            // What follows on this connection may not be what it looks like, or is as much too much.
            response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
        }
        response
    })
}

/// What was asked for; a port that is not named is the scheme's.
fn target(uri: &Uri) -> (&str, Option<u16>) {
    let default = if uri.scheme() == Some(&Scheme::HTTP) { Some(PORT_DEFAULT) } else { None };
    uri.authority().map_or(("", None), |authority| (authority.host(), authority.port_u16().or(default)))
}

/// A request that is refused before it is asked where it may go.
fn malformed(session: &Session, uri: &Uri, what: &'static str) -> Refusal {
    let refusal = Refusal::Request(what);
    let (host, port) = target(uri);
    session.refuse(session.record(host, port.unwrap_or(0)), &refusal);
    refusal
}

async fn connect(session: &Session, slot: &Slot, mut request: Request<Incoming>) -> Result<Response<AnyBody>, Refusal> {
    let uri = request.uri().clone();
    let wrong = |what| malformed(session, &uri, what);
    let authority =
        uri.authority().filter(|authority| is_bare(authority)).ok_or_else(|| wrong("CONNECT needs HOST:PORT"))?;
    let port = authority.port_u16().ok_or_else(|| wrong("CONNECT needs HOST:PORT"))?;
    if request.headers().contains_key(TRANSFER_ENCODING) || request.headers().contains_key(CONTENT_LENGTH) {
        return Err(wrong("CONNECT has no body"));
    }
    let host = request.headers().get_all(HOST);
    if host.iter().any(|host| !names_same_host(host.as_bytes(), authority, None)) {
        return Err(wrong("the Host header names another host than CONNECT"));
    }
    let outgoing = session.open(authority.host(), port, || Ok(())).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Connected { upgrade, outgoing });
    Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync()))
}

async fn plain(session: &Arc<Session>, request: Request<Incoming>) -> Result<Response<AnyBody>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let wrong = |what| malformed(session, &parts.uri, what);
    let Some(authority) = parts.uri.authority().filter(|authority| is_bare(authority)).cloned() else {
        return Err(wrong("this is a proxy: ask with the whole URL, http://HOST/..., or CONNECT HOST:PORT"));
    };
    if parts.uri.scheme() != Some(&Scheme::HTTP) {
        return Err(wrong("only http:// URLs are asked for in the open: CONNECT for all others"));
    }
    if !has_one_framing(&parts.headers) {
        return Err(wrong("the end of the request's body is not clear"));
    }
    if !matches!(one(&parts.headers), Some(host) if names_same_host(host, &authority, Some(PORT_DEFAULT))) {
        return Err(wrong("the Host header does not name the URL's host"));
    }
    let port = authority.port_u16().unwrap_or(PORT_DEFAULT);
    // Of a server that expects TLS, plain HTTP is nothing that anybody means.
    let check = || if port == 443 { Err(Refusal::NotTls) } else { Ok(()) };
    let Outgoing { stream, record, .. } = session.open(authority.host(), port, check).await?;
    let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = path.parse().map_err(|_| Refusal::Request("the path cannot be sent"))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    remove_hop_by_hop(&mut parts.headers);
    for name in [CONTENT_LENGTH, EXPECT] {
        parts.headers.remove(name);
    }
    let body = Counted::new(body, &session.meter, &record.traffic, Direction::Up, None);
    let response = send(session, stream, Request::from_parts(parts, body)).await.map_err(|error| {
        debug!(session.id = %session.id, %error, "a plain request was not answered");
        Refusal::Unreachable
    })?;
    let mut response = passed_on(response, &session.meter, record);
    if chunked {
        // There may have been a length too, which the library drops, as RFC 9112 section 6.3 has it; then nothing may follow.
        response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// One request on a connection of its own.
async fn send(session: &Session, stream: TcpStream, request: Request<Counted>) -> hyper::Result<Response<Incoming>> {
    let mut builder = client::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let cancelled = session.tasks().cancelled();
    session.tasks().spawn("plain request", OnEnd::Continue, async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            // Its failure is that of the request.
            _ended = connection => {}
        }
    });
    sender.send_request(request).await
}

/// No user and no password.
fn is_bare(authority: &Authority) -> bool {
    !authority.as_str().contains('@') && !authority.host().is_empty()
}

/// The one Host header.
fn one(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(HOST).iter();
    all.next().filter(|_| all.next().is_none()).map(http::HeaderValue::as_bytes)
}

/// Whether a Host header means the authority; a port that one of them lacks is the scheme's, or any where the scheme has none.
fn names_same_host(header: &[u8], authority: &Authority, port_default: Option<u16>) -> bool {
    let Ok(header) = Authority::try_from(header) else { return false };
    let port = |authority: &Authority| authority.port_u16().or(port_default);
    let same_port = match (port(&header), port(authority)) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    };
    is_bare(&header) && header.host().eq_ignore_ascii_case(authority.host()) && same_port
}

/// A body has a length or is chunked, once, and not both: whoever reads it otherwise would find a second request in it.
fn has_one_framing(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths, encodings.next(), encodings.next()) {
        (0 | 1, None, None) => true,
        (0, Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_url_name_the_same() {
        for (header, authority, default, expected) in [
            ("example.com", "example.com", Some(80), true),
            ("Example.com:80", "example.com", Some(80), true),
            ("example.com", "example.com:8080", Some(80), false),
            ("example.com:8080", "example.com", Some(80), false),
            ("other.com", "example.com", Some(80), false),
            ("example.com.", "example.com", Some(80), false),
            ("u@example.com", "example.com", Some(80), false),
            ("", "example.com", Some(80), false),
            ("example.com", "example.com:443", None, true),
            ("example.com:443", "example.com:443", None, true),
            ("example.com:444", "example.com:443", None, false),
            ("[::1]:443", "[::1]:443", None, true),
        ] {
            let authority: Authority = authority.parse().unwrap();
            assert_eq!(names_same_host(header.as_bytes(), &authority, default), expected, "{header} {authority}");
        }
    }

    #[test]
    fn a_url_without_a_port_means_port_80() {
        let of = |text: &str| target(&text.parse::<Uri>().unwrap()).1;
        assert_eq!(
            (of("http://a.com/"), of("http://a.com:81/"), of("a.com:443"), of("/")),
            (Some(80), Some(81), Some(443), None)
        );
    }

    #[test]
    fn bodies_end_where_everybody_thinks() {
        let of = |list: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            has_one_framing(&headers)
        };
        let (length, encoding) = ("content-length", "transfer-encoding");
        assert!(of(&[]) && of(&[(length, "3")]) && of(&[(encoding, "Chunked")]));
        assert!(!of(&[(length, "3"), (encoding, "chunked")]));
        assert!(!of(&[(length, "3"), (length, "3")]));
        assert!(!of(&[(encoding, "chunked"), (encoding, "chunked")]));
        assert!(!of(&[(encoding, "gzip, chunked")]) && !of(&[(encoding, "identity")]));
    }
}
