//! Asking a shim for the listeners of its jail: a connection of its own, one question, one answer with descriptors. Blocks, but not for long.

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use agentapi_shared::egress::LISTENERS_MAX;
use agentapi_shared::shim::{
    PACKET_HEADER_BYTES, PACKET_JSON, ShimEvent, ShimRequest, packet_header, parse_packet_header,
};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use crate::sys;

/// A shim answers at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The answer names at most [`LISTENERS_MAX`] ports.
const ANSWER_BYTES_MAX: usize = 4096;

/// Ports inside the jail and duplicates of what listens on them, from the shim whose socket is at this path.
pub(crate) fn listeners(socket: &Path) -> io::Result<Vec<(u16, OwnedFd)>> {
    let mut shim = UnixStream::connect(socket)?;
    shim.set_read_timeout(Some(TIMEOUT))?;
    shim.set_write_timeout(Some(TIMEOUT))?;
    let body = serde_json::to_vec(&ShimRequest::Listeners)?;
    shim.write_all(&[packet_header(PACKET_JSON, body.len()).as_slice(), &body].concat())?;
    let mut answer = Vec::new();
    let mut fds = Vec::new();
    loop {
        if let Some((header, body)) = answer.split_first_chunk::<PACKET_HEADER_BYTES>() {
            let (length, _) = parse_packet_header(*header).ok_or(io::ErrorKind::InvalidData)?;
            if let Some(body) = body.get(..length) {
                return pair(serde_json::from_slice(body)?, fds);
            }
        }
        if answer.len() > ANSWER_BYTES_MAX || !receive(&shim, &mut answer, &mut fds)? {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Takes in what is there; false at the end.
fn receive(shim: &UnixStream, answer: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    let mut control = nix::cmsg_space!([RawFd; LISTENERS_MAX]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<UnixAddr>(shim.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(sys::own_received));
        }
    }
    let count = message.bytes;
    answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(count > 0)
}

fn pair(event: ShimEvent, fds: Vec<OwnedFd>) -> io::Result<Vec<(u16, OwnedFd)>> {
    match event {
        ShimEvent::Listeners { ports } if ports.len() == fds.len() => Ok(ports.into_iter().zip(fds).collect()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSlice, Read};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{ControlMessage, sendmsg};

    #[test]
    fn an_answer_in_pieces_is_put_together_and_a_short_one_refused() {
        let dir = std::env::temp_dir().join(format!("agentapi-listeners-{}", agentapi_shared::SessionId::generate()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("shim.sock");
        let shim = UnixListener::bind(&path).unwrap();
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = inside.local_addr().unwrap().port();
        for ports in [vec![port], vec![port, port]] {
            let asked = {
                let path = path.clone();
                std::thread::spawn(move || listeners(&path))
            };
            let (mut peer, _) = shim.accept().unwrap();
            let mut header = [0; PACKET_HEADER_BYTES];
            peer.read_exact(&mut header).unwrap();
            let mut request = vec![0; parse_packet_header(header).unwrap().0];
            peer.read_exact(&mut request).unwrap();
            assert!(matches!(serde_json::from_slice(&request).unwrap(), ShimRequest::Listeners));
            let body = serde_json::to_vec(&ShimEvent::Listeners { ports: ports.clone() }).unwrap();
            let fds = [inside.as_raw_fd()];
            let first = [packet_header(PACKET_JSON, body.len()).as_slice(), &body[..3]].concat();
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<UnixAddr>(peer.as_raw_fd(), &[IoSlice::new(&first)], &rights, MsgFlags::empty(), None).unwrap();
            peer.write_all(&body[3..]).unwrap();
            let answer = asked.join().unwrap();
            if ports.len() == 1 {
                let [(told, fd)] = <[_; 1]>::try_from(answer.unwrap()).unwrap();
                assert_eq!((told, TcpListener::from(fd).local_addr().unwrap().port()), (port, port));
            } else {
                assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
