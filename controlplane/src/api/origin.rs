//! Under which names browsers reach us, and the guard against pages of other origins: they can make a browser send our cookie, but not our
//! own `Origin`.
//!
//! There are two kinds of names: those of this machine's loopback, with our port, and the public URL, if there is one, exactly. A name that
//! somebody else made resolve to us is none of them, and neither is one beside the public one. What is kept in a browser belongs to the name it
//! came under.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

use super::ApiError;

/// See the module.
#[derive(Debug)]
pub struct Site {
    port: u16,
    public: Option<Public>,
}

/// The public URL, as browsers say it.
#[derive(Debug)]
struct Public {
    /// Of the `Host` header; with the port, unless it is the scheme's own.
    host: String,
    port: u16,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// One of our names, as a request came under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// For what a cookie is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// A login.
    Login,
    /// A login that was begun at an issuer: it has to come along from the issuer's page.
    Begun,
}

/// Where a login that was begun is finished: under a name without TLS its cookie is for this alone.
const BEGUN_PATH: &str = "/api/v1/login/issuer";

impl Site {
    /// One that listens on `port` and has a public URL, or has none.
    #[must_use]
    pub fn new(port: u16, public: Option<&Url>) -> Self {
        let public = public.and_then(|url| {
            let scheme = if url.scheme() == "https" { Scheme::Https } else { Scheme::Http };
            let host = url.host_str()?;
            let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            Some(Public { host, port: url.port().unwrap_or(scheme.default_port()), scheme })
        });
        Self { port, public }
    }

    /// Checks a request that was authenticated by cookie: it came under a name of ours, and what changes something, or opens a socket, from a
    /// page of exactly that name.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), ApiError> {
        let name = self.own_name(&parts.headers)?;
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let origin = parts.headers.get(ORIGIN);
        if safe && !parts.headers.contains_key(UPGRADE) && origin.is_none() {
            return Ok(());
        }
        let own = origin.is_some_and(|origin| origin.as_bytes() == name.page().as_bytes());
        if own { Ok(()) } else { Err(refused()) }
    }

    /// The name that a request came under; an error if it is none of ours.
    pub(super) fn own_name(&self, headers: &HeaderMap) -> Result<Name, ApiError> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or_else(refused)?;
        self.public_name(host).or_else(|| self.loopback_name(host)).ok_or_else(refused)
    }

    /// The same; for a name that is none of ours, what they are called on this machine.
    pub(super) fn name_or_local(&self, headers: &HeaderMap) -> Name {
        self.own_name(headers).unwrap_or_else(|_| self.local())
    }

    /// Where the console is for whoever sent a request: the name under which they reached us is the one that works for them.
    pub(super) fn page_for_caller(&self, headers: &HeaderMap) -> String {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        match (self.own_name(headers), host) {
            (Ok(name), _) => name.page(),
            // A tunnel has a name of its own, which works for its user alone.
            (Err(_), Some(host)) => format!("http://{host}"),
            (Err(_), None) => self.local().page(),
        }
    }

    /// Where it is for somebody else.
    pub(super) fn page_for_others(&self, headers: &HeaderMap) -> String {
        match &self.public {
            Some(public) => public.name(public.host.clone()).page(),
            None => self.page_for_caller(headers),
        }
    }

    fn local(&self) -> Name {
        Name { scheme: Scheme::Http, host: format!("127.0.0.1:{}", self.port), port: self.port }
    }

    fn public_name(&self, host: &str) -> Option<Name> {
        let public = self.public.as_ref()?;
        let with_port = format!("{}:{}", public.host, public.port);
        let is_public = host.eq_ignore_ascii_case(&public.host)
            || (public.port == public.scheme.default_port() && host.eq_ignore_ascii_case(&with_port));
        // A browser's `Origin` never has the scheme's own port.
        is_public.then(|| public.name(public.host.clone()))
    }

    fn loopback_name(&self, host: &str) -> Option<Name> {
        let authority: http::uri::Authority = host.parse().ok()?;
        // A browser leaves the port out only for port 80.
        let is_port = authority.port_u16().unwrap_or(80) == self.port;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_loopback =
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        (is_port && is_loopback).then(|| Name { scheme: Scheme::Http, host: host.to_owned(), port: self.port })
    }
}

impl Public {
    fn name(&self, host: String) -> Name {
        Name { scheme: self.scheme, host, port: self.port }
    }
}

impl Name {
    /// The origin of our pages there.
    pub(super) fn page(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.host)
    }

    /// Browsers share cookies between ports, so the port is in the name. With TLS it begins with `__Host-`, which no other host can set, not even one
    /// beside ours.
    pub(super) fn cookie(&self, kept: Kept) -> String {
        let end = if kept == Kept::Begun { "_begun" } else { "" };
        format!("{}agentapi_{}{end}", self.cookie_prefix(), self.port)
    }

    /// What chooses among one's organisations. Pages write it themselves.
    pub(super) fn organization_cookie(&self) -> String {
        format!("{}agentapi_{}_organization", self.cookie_prefix(), self.port)
    }

    fn cookie_prefix(&self) -> &'static str {
        if self.scheme == Scheme::Https { "__Host-" } else { "" }
    }

    /// What sets such a cookie, or removes it.
    pub(super) fn set_cookie(&self, kept: Kept, value: &str, max_age: i64) -> String {
        let is_secure = self.scheme == Scheme::Https;
        // `__Host-` needs the whole host as its path.
        let path = if kept == Kept::Begun && !is_secure { BEGUN_PATH } else { "/" };
        let secure = if is_secure { " Secure;" } else { "" };
        // Lax: the issuer's page leads back here, which is another site's.
        let same_site = if kept == Kept::Begun { "Lax" } else { "Strict" };
        let name = self.cookie(kept);
        format!("{name}={value}; Path={path};{secure} HttpOnly; SameSite={same_site}; Max-Age={max_age}")
    }
}

