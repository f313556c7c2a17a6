//! A tunnel: the first bytes out of it are looked at, then both ways are pumped until both ends are done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agentapi_shared::egress::EgressVerdict;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hello::{Hello, Sniffed, sniff};
use crate::names::Name;
use crate::refusal::Refusal;
use crate::session::{Outgoing, Session};
use crate::splice::{Stop, pump};

/// A client that wanted a connection says its hello by then.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// The port on which nothing but TLS is let through.
const TLS_PORT: u16 = 443;
/// Read at once while the hello is looked for.
const READ_BYTES: usize = 4096;
/// TLS for "unrecognized name": a fatal alert, so that clients say what is wrong.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Runs a tunnel to its end. `early` is what the client sent before it was answered.
pub(super) async fn run(session: &Arc<Session>, client: TcpStream, early: Vec<u8>, outgoing: Outgoing) {
    let Outgoing { stream: server, name, port, mut record } = outgoing;
    let traffic = Arc::clone(&record.traffic);
    let up = async {
        let (first, refusal) = first_bytes(&client, early, port, name.as_ref()).await?;
        match refusal {
            Some(refusal) if session.observes() => record.decide(EgressVerdict::WouldDeny, refusal.word()),
            Some(refusal) => return Err(Stop::Refused(refusal)),
            None => {}
        }
        session.meter.charge(first.len());
        traffic.up.fetch_add(first.len() as u64, Ordering::Relaxed);
        write_all(&server, &first).await?;
        drop(first);
        pump(&client, &server, &session.shared.pipes, &session.meter, &traffic.up).await
    };
    // Servers of other protocols speak first, so this does not wait.
    let down = pump(&server, &client, &session.shared.pipes, &session.meter, &traffic.down);
    match tokio::try_join!(up, down) {
        Err(Stop::Refused(refusal)) => {
            if refusal.is_of_rules() {
                // Nothing has reached the server. A client that does not take it sees the end.
                let _told = client.try_write(&ALERT);
            }
            record.refuse(&refusal);
        }
        // What was decided stays decided, however it ended.
        Ok(_) | Err(Stop::Broken) => {}
    }
}

/// Reads until it is clear what the client speaks. Returns what was read, and why it should not pass.
async fn first_bytes(
    client: &TcpStream,
    mut bytes: Vec<u8>,
    port: u16,
    name: Option<&Name>,
) -> std::io::Result<(Vec<u8>, Option<Refusal>)> {
    if bytes.is_empty() && port != TLS_PORT {
        // As long as it likes: the server may have to speak first.
        read_more(client, &mut bytes).await?;
    }
    let sniffing = async {
        loop {
            match sniff(&bytes) {
                Sniffed::Incomplete => {
                    if read_more(client, &mut bytes).await? == 0 {
                        return Ok(if bytes.is_empty() { None } else { Some(Refusal::MalformedHello) });
                    }
                }
                Sniffed::NotTls => return Ok((port == TLS_PORT).then_some(Refusal::NotTls)),
                Sniffed::Malformed => return Ok(Some(Refusal::MalformedHello)),
                Sniffed::Hello(hello) => return Ok(judge(&hello, port, name)),
            }
        }
    };
    let refusal: std::io::Result<Option<Refusal>> =
        timeout(HELLO_TIMEOUT, sniffing).await.map_err(|_| std::io::ErrorKind::TimedOut)?;
    Ok((bytes, refusal?))
}

fn judge(hello: &Hello, port: u16, name: Option<&Name>) -> Option<Refusal> {
    match (&hello.name, name) {
        _ if hello.encrypted => Some(Refusal::EncryptedHello),
        (Some(said), Some(name)) if !name.is(said) => Some(Refusal::SniMismatch),
        (None, _) if port == TLS_PORT => Some(Refusal::NoSni),
        _ => None,
    }
}

async fn read_more(client: &TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    loop {
        client.readable().await?;
        let mut buffer = [0; READ_BYTES];
        match client.try_read(&mut buffer) {
            Ok(count) => {
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                return Ok(count);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(server: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        server.writable().await?;
        match server.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Host;

    #[test]
    fn a_hello_has_to_say_the_name_asked_for() {
        let Ok(Host::Name(asked)) = Host::parse("Api.example.com.") else { panic!("a name") };
        for (said, encrypted, port, expected) in [
            (Some("api.example.com"), false, 443, None),
            (Some("API.EXAMPLE.COM"), false, 8443, None),
            (Some("other.example.com"), false, 443, Some(Refusal::SniMismatch)),
            (Some("other.example.com"), false, 8443, Some(Refusal::SniMismatch)),
            (None, false, 443, Some(Refusal::NoSni)),
            (None, false, 8443, None),
            (Some("api.example.com"), true, 443, Some(Refusal::EncryptedHello)),
        ] {
            let hello = Hello { name: said.map(str::to_owned), encrypted };
            assert_eq!(judge(&hello, port, Some(&asked)), expected, "{said:?} {port}");
        }
        let hello = Hello { name: Some("x.com".to_owned()), encrypted: false };
        assert_eq!(judge(&hello, 443, None), None);
    }
}
