//! Attempts on what processes of one machine share: sockets by name, System V objects, queues, keyrings, shared directories.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use agentapi_tests::attempt::Params;
use nix::errno::Errno;

use crate::outcome::{Row, Seen, errno};
use crate::sys::{self, at, at_mut, c, call};

/// Sockets that give whoever reaches them the machine, on hosts that have them.
const POWERFUL: [&str; 8] = [
    "/run/dbus/system_bus_socket",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/systemd/journal/socket",
    "/run/snapd.socket",
];

pub(crate) const ROWS: &[Row] = &[
    Row { number: 41, name: "ipc.abstract_socket", make: abstract_socket },
    Row { number: 42, name: "ipc.host_sockets", make: host_sockets },
    Row { number: 42, name: "ipc.agent_socket", make: agent_socket },
    Row {
        number: 43,
        name: "ipc.shared_memory",
        make: |params| get(libc::SYS_shmget, &[params.sysv_key as usize, 0, 0]),
    },
    Row { number: 43, name: "ipc.semaphores", make: |params| get(libc::SYS_semget, &[params.sysv_key as usize, 0, 0]) },
    Row { number: 43, name: "ipc.message_queue", make: |params| get(libc::SYS_msgget, &[params.sysv_key as usize, 0]) },
    Row { number: 43, name: "ipc.posix_queue", make: posix_queue },
    Row { number: 44, name: "ipc.control_socket", make: control_socket },
    Row { number: 45, name: "ipc.read_key", make: read_key },
    Row { number: 45, name: "ipc.add_key", make: add_key },
    Row { number: 46, name: "ipc.shared_directories", make: shared_directories },
];

/// A path of any length: those of sockets are short, those of directories are not.
pub(crate) fn connect(path: &str) -> std::io::Result<UnixStream> {
    let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
    std::env::set_current_dir(if dir.is_empty() { "/" } else { dir })?;
    UnixStream::connect(name)
}

fn say(stream: std::io::Result<UnixStream>, name: &str) -> Seen {
    match stream {
        Ok(mut stream) => Seen::of_io(stream.write_all(name.as_bytes())),
        Err(error) => Seen::refused(errno(&error)),
    }
}

fn abstract_socket(params: &Params) -> Seen {
    let stream =
        SocketAddr::from_abstract_name(&params.abstract_socket).and_then(|address| UnixStream::connect_addr(&address));
    say(stream, "ipc.abstract_socket")
}

fn host_sockets(params: &Params) -> Seen {
    let known = POWERFUL.iter().map(|path| (*path).to_owned());
    Seen::worst(
        params
            .unix_sockets
            .clone()
            .into_iter()
            .chain(known)
            .map(|path| say(connect(&path), "ipc.host_sockets").with(path)),
    )
}

/// Sockets that the environment names: ssh-agent, gpg, D-Bus.
fn agent_socket(_: &Params) -> Seen {
    let named: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| {
            name.ends_with("_SOCK") || name.ends_with("_SOCKET") || name.contains("DBUS") || name == "DOCKER_HOST"
        })
        .collect();
    Seen::open_if(!named.is_empty(), "none", format!("{named:?}"))
}

fn get(number: i64, args: &[usize]) -> Seen {
    Seen::of(call(number, args))
}

fn posix_queue(params: &Params) -> Seen {
    let name = c(&params.message_queue);
    match call(libc::SYS_mq_open, &[at(name.to_bytes_with_nul()), libc::O_RDONLY as usize, 0, 0]) {
        Ok(fd) => {
            drop(sys::own(fd));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno),
    }
}

/// The shim's own socket and the supervisor's: by path, through init, and with a descriptor sent along where one answers.
fn control_socket(params: &Params) -> Seen {
    let init = crate::process::init();
    let by_init = (0..16).map(|fd| format!("/proc/{init}/fd/{fd}"));
    let paths = params.unix_sockets.iter().flat_map(|path| [path.clone(), format!("/proc/{init}/root{path}")]);
    Seen::worst(paths.chain(by_init).map(|path| match connect(&path) {
        Ok(stream) => send_descriptor(&stream).with(path),
        Err(error) => Seen::refused(errno(&error)),
    }))
}

fn send_descriptor(stream: &UnixStream) -> Seen {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    let fds = [stream.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [std::io::IoSlice::new(b"ipc.control_socket")];
    Seen::of(sendmsg::<UnixAddr>(stream.as_raw_fd(), &text, &rights, MsgFlags::MSG_NOSIGNAL, None))
}

fn read_key(params: &Params) -> Seen {
    /// `KEYCTL_READ`.
    const READ: usize = 11;
    let mut buffer = [0_u8; 256];
    match call(libc::SYS_keyctl, &[READ, params.key_serial as usize, at_mut(&mut buffer), buffer.len()]) {
        Ok(_) => Seen::open_if(String::from_utf8_lossy(&buffer).contains(&params.secret), "other", ""),
        Err(errno) => Seen::refused(errno),
    }
}

fn add_key(_: &Params) -> Seen {
    let (kind, name) = (c("user"), c("attempt"));
    /// `KEY_SPEC_PROCESS_KEYRING`: gone with this process.
    const RING: usize = -2_isize as usize;
    let result: Result<i64, Errno> =
        call(libc::SYS_add_key, &[at(kind.to_bytes_with_nul()), at(name.to_bytes_with_nul()), at(b"x"), 1, RING]);
    Seen::of(result)
}

fn shared_directories(params: &Params) -> Seen {
    Seen::worst(params.shared_files.iter().map(|path| match std::fs::read_to_string(path) {
        Ok(text) => Seen::open_if(text.contains(&params.secret), "other", path.clone()),
        Err(error) => Seen::refused(errno(&error)),
    }))
}
