//! The real program, with one session whose listeners are on loopback.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agentapi_shared::SessionId;
use agentapi_shared::egress::{
    EgressLimits, EgressMode, EgressPolicy, EgressRule, GatewayEvent, GatewayRequest, HostPattern, ListenerRole,
    MESSAGE_BYTES_MAX, PROTOCOL, SecretText,
};
use agentapi_tests::process::binary;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};

use super::NAME;

/// See the module.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    proxy: SocketAddr,
    pub(super) model: SocketAddr,
    _supervisor: OwnedFd,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Gateway {
    pub(super) fn start(dir: &Path, ports: [u16; 3], upstream: SocketAddr) -> Result<Self> {
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

    pub(super) fn tunnel(&self, port: u16) -> Result<TcpStream> {
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

    /// Its process; `unshare` and `sh` became it.
    pub(super) fn pid(&self) -> Result<i32> {
        Ok(self.child.id().try_into()?)
    }
}
