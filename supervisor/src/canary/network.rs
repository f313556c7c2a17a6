//! Attempts on the network: the host's loopback interface, the world, and families of sockets that no namespace holds. No packet leaves the host,
//! whatever comes of them.

use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use nix::errno::Errno;

use super::Scene;
use super::attempt::{Needs, Row, Seen, errno};
use crate::sys::{Arg, call};

/// Longer than an answer of one's own machine takes.
const PATIENCE: Duration = Duration::from_millis(300);
/// For documentation only: a datagram socket is connected to it, which asks for a route and sends nothing.
const ELSEWHERE: &str = "192.0.2.1:9";
/// `NETLINK_AUDIT`, `NETLINK_NETFILTER`.
const NETLINK: [i32; 2] = [9, 12];

pub(super) const ROWS: &[Row] = &[
    of_network("network.host_loopback", host_loopback),
    of_network("network.host_abstract_socket", host_abstract_socket),
    of_network("network.route", |_| Seen::of_io(UdpSocket::bind("0.0.0.0:0").and_then(|any| any.connect(ELSEWHERE)))),
    row("network.configure", configure),
    row("sockets.raw", |_| socket(libc::AF_INET.into(), libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    row("sockets.packet", |_| socket(libc::AF_PACKET.into(), libc::SOCK_RAW, 0)),
    row("sockets.packet_with_high_bits", |_| socket(i64::from(libc::AF_PACKET) | 1 << 32, libc::SOCK_RAW, 0)),
    row("sockets.hypervisor", |_| socket(libc::AF_VSOCK.into(), libc::SOCK_STREAM, 0)),
    row("sockets.crypto", |_| socket(libc::AF_ALG.into(), libc::SOCK_SEQPACKET, 0)),
    row("sockets.bluetooth", |_| socket(libc::AF_BLUETOOTH.into(), libc::SOCK_RAW, 0)),
    row("sockets.netlink", |_| {
        Seen::worst(NETLINK.map(|protocol| socket(libc::AF_NETLINK.into(), libc::SOCK_RAW, protocol)))
    }),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

const fn of_network(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Network, make }
}

/// Whoever listens there says the secret: another listener on the same port of one's own network says nothing.
fn greeted(scene: &Scene, stream: std::io::Result<impl std::io::Read>) -> Seen {
    let mut text = vec![0; scene.aims.secret.len()];
    match stream.and_then(|mut stream| stream.read_exact(&mut text)) {
        Ok(()) => Seen::open_if(text == scene.aims.secret.as_bytes(), "another one"),
        // Nobody says anything that soon.
        Err(error) if error.raw_os_error().is_none() => Seen::held("silence"),
        Err(error) => Seen::refused(errno(&error)),
    }
}

fn host_loopback(scene: &Scene) -> Seen {
    let stream = TcpStream::connect_timeout(&scene.aims.tcp, PATIENCE)
        .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream));
    greeted(scene, stream)
}

fn host_abstract_socket(scene: &Scene) -> Seen {
    let stream = SocketAddr::from_abstract_name(&scene.aims.abstract_socket)
        .and_then(|address| UnixStream::connect_addr(&address))
        .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream));
    greeted(scene, stream)
}

/// Sets the flags of the loopback interface to what they are.
fn configure(_: &Scene) -> Seen {
    /// The kernel's `ifreq`: a name of 16 bytes, and here two of flags.
    const REQUEST_BYTES: usize = 40;
    let socket = match UdpSocket::bind("127.0.0.1:0") {
        Ok(socket) => socket,
        Err(error) => return Seen::refused(errno(&error)),
    };
    let mut request = [0_u8; REQUEST_BYTES];
    for (to, from) in request.iter_mut().zip(b"lo") {
        *to = *from;
    }
    let fd = || Arg::Number(socket.as_raw_fd().into());
    let number = |request: u64| Arg::Number(request.cast_signed());
    let known = call(libc::SYS_ioctl, [fd(), number(libc::SIOCGIFFLAGS), Arg::Out(&mut request)]);
    Seen::of(known.and_then(|_| call(libc::SYS_ioctl, [fd(), number(libc::SIOCSIFFLAGS), Arg::In(&request)])))
}

fn socket(family: i64, kind: i32, protocol: i32) -> Seen {
    let args = [Arg::Number(family), Arg::Number(kind.into()), Arg::Number(protocol.into())];
    let opened: Result<i64, Errno> = call(libc::SYS_socket, args);
    // The process that has it ends at once.
    Seen::of(opened).absent_if_missing()
}
