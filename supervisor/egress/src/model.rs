//! Model listeners: plain HTTP inside, TLS to one provider outside, and the key put in on the way. The key is here and nowhere in the session.
//!
//! Wherever a request says that it wants to go, it goes to the one upstream. Answers pass as they are, redirects too; nothing here follows one,
//! so the key is sent nowhere else.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use agentapi_shared::egress::{EgressVerdict, SecretText};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tracing::debug;

use crate::ahead::Ahead;
use crate::body::{AnyBody, Counted, Direction, passed_on, refused, remove_hop_by_hop};
use crate::dial::{Dialler, MODEL_LOOKUPS_MAX};
use crate::gateway::Shared;
use crate::names::Host;
use crate::proxy::{First, HEAD_TIMEOUT};
use crate::refusal::Refusal;
use crate::ruling::Destination;
use crate::session::Session;

/// Connections to a provider are kept for the next request so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// And so many of them, where the provider has no HTTP/2.
const IDLE_MAX: usize = 4;
/// A connection that carries nothing is asked whether it is still there, so that a request does not find out.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// What may be on its way at once: more than a fast connection over an ocean holds.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What one connection or stream from inside keeps in memory: heads, and an answer that the client does not take.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one connection from inside. Overflow: the client waits for one to end.
const STREAMS_MAX: u32 = 32;

/// Headers in which clients send keys of their own; none of them gets out.
const KEY_HEADERS: [&str; 5] = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization"];

/// Why a model listener cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The URL.
    #[error("the upstream has to be https://NAME, with a port and a path at most")]
    Url,
    /// The header.
    #[error("the header's name or value cannot be sent")]
    Header,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Model {
    /// For records.
    rule: String,
    authority: Authority,
    host: String,
    port: u16,
    /// Put in front of every path.
    prefix: String,
    header: HeaderName,
    value: HeaderValue,
    client: Client<HttpsConnector<Dial>, Counted>,
}

/// Connects to the provider as the gateway connects to anybody: with its address judged.
#[derive(Debug, Clone)]
struct Dial {
    dialler: Dialler,
    destination: Destination,
    port: u16,
}

/// The provider was not reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotDialled(String);

impl Model {
    /// Sets one up. Nothing is connected yet.
    pub(crate) fn new(
        name: &str,
        upstream: &str,
        header: &str,
        value: &SecretText,
        shared: &Arc<Shared>,
    ) -> Result<Self, UpstreamError> {
        let parts = upstream.parse::<Uri>().map_err(|_| UpstreamError::Url)?.into_parts();
        let authority =
            parts.authority.filter(|authority| !authority.as_str().contains('@')).ok_or(UpstreamError::Url)?;
        let path = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        if parts.scheme != Some(Scheme::HTTPS) || path.query().is_some() {
            return Err(UpstreamError::Url);
        }
        let Ok(Host::Name(host)) = Host::parse(authority.host()) else { return Err(UpstreamError::Url) };
        let port = authority.port_u16().unwrap_or(443);
        let header = HeaderName::try_from(header).map_err(|_| UpstreamError::Header)?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| UpstreamError::Header)?;
        value.set_sensitive(true);
        let lookups = Arc::new(tokio::sync::Semaphore::new(MODEL_LOOKUPS_MAX));
        let dialler = Dialler { guard: shared.guard.clone(), descriptors: shared.descriptors, lookups };
        let text = host.as_str().to_owned();
        let dial = Dial { dialler, destination: Destination::Name(host), port };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(shared.tls.clone())
            .https_only()
            .enable_all_versions()
            .wrap_connector(dial);
        Ok(Self {
            rule: format!("model:{name}"),
            authority,
            host: text,
            port,
            prefix: path.path().trim_end_matches('/').to_owned(),
            header,
            value,
            client: client(connector),
        })
    }

    /// Serves one connection from inside: HTTP/1.1, or HTTP/2 if the client begins with it.
    pub(crate) async fn serve(self: Arc<Self>, session: Arc<Session>, stream: TcpStream, turned_away: Option<Refusal>) {
        let first = First::default();
        let service = service_fn(|request| {
            let (model, session) = (Arc::clone(&self), Arc::clone(&session));
            let turned_away = turned_away.clone().or_else(|| first.count(&session.meter).err());
            async move {
                let answered = match turned_away {
                    Some(refusal) => {
                        session.refuse(session.record(&model.host, model.port), &refusal);
                        Err(refusal)
                    }
                    None => model.pass(&session, request).await,
                };
                Ok::<_, Infallible>(answered.unwrap_or_else(|refusal| refused(&refusal, &model.host, model.port)))
            }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES_MAX);
        server
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(BUFFER_BYTES_MAX)
            .max_header_list_size(BUFFER_BYTES_MAX as u32)
            .keep_alive_interval(PING_INTERVAL);
        if let Err(error) = Box::pin(server.serve_connection(TokioIo::new(stream), service)).await {
            debug!(session.id = %session.id, error, "a model connection ended");
        }
    }

    async fn pass(&self, session: &Session, request: Request<Incoming>) -> Result<Response<AnyBody>, Refusal> {
        let mut record = session.record(&self.host, self.port);
        // TRACE would answer with what was sent, key and all.
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            let refusal = Refusal::Request("model listeners take neither TRACE nor CONNECT");
            session.refuse(record, &refusal);
            return Err(refusal);
        }
        record.decide(EgressVerdict::Failed, self.rule.clone());
        let request = self.outgoing(session, request, &record)?;
        match self.client.request(request).await {
            Ok(response) => {
                record.decide(EgressVerdict::Allowed, self.rule.clone());
                Ok(passed_on(response, &session.meter, record))
            }
            Err(error) => {
                debug!(session.id = %session.id, error = crate::chain(&error), "a provider was not reached");
                Err(Refusal::Unreachable)
            }
        }
    }

    fn outgoing(
        &self,
        session: &Session,
        request: Request<Incoming>,
        record: &crate::decisions::Record,
    ) -> Result<Request<Counted>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let asked = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone());
        parts.uri = uri
            .path_and_query(format!("{}{asked}", self.prefix))
            .build()
            .map_err(|_| Refusal::Request("the path cannot be sent"))?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        remove_hop_by_hop(&mut parts.headers);
        for name in KEY_HEADERS {
            parts.headers.remove(name);
        }
        for name in [HOST, CONTENT_LENGTH, EXPECT] {
            parts.headers.remove(name);
        }
        parts.headers.insert(self.header.clone(), self.value.clone());
        let body = Counted::new(body, &session.meter, &record.traffic, Direction::Up, None);
        Ok(Request::from_parts(parts, body))
    }
}

fn client(connector: HttpsConnector<Dial>) -> Client<HttpsConnector<Dial>, Counted> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_initial_stream_window_size(WINDOW_BYTES)
        .http2_initial_connection_window_size(2 * WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL);
    builder.build(connector)
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Ahead>;
    type Error = NotDialled;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Ahead>, NotDialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotDialled>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { dialler, destination, port } = self.clone();
        Box::pin(async move {
            let (stream, _) = dialler.dial(&destination, port).await.map_err(|refusal| NotDialled(refusal.word()))?;
            Ok(TokioIo::new(Ahead::new(stream)))
        })
    }
}
