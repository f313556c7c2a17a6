//! Both ends of what is measured: servers with a thread per connection, and clients that read.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::NAME;

/// Read and written at once by both ends.
const BUFFER: usize = 256 * 1024;

pub(super) fn request(stream: &mut impl Write, path: &str) -> Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
    Ok(stream.flush()?)
}

/// Reads at least so much.
pub(super) fn read_all(mut stream: impl Read, bytes: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let count = stream.read(&mut buffer)? as u64;
        ensure!(count > 0, "the connection ended {left} bytes too early");
        left = left.saturating_sub(count);
    }
    Ok(())
}

/// Serves connections, a thread each.
fn serve(handle: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            // Clients hang up when they have enough.
            std::thread::spawn(move || handle(stream));
        }
    });
    Ok(address)
}

/// Sends so many bytes to whoever connects.
pub(super) fn source(bytes: u64) -> Result<SocketAddr> {
    serve(move |stream| send(stream, bytes))
}

fn send(mut stream: impl Write, bytes: u64) -> Result<()> {
    let buffer = vec![b'x'; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(BUFFER as u64);
        stream.write_all(buffer.get(..usize::try_from(count)?).context("within the buffer")?)?;
        left -= count;
    }
    Ok(stream.flush()?)
}

pub(super) fn echo() -> Result<SocketAddr> {
    serve(|mut stream| {
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    })
}

/// HTTP over TLS: `/large` and `/small`.
pub(super) fn secure(tls: &Tls, bytes: u64) -> Result<SocketAddr> {
    let config = Arc::clone(&tls.server);
    serve(move |stream| {
        stream.set_nodelay(true)?;
        let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config))?, stream);
        loop {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read(&mut byte)? == 0 {
                    return Ok(());
                }
                head.extend(byte);
            }
            if head.starts_with(b"GET /large") {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
                send(&mut stream, bytes)?;
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")?;
                stream.flush()?;
            }
        }
    })
}

/// Both ends' TLS, under an authority of this run.
#[derive(Debug)]
pub(super) struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Tls {
    pub(super) fn new(authority: &Path) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        fs::write(authority, certified.cert.pem())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certified.cert.der().clone())?;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    pub(super) fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        let name = ServerName::try_from(NAME)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::clone(&self.client), name)?, stream))
    }
}
