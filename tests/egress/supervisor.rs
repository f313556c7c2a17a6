//! The supervisor's side of the gateway, and a whole gateway with everything around it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, IoSlice};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_shared::SessionId;
use agentapi_shared::egress::{
    EgressDecision, EgressLimits, EgressMode, EgressPolicy, EgressRule, GatewayEvent, GatewayRequest, HostPattern,
    ListenerRole, MESSAGE_BYTES_MAX, PROTOCOL,
};
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::binary;
use agentapi_tests::wait::PATIENCE;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    setsockopt, shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::network::{METADATA, Net, OTHER, PRIVATE, SERVER, joined, write_hosts};
use crate::origin::{Authority, Origin};

/// What may be used where a test is about something else.
pub(crate) const LIMITS: EgressLimits =
    EgressLimits { connections_max: 1000, connections_per_minute: 10_000, bytes_per_second: None, bytes_max: None };

/// One connection of a supervisor.
pub(crate) struct Supervisor {
    socket: OwnedFd,
    /// Decisions that came while something else was waited for.
    early: RefCell<VecDeque<(u64, EgressDecision)>>,
}

impl Supervisor {
    /// Connects, and says hello.
    pub(crate) fn connect(path: &Path) -> (Self, Vec<(SessionId, u32)>) {
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let seconds = i64::try_from(PATIENCE.as_secs()).unwrap();
        setsockopt(&made, sockopt::ReceiveTimeout, &TimeVal::seconds(seconds)).unwrap();
        setsockopt(&made, sockopt::SndBuf, &(2 * MESSAGE_BYTES_MAX)).unwrap();
        connect(made.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        let supervisor = Self { socket: made, early: RefCell::default() };
        supervisor.send(&GatewayRequest::Hello { protocol: PROTOCOL }, &[]);
        match supervisor.event() {
            Some(GatewayEvent::Hello { protocol: PROTOCOL, sessions, .. }) => (supervisor, sessions),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn send(&self, request: &GatewayRequest, listeners: &[&TcpListener]) {
        let bytes = serde_json::to_vec(request).unwrap();
        let raw: Vec<i32> = listeners.iter().map(|listener| listener.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights };
        sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)
            .unwrap();
    }

    /// The next event; none at the end.
    pub(crate) fn event(&self) -> Option<GatewayEvent> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET) => None,
            Ok(length) => Some(serde_json::from_slice(&buffer[..length]).unwrap()),
            Err(errno) => panic!("no event: {errno}"),
        }
    }

    /// The next decision, with its number.
    pub(crate) fn numbered(&self) -> (u64, EgressDecision) {
        if let Some(early) = self.early.borrow_mut().pop_front() {
            return early;
        }
        loop {
            match self.event() {
                Some(GatewayEvent::Decision { seq, decision }) => return (seq, *decision),
                Some(_) => {}
                None => panic!("the gateway is gone"),
            }
        }
    }

    pub(crate) fn decision(&self) -> EgressDecision {
        self.numbered().1
    }

    /// Ends the connection, as a kill would.
    pub(crate) fn hang_up(&self) {
        shutdown(self.socket.as_raw_fd(), Shutdown::Both).unwrap();
    }

    /// Has a session served.
    pub(crate) fn serve(
        &self,
        session: SessionId,
        policy: &EgressPolicy,
        roles: &[ListenerRole],
        listeners: &[&TcpListener],
    ) -> Result<(), String> {
        let request = GatewayRequest::Session { session, spawn: 1, policy: policy.clone(), listeners: roles.to_vec() };
        self.send(&request, listeners);
        loop {
            match self.event() {
                Some(GatewayEvent::Serving { session: served, .. }) if served == session => return Ok(()),
                Some(GatewayEvent::Refused { session: refused, detail, .. }) if refused == session => {
                    return Err(detail);
                }
                Some(GatewayEvent::Decision { seq, decision }) => self.early.borrow_mut().push_back((seq, *decision)),
                Some(_) => {}
                None => panic!("the gateway is gone"),
            }
        }
    }
}

/// A policy of rules such as `example.com` or `*.example.com:443`.
pub(crate) fn policy(mode: EgressMode, allow: &[&str], deny: &[&str]) -> EgressPolicy {
    let rule = |text: &&str| {
        let (host, port) = text.split_once(':').map_or((*text, None), |(host, port)| (host, Some(port)));
        EgressRule {
            host: HostPattern::try_from(host.to_owned()).unwrap(),
            ports: port.iter().map(|port| port.parse().unwrap()).collect(),
        }
    };
    EgressPolicy {
        mode,
        allow: allow.iter().map(rule).collect(),
        deny: deny.iter().map(rule).collect(),
        limits: LIMITS,
    }
}

