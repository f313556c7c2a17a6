//! The host that attempts are aimed at: mount, network, IPC and UTS namespaces of the test's own, with addresses that only clouds and private networks
//! have, and somebody who listens. Nothing of the machine's own network is ever a target, not even where a layer is taken away.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentapi_tests::wait::here;
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

/// Addresses that this host answers at, all on its loopback.
const ADDRESSES: [&str; 4] = ["192.0.2.1/32", "10.99.0.1/32", "169.254.169.254/32", "100.100.100.200/32"];
/// Where clouds tell machines their credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// A host that connects says something at once.
const HEARING: Duration = Duration::from_secs(2);
/// Name of this host.
pub(crate) const HOST_NAME: &str = "attempts-host";

/// What was heard, by any of the listeners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub(crate) fn note(&self, bytes: &[u8]) {
        if let Ok(mut all) = self.0.lock() {
            all.push(String::from_utf8_lossy(bytes).into_owned());
        }
    }

    /// Everything since the last time.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        self.0.lock().map(|mut all| all.drain(..).collect()).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    /// What came in.
    pub(crate) heard: Heard,
    /// Where TCP and UDP are listened to.
    pub(crate) addresses: Vec<String>,
    /// Name of an abstract socket.
    pub(crate) abstract_socket: String,
}

impl World {
    /// Moves this thread, and with it everything it starts, to a host of its own.
    pub(crate) fn make() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "these tests make namespaces and become other users: run them as root"
        );
        let flags =
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(flags).context("namespaces of the test")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mounts of the test")?;
        sethostname(HOST_NAME)?;
        ip(&["link", "set", "lo", "up"])?;
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").context("pings of the test's host")?;
        for address in ADDRESSES {
            ip(&["address", "add", address, "dev", "lo"])?;
        }
        let heard = Heard::default();
        let (tcp, udp) = pair("0.0.0.0:0")?;
        let port = tcp.local_addr()?.port();
        hear_tcp(tcp, heard.clone())?;
        hear_udp(udp, heard.clone())?;
        hear_tcp(TcpListener::bind((METADATA, 80))?, heard.clone())?;
        let (tcp6, udp6) = pair("[::1]:0")?;
        let port6 = tcp6.local_addr()?.port();
        hear_tcp(tcp6, heard.clone())?;
        hear_udp(udp6, heard.clone())?;
        let hosts = ["127.0.0.1", "192.0.2.1", "10.99.0.1"];
        let mut addresses: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
        addresses.push(format!("[::1]:{port6}"));
        let abstract_socket = format!("attempts-{}", agentapi_shared::SessionId::generate());
        hear_unix(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_socket)?)?, heard.clone())?;
        Ok(Self { heard, addresses, abstract_socket })
    }

    /// Listens at a path as well, open to everybody.
    pub(crate) fn listen_at(&self, path: &Path) -> Result<()> {
        let listener = UnixListener::bind(path)?;
        open_to_all(path)?;
        hear_unix(listener, self.heard.clone())
    }
}

/// Everybody may read and write, and go in where it is a directory.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?)
}

pub(crate) fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("ip (package iproute2)")?;
    ensure!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// TCP and UDP at the same port.
fn pair(address: &str) -> Result<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind(address)?;
    let udp = UdpSocket::bind(tcp.local_addr()?)?;
    Ok((tcp, udp))
}

fn hear(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    // Ends with the test's process: there is a handful of them.
    std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(())
}

fn hear_tcp(listener: TcpListener, heard: Heard) -> Result<()> {
    hear("tcp", move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 64];
            let _limit = stream.set_read_timeout(Some(here(HEARING)));
            let length = stream.read(&mut bytes).unwrap_or(0);
            heard.note(&bytes[..length]);
        }
    })
}

fn hear_udp(socket: UdpSocket, heard: Heard) -> Result<()> {
    hear("udp", move || {
        let mut bytes = [0; 64];
        while let Ok((length, _)) = socket.recv_from(&mut bytes) {
            heard.note(&bytes[..length]);
        }
    })
}

fn hear_unix(listener: UnixListener, heard: Heard) -> Result<()> {
    hear("unix", move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 64];
            let _limit = stream.set_read_timeout(Some(here(HEARING)));
            let length = stream.read(&mut bytes).unwrap_or(0);
            heard.note(&bytes[..length]);
        }
    })
}

/// Lines of this thread's mount table that mention a directory.
pub(crate) fn mounts_below(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let name = dir.display().to_string();
    table.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect()
}

/// Directories of cgroups whose name mentions a session.
pub(crate) fn cgroups_of(session: &str) -> Vec<PathBuf> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(session) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}
