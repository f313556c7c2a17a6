//! The guard against pages of other origins: they can make a browser send our cookie, but not our own `Origin`.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode};

use super::ApiError;

/// Checks a request that was authenticated by cookie. `Host` must be a loopback name with our port (a name that someone else made
/// resolve to us is refused); what changes something, or opens a socket, must come from a page of exactly that host.
pub(super) fn check(parts: &Parts, port: u16) -> Result<(), ApiError> {
    let host = own_host(parts, port)?;
    let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let origin = parts.headers.get(ORIGIN);
    if safe && !parts.headers.contains_key(UPGRADE) && origin.is_none() {
        return Ok(());
    }
    let own = origin.is_some_and(|origin| origin.as_bytes() == format!("http://{host}").as_bytes());
    if own { Ok(()) } else { Err(refused()) }
}

/// Where the console is for whoever sent a request: the name under which they reached us is the one that works for them.
pub(super) fn page_of(headers: &http::HeaderMap, port: u16) -> String {
    let own = format!("127.0.0.1:{port}");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&own);
    format!("http://{host}")
}

/// The `Host` of a request, if it is one of ours.
pub(super) fn own_host(parts: &Parts, port: u16) -> Result<String, ApiError> {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or_else(refused)?;
    let authority: http::uri::Authority = host.parse().map_err(|_| refused())?;
    // A browser leaves the port out only for port 80.
    let is_port = authority.port_u16().unwrap_or(80) == port;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_port && is_loopback { Ok(host.to_owned()) } else { Err(refused()) }
}

fn refused() -> ApiError {
    let detail = "this request must come from a page of this server, under a loopback name";
    ApiError::new(StatusCode::FORBIDDEN, "origin_refused", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: Method, host: &str, origin: Option<&str>, upgrade: bool) -> bool {
        let mut request = http::Request::builder().method(method).uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        if upgrade {
            request = request.header(UPGRADE, "websocket");
        }
        check(&request.body(()).unwrap().into_parts().0, 3284).is_ok()
    }

    #[test]
    fn only_pages_of_our_own_may_use_the_cookie() {
        let own = "127.0.0.1:3284";
        let table = [
            (Method::GET, own, None, false, true),
            (Method::GET, "localhost:3284", None, false, true),
            (Method::GET, "[::1]:3284", None, false, true),
            (Method::GET, "evil.example:3284", None, false, false),
            (Method::GET, "127.0.0.1:80", None, false, false),
            (Method::GET, own, Some("http://evil.example"), false, false),
            (Method::GET, own, None, true, false),
            (Method::GET, own, Some("http://127.0.0.1:3284"), true, true),
            (Method::GET, own, Some("http://127.0.0.1:9999"), true, false),
            (Method::POST, own, None, false, false),
            (Method::POST, own, Some("null"), false, false),
            (Method::POST, own, Some("http://127.0.0.1:3284"), false, true),
            (Method::POST, own, Some("https://127.0.0.1:3284"), false, false),
            (Method::POST, "localhost:3284", Some("http://127.0.0.1:3284"), false, false),
            (Method::DELETE, own, Some("http://127.0.0.1:3284.evil.example"), false, false),
        ];
        for (method, host, origin, upgrade, expected) in table {
            assert_eq!(
                allowed(method.clone(), host, origin, upgrade),
                expected,
                "{method} {host} {origin:?} {upgrade}"
            );
        }
    }
}