fn refused() -> ApiError {
    let detail = "this request must come from a page of this server, under its public URL or a loopback name";
    ApiError::new(StatusCode::FORBIDDEN, "origin_refused", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(site: &Site, method: &Method, host: &str, origin: Option<&str>, upgrade: bool) -> bool {
        let mut request = http::Request::builder().method(method).uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        if upgrade {
            request = request.header(UPGRADE, "websocket");
        }
        site.check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    fn site(url: &str) -> Site {
        Site::new(3284, Some(&url.parse().unwrap()))
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
        // The names of this machine work beside a public one.
        for site in [Site::new(3284, None), site("https://agents.example")] {
            for (method, host, origin, upgrade, expected) in &table {
                let found = allowed(&site, method, host, *origin, *upgrade);
                assert_eq!(found, *expected, "{method} {host} {origin:?} {upgrade}");
            }
        }
        assert!(!allowed(&Site::new(3284, None), &Method::GET, "agents.example", None, false));
    }

    #[test]
    fn the_public_origin_is_taken_exactly_and_none_beside_it() {
        let (plain, odd) = (site("https://agents.example/"), site("https://Agents.example:8443"));
        let origin = "https://agents.example";
        let table = [
            (&plain, Method::GET, "agents.example", None, false, true),
            (&plain, Method::GET, "AGENTS.example", None, false, true),
            (&plain, Method::GET, "agents.example:443", None, false, true),
            (&plain, Method::GET, "agents.example:80", None, false, false),
            (&plain, Method::POST, "agents.example", Some(origin), false, true),
            (&plain, Method::GET, "agents.example", Some(origin), true, true),
            (&plain, Method::POST, "agents.example:443", Some(origin), false, true),
            // Without a page, of another scheme, port or host; and of a host below or beside it.
            (&plain, Method::POST, "agents.example", None, false, false),
            (&plain, Method::GET, "agents.example", None, true, false),
            (&plain, Method::POST, "agents.example", Some("http://agents.example"), false, false),
            (&plain, Method::POST, "agents.example", Some("https://agents.example:8443"), false, false),
            (&plain, Method::POST, "agents.example", Some("https://evil.agents.example"), false, false),
            (&plain, Method::GET, "agents.example", Some("https://evil.agents.example"), true, false),
            (&plain, Method::POST, "agents.example", Some("https://agents.example.evil.example"), false, false),
            (&plain, Method::POST, "agents.example", Some("https://other.example"), false, false),
            (&plain, Method::POST, "evil.agents.example", Some("https://evil.agents.example"), false, false),
            // One name's page does not speak for the other name.
            (&plain, Method::POST, "127.0.0.1:3284", Some(origin), false, false),
            (&plain, Method::POST, "agents.example", Some("http://127.0.0.1:3284"), false, false),
            (&odd, Method::POST, "agents.example:8443", Some("https://agents.example:8443"), false, true),
            (&odd, Method::POST, "agents.example", Some("https://agents.example"), false, false),
            (&odd, Method::POST, "agents.example:8443", Some("https://agents.example"), false, false),
        ];
        for (site, method, host, origin, upgrade, expected) in table {
            let found = allowed(site, &method, host, origin, upgrade);
            assert_eq!(found, expected, "{method} {host} {origin:?} {upgrade}");
        }
    }

    #[test]
    fn what_a_browser_keeps_is_bound_to_the_name_and_to_tls_where_there_is_some() {
        let at = |site: &Site, host: &str| {
            let headers: HeaderMap = [(HOST, host.parse().unwrap())].into_iter().collect();
            (site.name_or_local(&headers), site.page_for_caller(&headers), site.page_for_others(&headers))
        };
        let site = site("https://agents.example");
        let (public, page, invited) = at(&site, "agents.example");
        assert_eq!((page.as_str(), invited.as_str()), ("https://agents.example", "https://agents.example"));
        assert_eq!(
            public.set_cookie(Kept::Login, "x", 60),
            "__Host-agentapi_443=x; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=60"
        );
        assert_eq!(
            public.set_cookie(Kept::Begun, "x", 60),
            "__Host-agentapi_443_begun=x; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        assert_eq!(public.organization_cookie(), "__Host-agentapi_443_organization");
        let (local, page, invited) = at(&site, "localhost:3284");
        assert_eq!((page.as_str(), invited.as_str()), ("http://localhost:3284", "https://agents.example"));
        assert_eq!(local.cookie(Kept::Login), "agentapi_3284");
        assert_eq!(local.organization_cookie(), "agentapi_3284_organization");
        assert_eq!(
            local.set_cookie(Kept::Begun, "x", 60),
            "agentapi_3284_begun=x; Path=/api/v1/login/issuer; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        let (other, page, _) = at(&Site::new(3284, None), "tunnel.example");
        assert_eq!((other.cookie(Kept::Login).as_str(), page.as_str()), ("agentapi_3284", "http://tunnel.example"));
    }
}