/// A gateway process. Killed when dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Gateway {
    /// Waits for its own end.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

/// Waits for a fact.
#[expect(clippy::disallowed_methods, reason = "a fact is looked for until a deadline, in a test without a runtime")]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) inside: Net,
    pub(crate) gate: Net,
    pub(crate) world: Net,
    pub(crate) origin: Origin,
    pub(crate) gateway: Gateway,
    pub(crate) supervisor: Supervisor,
    pub(crate) session: SessionId,
    /// The session's proxy listener, which its shim would keep.
    pub(crate) proxy: TcpListener,
}

impl Fixture {
    /// A gateway with one session that has a proxy listener.
    pub(crate) fn new(policy: &EgressPolicy) -> Self {
        Self::with(policy, &[])
    }

    /// With private addresses that the operator allows.
    pub(crate) fn with(policy: &EgressPolicy, allow_addresses: &[&str]) -> Self {
        let dir = TempDir::new();
        let (gate, world) = joined();
        let inside = Net::new();
        let (hosts, resolver) = (dir.path().join("hosts"), dir.path().join("resolv.conf"));
        write_hosts(
            &hosts,
            &[
                ("good.test", SERVER),
                ("a.star.test", SERVER),
                ("star.test", SERVER),
                ("bad.star.test", SERVER),
                ("evil.test", OTHER),
                ("model.test", SERVER),
                ("inside.test", PRIVATE),
                ("meta.test", METADATA),
                ("local.test", "127.0.0.1"),
                ("mixed.test", SERVER),
                ("mixed.test", PRIVATE),
                ("nobody.test", "93.184.216.99"),
            ],
        );
        fs::write(&resolver, format!("search corp.test\nnameserver {SERVER}\noptions timeout:1 attempts:1\n")).unwrap();
        gate.bind_file(&hosts, "/etc/hosts");
        gate.bind_file(&resolver, "/etc/resolv.conf");
        let authority = Authority::new(&dir.path().join("ca.pem"));
        let origin = Origin::start(&world, &authority);
        let gateway = start(&gate, dir.path(), "gateway.sock", allow_addresses);
        let (supervisor, sessions) = Supervisor::connect(&gateway.socket);
        assert!(sessions.is_empty());
        let proxy = inside.listen("127.0.0.1:3128");
        let session = SessionId::generate();
        supervisor.serve(session, policy, &[ListenerRole::Proxy], &[&proxy]).unwrap();
        Self { dir, inside, gate, world, origin, gateway, supervisor, session, proxy }
    }

    /// curl inside, through the proxy named first.
    pub(crate) fn curl(&self, arguments: &str) -> String {
        let ca = self.dir.path().join("ca.pem");
        self.inside.shell(&format!("curl -sS --max-time 30 --cacert {} {arguments}", ca.display()))
    }

    /// Bytes to the proxy from inside; what it answers until it closes, or for a moment.
    pub(crate) fn raw(&self, request: &[u8]) -> Vec<u8> {
        let request = request.to_vec();
        self.inside.run(move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect("127.0.0.1:3128").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(&request).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            // A reset after the answer is as good as an end.
            let _end = stream.read_to_end(&mut answer);
            answer
        })
    }

    /// A tunnel from inside, open and idle.
    pub(crate) fn tunnel(&self, target: &str) -> std::net::TcpStream {
        let target = target.to_owned();
        self.inside.run(move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect("127.0.0.1:3128").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                answer.extend(byte);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            stream
        })
    }
}

/// Starts a gateway where the resolver knows the test's names.
pub(crate) fn start(gate: &Net, dir: &Path, name: &str, allow_addresses: &[&str]) -> Gateway {
    let socket = dir.join(name);
    let mut command = Command::new(binary("agentapi-egress"));
    command.env_clear().env("SSL_CERT_FILE", dir.join("ca.pem")).arg("--socket").arg(&socket).args(["--log", "debug"]);
    for address in allow_addresses {
        command.args(["--allow-address", address]);
    }
    let log = fs::File::options().create(true).append(true).open(dir.join("gateway.log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = gate.run(move || command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "{\"ready\":true}\n", "see {}", dir.join("gateway.log").display());
    Gateway { child, socket }
}
