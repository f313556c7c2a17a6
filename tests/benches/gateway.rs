//! What the egress gateway costs: a tunnel beside a direct connection, a model listener beside direct TLS, the first byte, and idle tunnels.
//!
//! Everything is on loopback, in one run and interleaved. Client and server are threads of this program, so that two of the machine's cores are
//! busy on the direct way too.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use agentapi_shared::SessionId;
use agentapi_shared::egress::{
    EgressLimits, EgressMode, EgressPolicy, EgressRule, GatewayEvent, GatewayRequest, HostPattern, ListenerRole,
    MESSAGE_BYTES_MAX, PROTOCOL, SecretText,
};
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::binary;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::Options;
use crate::stats::{Samples, Table};

/// The name that leads to loopback in the gateway's own /etc/hosts.
const NAME: &str = "bench.test";
/// Read and written at once by both ends.
const BUFFER: usize = 256 * 1024;
/// Idle tunnels of the bar.
const TUNNELS: usize = 2000;

/// One transfer, direct or through the gateway.
type Way<'a> = dyn Fn() -> Result<f64> + 'a;

/// Runs the part.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (rounds, bytes) = (options.count(9, 1), options.count(1 << 30, 1 << 24) as u64);
    let (requests, tunnels) = (options.count(500, 5), options.count(TUNNELS, 20));
    // Threads that block have no place on the one thread of the runtime.
    tokio::task::spawn_blocking(move || measure(rounds, bytes, requests, tunnels)).await?
}

fn measure(rounds: usize, bytes: u64, requests: usize, tunnels: usize) -> Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let dir = TempDir::new();
    let tls = Tls::new(&dir.path().join("ca.pem"))?;
    let (source, secure, echo) = (source(bytes)?, secure(&tls, bytes)?, echo()?);
    let gateway = Gateway::start(dir.path(), [source, secure, echo].map(|address| address.port()), secure)?;
    let mut table = Table::new("Egress gateway", &["", "direct", "through the gateway", "share"]);
    let plain_direct = || read_all(TcpStream::connect(source)?, bytes);
    let plain_gateway = || read_all(gateway.tunnel(source.port())?, bytes);
    compare(&mut table, "one tunnel, MB/s", rounds, &plain_direct, &plain_gateway)?;
    let tls_direct = || {
        let mut stream = tls.connect(secure)?;
        request(&mut stream, "/large")?;
        read_all(stream, bytes)
    };
    let tls_gateway = || {
        let mut stream = TcpStream::connect(gateway.model)?;
        request(&mut stream, "/large")?;
        read_all(stream, bytes)
    };
    compare(&mut table, "one answer of a model, MB/s", rounds, &tls_direct, &tls_gateway)?;
    first_byte(&mut table, requests, tls.connect(secure)?, TcpStream::connect(gateway.model)?)?;
    idle(&mut table, &gateway, echo.port(), tunnels)?;
    table.print();
    Ok(())
}

fn compare(table: &mut Table, what: &str, rounds: usize, direct: &Way<'_>, through: &Way<'_>) -> Result<()> {
    let (mut directs, mut throughs) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        directs.push(direct()?);
        throughs.push(through()?);
    }
    let share = 100.0 * throughs.median() / directs.median();
    let cell = |samples: &Samples| format!("{:.0} ({})", samples.median(), samples.range());
    table.row(&[what, &cell(&directs), &cell(&throughs), &format!("{share:.0} %")]);
    Ok(())
}

/// From a request on a connection that is open to the first byte of its answer.
fn first_byte(table: &mut Table, requests: usize, mut direct: impl Read + Write, mut through: TcpStream) -> Result<()> {
    through.set_nodelay(true)?;
    let (mut directs, mut throughs) = (Samples::default(), Samples::default());
    for _ in 0..requests {
        directs.push_us(one(&mut direct)?);
        throughs.push_us(one(&mut through)?);
    }
    let cell = |samples: &Samples| format!("{:.0} (p90 {:.0})", samples.median(), samples.quantile(0.9));
    let more = format!("+{:.0} µs", throughs.median() - directs.median());
    table.row(&["first byte of an answer, µs", &cell(&directs), &cell(&throughs), &more]);
    Ok(())
}

