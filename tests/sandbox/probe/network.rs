//! Attempts on the network: leaving it, listening to it, changing it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use agentapi_tests::attempt::Params;

use crate::outcome::{Row, Seen, errno};
use crate::sys::{self, at, call};

/// Addresses at which clouds tell machines their credentials.
const METADATA: [&str; 10] = [
    "169.254.169.254:80",
    "169.254.170.2:80",
    "169.254.169.253:53",
    "169.254.169.123:123",
    "168.63.129.16:80",
    "100.100.100.200:80",
    "192.0.0.192:80",
    "[fd00:ec2::254]:80",
    "[fd20:ce::254]:80",
    "[fe80::a9fe:a9fe]:80",
];
/// Longer than any answer of one's own machine takes.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) const ROWS: &[Row] = &[
    Row { number: 30, name: "net.tcp", make: tcp },
    Row { number: 30, name: "net.udp", make: udp },
    Row { number: 30, name: "net.icmp", make: icmp },
    Row { number: 31, name: "net.metadata", make: metadata },
    Row { number: 36, name: "net.raw", make: |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) },
    Row { number: 36, name: "net.raw6", make: |_| socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6) },
    Row { number: 36, name: "net.packet", make: |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0) },
    Row { number: 36, name: "net.vsock", make: |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) },
    Row { number: 36, name: "net.alg", make: |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0) },
    Row {
        number: 36,
        name: "net.netlink_audit",
        make: |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    },
    Row {
        number: 36,
        name: "net.netlink_netfilter",
        make: |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    },
    Row {
        number: 36,
        name: "net.netlink_uevent",
        make: |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
    },
    Row { number: 36, name: "net.bluetooth", make: |_| socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 0) },
    Row { number: 36, name: "net.high_bits", make: high_bits },
    Row { number: 40, name: "net.loopback_down", make: loopback_down },
    Row { number: 40, name: "net.route", make: route },
    Row { number: 40, name: "net.device", make: device },
];

fn addresses(params: &Params) -> Vec<SocketAddr> {
    params.addresses.iter().filter_map(|text| text.parse().ok()).collect()
}

fn connect(address: SocketAddr, name: &str) -> Seen {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(mut stream) => Seen::of_io(stream.write_all(name.as_bytes())).with(address.to_string()),
        Err(error) if error.raw_os_error().is_none() => Seen::held("timeout"),
        Err(error) => Seen::refused(errno(&error)).with(address.to_string()),
    }
}

fn tcp(params: &Params) -> Seen {
    Seen::worst(addresses(params).into_iter().map(|address| connect(address, "net.tcp")))
}

fn metadata(_: &Params) -> Seen {
    Seen::worst(METADATA.iter().filter_map(|text| text.parse().ok()).map(|address| connect(address, "net.metadata")))
}

/// A datagram that is sent proves nothing: the harness looks whether it came.
fn udp(params: &Params) -> Seen {
    Seen::worst(addresses(params).into_iter().map(|address| {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        match UdpSocket::bind(any).and_then(|socket| socket.send_to(b"net.udp", address)) {
            Ok(_) => Seen::held("sent"),
            Err(error) => Seen::refused(errno(&error)),
        }
    }))
}

/// A ping without privileges.
fn icmp(params: &Params) -> Seen {
    let socket =
        match call(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_DGRAM as usize, libc::IPPROTO_ICMP as usize])
        {
            Ok(fd) => sys::own(fd),
            Err(errno) => return Seen::refused(errno),
        };
    let echo = [8_u8, 0, 0, 0, 0, 0, 0, 1];
    Seen::worst(addresses(params).into_iter().filter_map(|address| {
        let SocketAddr::V4(address) = address else { return None };
        let to = libc::sockaddr_in {
            sin_family: 2,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
            sin_zero: [0; 8],
        };
        let args = [socket.as_raw_fd() as usize, at(&echo), echo.len(), 0, at(&to), size_of_val(&to)];
        Some(Seen::of(call(libc::SYS_sendto, &args)))
    }))
}

fn socket(family: i32, kind: i32, protocol: i32) -> Seen {
    match call(libc::SYS_socket, &[family as usize, kind as usize, protocol as usize]) {
        Ok(fd) => {
            drop(sys::own(fd));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno).absent_if_missing(),
    }
}

/// The family is an int: bits above it are not looked at by the kernel and must not mislead a filter.
fn high_bits(_: &Params) -> Seen {
    let family = libc::AF_PACKET as usize | 1 << 32;
    match call(libc::SYS_socket, &[family, libc::SOCK_RAW as usize, 0]) {
        Ok(fd) => {
            drop(sys::own(fd));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno),
    }
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Sets loopback to what it is already or, where it is up, down and up again.
fn loopback_down(_: &Params) -> Seen {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return Seen::held("no_loopback") };
    let mut request = InterfaceRequest { name: [0; 16], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    let ioctl = |request: &InterfaceRequest| {
        call(libc::SYS_ioctl, &[socket.as_raw_fd() as usize, libc::SIOCSIFFLAGS as usize, at(request)])
    };
    let down = ioctl(&request);
    if down.is_ok() {
        request.flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
        let _up = ioctl(&request);
    }
    Seen::of(down)
}

fn netlink(message: &[u8]) -> Seen {
    let kind = libc::SOCK_RAW as usize;
    let socket = match call(libc::SYS_socket, &[libc::AF_NETLINK as usize, kind, libc::NETLINK_ROUTE as usize]) {
        Ok(fd) => sys::own(fd),
        Err(errno) => return Seen::refused(errno),
    };
    let fd = socket.as_raw_fd() as usize;
    if let Err(errno) = call(libc::SYS_sendto, &[fd, at(message), message.len(), 0, 0, 0]) {
        return Seen::refused(errno);
    }
    let mut answer = [0_u8; 256];
    match call(libc::SYS_recvfrom, &[fd, sys::at_mut(&mut answer), answer.len(), 0, 0, 0]) {
        // The error of an acknowledgement stands behind its header of 16 bytes.
        Ok(_) => match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Seen::open(""),
            error => Seen::refused(nix::errno::Errno::from_raw(-error)),
        },
        Err(errno) => Seen::refused(errno),
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(16);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | 0x5).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// A route to 198.51.100.0/24 (documentation only) over loopback.
fn route(_: &Params) -> Seen {
    let mut body = vec![libc::AF_INET as u8, 24, 0, 0, 254, 3, 253, 1, 0, 0, 0, 0];
    body.extend([8, 0, 1, 0, 198, 51, 100, 0]);
    body.extend([8, 0, 4, 0, 1, 0, 0, 0]);
    netlink(&message(libc::RTM_NEWROUTE, 0x600, &body))
}

/// A dummy interface.
fn device(_: &Params) -> Seen {
    let mut body = vec![0; 16];
    // IFLA_LINKINFO { IFLA_INFO_KIND "dummy" }
    body.extend([16, 0, 18, 0, 10, 0, 1, 0]);
    body.extend(b"dummy\0\0\0");
    netlink(&message(libc::RTM_NEWLINK, 0x600, &body)).absent_if_missing()
}
