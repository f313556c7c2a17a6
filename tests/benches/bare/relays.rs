//! What a gateway is without all that makes it one: bytes from one socket to another, and requests to one server by TLS. No names, no rules, no
//! caps, no records. Both have the library's defaults, one relay per process, and print their address.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::roles::ready;

/// Moved at once, each way: with the library's own 8 KiB it would be no limit of anything.
const BUFFER: usize = 256 * 1024;

/// Copies between each client and the target.
pub(super) async fn tunnel(target: &str) -> Result<()> {
    let listener = listen().await?;
    let mut connections = JoinSet::new();
    loop {
        let (mut inside, _) = listener.accept().await?;
        let mut outside = TcpStream::connect(target).await?;
        connections
            .spawn(async move { copy_bidirectional_with_sizes(&mut inside, &mut outside, BUFFER, BUFFER).await });
    }
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
type Sender = Mutex<client::conn::http1::SendRequest<Incoming>>;

/// Passes the requests of each client on by TLS, on a connection of its own.
pub(super) async fn model(target: &str, name: &str, authority: &Path) -> Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let listener = listen().await?;
    let mut tasks = JoinSet::new();
    loop {
        let (inside, _) = listener.accept().await?;
        let outside = TcpStream::connect(target).await?;
        for stream in [&inside, &outside] {
            stream.set_nodelay(true)?;
        }
        let outside = connector.connect(ServerName::try_from(name.to_owned())?, outside).await?;
        let (sender, connection) = client::conn::http1::handshake(TokioIo::new(outside)).await?;
        let sender = Arc::new(Sender::new(sender));
        tasks.spawn(connection);
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&sender), request));
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(inside), service).await
        });
    }
}

async fn answer(sender: Arc<Sender>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let sent = sender.lock().await.send_request(request).await;
    Ok(sent.map(|response| response.map(BodyExt::boxed_unsync)).unwrap_or_else(|_| {
        let mut failed = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *failed.status_mut() = hyper::StatusCode::BAD_GATEWAY;
        failed
    }))
}

async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
    ready(&listener.local_addr()?.to_string())?;
    Ok(listener)
}