fn one(stream: &mut (impl Read + Write)) -> Result<std::time::Duration> {
    let start = Instant::now();
    request(stream, "/small")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let took = start.elapsed();
    let mut answer = byte.to_vec();
    while !answer.ends_with(b"small") {
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    Ok(took)
}

fn idle(table: &mut Table, gateway: &Gateway, port: u16, tunnels: usize) -> Result<()> {
    let before = gateway.resident_kib()?;
    let mut open = Vec::new();
    for _ in 0..tunnels {
        let mut tunnel = gateway.tunnel(port)?;
        // Both ways have moved something.
        tunnel.write_all(b"x")?;
        tunnel.read_exact(&mut [0])?;
        open.push(tunnel);
    }
    let after = gateway.resident_kib()?;
    let (before, after) = (format!("{:.1} MB", before as f64 / 1024.0), format!("{:.1} MB", after as f64 / 1024.0));
    table.row(&[&format!("resident: none, {tunnels} idle tunnels"), &before, &after, ""]);
    Ok(())
}

fn request(stream: &mut impl Write, path: &str) -> Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
    Ok(stream.flush()?)
}

/// Reads at least so much; megabytes by the second.
fn read_all(mut stream: impl Read, bytes: u64) -> Result<f64> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = stream.read(&mut buffer)? as u64;
        ensure!(count > 0, "the connection ended {left} bytes too early");
        left = left.saturating_sub(count);
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
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
fn source(bytes: u64) -> Result<SocketAddr> {
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

fn echo() -> Result<SocketAddr> {
    serve(|mut stream| {
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    })
}

/// HTTP over TLS: `/large` and `/small`.
fn secure(tls: &Tls, bytes: u64) -> Result<SocketAddr> {
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
struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Tls {
    fn new(authority: &Path) -> Result<Self> {
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

    fn connect(&self, address: SocketAddr) -> Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        let name = ServerName::try_from(NAME)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::clone(&self.client), name)?, stream))
    }
}

/// The real program, with one session whose listeners are on loopback.
struct Gateway {
    child: Child,
    proxy: SocketAddr,
    model: SocketAddr,
    _supervisor: OwnedFd,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Gateway {
    fn start(dir: &Path, ports: [u16; 3], upstream: SocketAddr) -> Result<Self> {
        let (hosts, path) = (dir.join("hosts"), dir.join("gateway.sock"));
        fs::write(&hosts, format!("127.0.0.1 {NAME}\n"))?;
        let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(binary("agentapi-egress"));
        command.arg("--socket").arg(&path).args(["--allow-address", "127.0.0.1/32", "--log", "warn"]);
        command.env("SSL_CERT_FILE", dir.join("ca.pem")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("standard output")?).read_line(&mut line)?;
        let supervisor = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(supervisor.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let limits = EgressLimits {
            connections_max: 10_000,
            connections_per_minute: 1_000_000,
            bytes_per_second: None,
            bytes_max: None,
        };
        let rule = EgressRule { host: HostPattern::try_from(NAME.to_owned())?, ports: ports.to_vec() };
        let policy = EgressPolicy { mode: EgressMode::Enforce, allow: vec![rule], deny: Vec::new(), limits };
        let model = ListenerRole::Model {
            name: "bench".to_owned(),
            upstream: format!("https://{NAME}:{}", upstream.port()),
            header: "x-api-key".to_owned(),
            value: SecretText::new("key".to_owned()),
        };
        let raw = [listeners[0].as_raw_fd(), listeners[1].as_raw_fd()];
        let served = GatewayRequest::Session {
            session: SessionId::generate(),
            spawn: 1,
            policy,
            listeners: vec![ListenerRole::Proxy, model],
        };
        for (request, rights) in [(GatewayRequest::Hello { protocol: PROTOCOL }, &raw[..0]), (served, &raw[..])] {
            let bytes = serde_json::to_vec(&request)?;
            let with = [ControlMessage::ScmRights(rights)];
            let with = if rights.is_empty() { &with[..0] } else { &with[..] };
            sendmsg::<UnixAddr>(
                supervisor.as_raw_fd(),
                &[std::io::IoSlice::new(&bytes)],
                with,
                MsgFlags::empty(),
                None,
            )?;
            let mut buffer = vec![0; MESSAGE_BYTES_MAX];
            let length = recv(supervisor.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let event: GatewayEvent = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
            ensure!(matches!(event, GatewayEvent::Hello { .. } | GatewayEvent::Serving { .. }), "{event:?}");
        }
        let (proxy, model) = (listeners[0].local_addr()?, listeners[1].local_addr()?);
        Ok(Self { child, proxy, model, _supervisor: supervisor })
    }

    fn tunnel(&self, port: u16) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_nodelay(true)?;
        write!(stream, "CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            // Its body says why.
            stream.read_to_end(&mut answer)?;
            bail!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(stream)
    }

    fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}
