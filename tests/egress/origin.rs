//! Servers of the world: TLS with names of their own, plain HTTP that keeps every byte it got, and protocols in which the server speaks first.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::network::{METADATA, Net, OTHER, PRIVATE, SERVER};

/// Names that the servers have certificates for.
const NAMES: [&str; 6] = ["good.test", "a.star.test", "model.test", "evil.test", "inside.test", "star.test"];

/// A certificate authority of the test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one and writes its certificate.
    pub(crate) fn new(path: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(path, issuer.pem()).unwrap();
        Self(issuer)
    }

    fn config(&self) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        let certificate: CertificateDer<'static> =
            CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

/// A request as a TLS server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) version: String,
    pub(crate) uri: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// The servers.
pub(crate) struct Origin {
    _runtime: Runtime,
    seen: Arc<Mutex<Vec<Seen>>>,
    plain: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Each message lets `/slow` send its next piece.
    pub(crate) next_piece: tokio::sync::mpsc::Sender<()>,
}

type Pieces = Arc<tokio::sync::Mutex<tokio::sync::mpsc::Receiver<()>>>;

impl Origin {
    /// Starts them.
    pub(crate) fn start(world: &Net, authority: &Authority) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (seen, plain) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (next_piece, pieces) = tokio::sync::mpsc::channel(8);
        let pieces: Pieces = Arc::new(tokio::sync::Mutex::new(pieces));
        let acceptor = TlsAcceptor::from(Arc::new(authority.config()));
        for address in [SERVER, OTHER] {
            for port in [443, 8443] {
                let listener = world.listen(&format!("{address}:{port}"));
                listener.set_nonblocking(true).unwrap();
                let (acceptor, seen, pieces) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&pieces));
                let _inside = runtime.enter();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                #[expect(clippy::disallowed_methods, reason = "a server of a test ends with its runtime")]
                tokio::spawn(serve_tls(listener, acceptor, seen, pieces));
            }
        }
        for address in [SERVER, OTHER, PRIVATE, METADATA] {
            let (listener, plain) = (world.listen(&format!("{address}:80")), Arc::clone(&plain));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let plain = Arc::clone(&plain);
                    std::thread::spawn(move || serve_plain(stream, &plain));
                }
            });
        }
        let greeting = world.listen(&format!("{SERVER}:22"));
        std::thread::spawn(move || {
            for mut stream in greeting.incoming().flatten() {
                std::thread::spawn(move || {
                    stream.write_all(b"SSH-2.0-first\r\n").unwrap();
                    let mut line = [0; 16];
                    let count = stream.read(&mut line).unwrap_or(0);
                    let _gone = stream.write_all(&line[..count]);
                });
            }
        });
        Self { _runtime: runtime, seen, plain, next_piece }
    }

    /// What TLS servers saw so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Every byte that plain servers got, a connection each.
    pub(crate) fn plain(&self) -> Vec<String> {
        self.plain.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a connection of a test ends with its runtime")]
async fn serve_tls(
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    seen: Arc<Mutex<Vec<Seen>>>,
    pieces: Pieces,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen, pieces) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&pieces));
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| answer(request, Arc::clone(&seen), Arc::clone(&pieces)));
            let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    pieces: Pieces,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body =
        body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let headers = parts.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    seen.lock().unwrap().push(Seen {
        version: format!("{:?}", parts.version),
        uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers.collect(),
        body: body.clone(),
    });
    let full = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    Ok(match path.as_str() {
        "/slow" => {
            let stream = futures_util::stream::unfold((pieces, 0), |(pieces, number)| async move {
                if number == 3 {
                    return None;
                }
                if number > 0 {
                    pieces.lock().await.recv().await;
                }
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("piece {number}\n")))), (pieces, number + 1)))
            });
            Response::new(StreamBody::new(stream.boxed()).boxed_unsync())
        }
        "/large" => Response::new(full("x".repeat(1024 * 1024))),
        "/redirect" => Response::builder()
            .status(302)
            .header("location", "https://evil.test/taken")
            .body(full(String::new()))
            .unwrap(),
        "/echo" => Response::new(full(body)),
        _ => Response::new(full(format!("hello from {path}\n"))),
    })
}

/// Keeps what comes, and answers once a head is there.
fn serve_plain(mut stream: TcpStream, plain: &Mutex<Vec<Vec<u8>>>) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let at = {
        let mut all = plain.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let mut answered = false;
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut all = plain.lock().unwrap();
        all[at].extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&all[at]).to_lowercase();
        let ended = !text.contains("transfer-encoding: chunked") || text.ends_with("\r\n0\r\n\r\n");
        let whole = text.contains("\r\n\r\n") && ended;
        drop(all);
        if whole && !answered {
            answered = true;
            let _gone = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\nX-Origin: yes\r\n\r\nplain\n",
            );
        }
    }
}
