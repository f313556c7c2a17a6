//! The first message of a TLS client, as far as it says whom the client means. Read from a copy of its bytes; nothing is answered.
//!
//! What two readers could read differently (a second server name, an extension twice, messages in between) is malformed here: the server at the
//! other end must not find another name than the one that was checked. Only the framing and the extensions are looked at; whether the rest makes
//! sense is the server's business.

/// A hello is never longer. Those with post-quantum keys have two thousand bytes.
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Record type of handshake messages.
const RECORD_HANDSHAKE: u8 = 22;
/// Bytes of a record's header: type, version, length.
const RECORD_HEADER: usize = 5;
/// Largest record, by RFC 8446 section 5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Handshake type of the client's hello.
const CLIENT_HELLO: u8 = 1;
/// Extension with the server's name, RFC 6066.
const SERVER_NAME: u16 = 0;
/// Extension that hides another hello with another name, RFC 9849; both of its numbers that were ever in use.
const ENCRYPTED_HELLO: [u16; 2] = [0xfe0d, 0xffce];

/// What is known of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// More are needed.
    Incomplete,
    /// They are no TLS.
    NotTls,
    /// They begin like TLS and are no sound hello.
    Malformed,
    /// A whole hello.
    Hello(Hello),
}

/// What a hello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server's name, as the client wrote it.
    pub(crate) name: Option<String>,
    /// Whether another hello is hidden in it.
    pub(crate) encrypted: bool,
}

/// Bytes that end too early, or have a length that cannot be.
struct Broken;

/// Reads the beginning of what a client sends.
pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => return Sniffed::Incomplete,
        [RECORD_HANDSHAKE] | [RECORD_HANDSHAKE, 3, ..] => {}
        _ => return Sniffed::NotTls,
    }
    let bytes = bytes.get(..HELLO_BYTES_MAX).unwrap_or(bytes);
    match message(bytes) {
        Ok(None) if bytes.len() >= HELLO_BYTES_MAX => Sniffed::Malformed,
        Ok(None) => Sniffed::Incomplete,
        Ok(Some(body)) => hello(&body).map_or(Sniffed::Malformed, Sniffed::Hello),
        Err(Broken) => Sniffed::Malformed,
    }
}

/// The body of the first handshake message, put together from its records; none if it is not there as a whole.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let mut joined: Vec<u8> = Vec::new();
    loop {
        if let [kind, high, middle, low, body @ ..] = joined.as_slice() {
            if *kind != CLIENT_HELLO {
                return Err(Broken);
            }
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > HELLO_BYTES_MAX {
                return Err(Broken);
            }
            if let Some(body) = body.get(..length) {
                return Ok(Some(body.to_vec()));
            }
        }
        let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Ok(None) };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != RECORD_HANDSHAKE || major != 3 || length == 0 || length > RECORD_BYTES_MAX {
            return Err(Broken);
        }
        let part = rest.get(..length.min(rest.len())).unwrap_or_default();
        joined.extend_from_slice(part);
        bytes = rest.get(length..).unwrap_or_default();
    }
}

fn hello(body: &[u8]) -> Option<Hello> {
    let mut rest = body;
    // Version and random.
    take(&mut rest, 2 + 32)?;
    // Session id, cipher suites, compression methods.
    let _session = block(&mut rest, 1)?;
    let _suites = block(&mut rest, 2)?;
    let _compression = block(&mut rest, 1)?;
    let mut found = Hello { name: None, encrypted: false };
    if rest.is_empty() {
        return Some(found);
    }
    let mut extensions = block(&mut rest, 2)?;
    if !rest.is_empty() {
        return None;
    }
    let mut seen = Vec::new();
    while !extensions.is_empty() {
        let number = number(&mut extensions)?;
        let content = block(&mut extensions, 2)?;
        if seen.contains(&number) {
            return None;
        }
        seen.push(number);
        if number == SERVER_NAME {
            found.name = Some(server_name(content)?);
        }
        found.encrypted |= ENCRYPTED_HELLO.contains(&number);
    }
    Some(found)
}

/// Exactly one entry, of the only type there is.
fn server_name(mut content: &[u8]) -> Option<String> {
    let mut list = block(&mut content, 2)?;
    let [0] = take(&mut list, 1)? else { return None };
    let name = block(&mut list, 2)?;
    let sound = content.is_empty() && list.is_empty() && !name.is_empty() && name.is_ascii();
    sound.then(|| String::from_utf8_lossy(name).into_owned())
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<u16> {
    let (taken, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*taken))
}

/// Bytes behind their length, which has one or two bytes itself.
fn block<'a>(bytes: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let length = take(bytes, width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    take(bytes, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// What a real client says.
    fn real(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn named(name: Option<&str>) -> Sniffed {
        Sniffed::Hello(Hello { name: name.map(str::to_owned), encrypted: false })
    }

    /// The same hello in records of `size` bytes.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let parts = hello[RECORD_HEADER..].chunks(size);
        parts
            .flat_map(|part| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat())
            .collect()
    }

    /// The hello with one extension more.
    fn extended(hello: &[u8], kind: u16, content: &[u8]) -> Vec<u8> {
        let extension =
            [&kind.to_be_bytes()[..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat();
        let mut out = [hello, &extension].concat();
        let mut add = |at: usize| {
            let grown = u16::from_be_bytes([out[at], out[at + 1]]) + u16::try_from(extension.len()).unwrap();
            out[at..at + 2].copy_from_slice(&grown.to_be_bytes());
        };
        // Record, message, and the extensions behind session id, suites and compression.
        let session = RECORD_HEADER + 4 + 34;
        let suites = session + 1 + usize::from(hello[session]);
        let compression = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
        for at in [3, RECORD_HEADER + 2, compression + 1 + usize::from(hello[compression])] {
            add(at);
        }
        out
    }

    #[test]
    fn a_real_hello_says_its_name_whole_or_in_pieces() {
        let hello = real("Api.Example.com");
        assert_eq!(sniff(&hello), named(Some("Api.Example.com")));
        assert_eq!(sniff(&real("192.0.2.1")), named(None));
        for size in [1, 7, 100] {
            assert_eq!(sniff(&fragmented(&hello, size)), named(Some("Api.Example.com")), "{size}");
        }
        for end in 0..hello.len() {
            assert_eq!(sniff(&hello[..end]), Sniffed::Incomplete, "{end}");
        }
        assert_eq!(sniff(&[&hello[..], b"early data"].concat()), named(Some("Api.Example.com")));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        let hello = real("a.com");
        let entry = |name: &[u8]| [&[0][..], &u16::try_from(name.len()).unwrap().to_be_bytes(), name].concat();
        let list = |entries: &[u8]| [&u16::try_from(entries.len()).unwrap().to_be_bytes()[..], entries].concat();
        assert_eq!(sniff(&extended(&hello, SERVER_NAME, &list(&entry(b"b.com")))), Sniffed::Malformed);
        let nameless = real("192.0.2.1");
        let with = |content: &[u8]| sniff(&extended(&nameless, SERVER_NAME, content));
        assert_eq!(with(&list(&entry(b"b.com"))), named(Some("b.com")));
        assert_eq!(with(&list(&[entry(b"b.com"), entry(b"c.com")].concat())), Sniffed::Malformed);
        assert_eq!(with(&list(&entry(b""))), Sniffed::Malformed);
        assert_eq!(with(b""), Sniffed::Malformed);
        assert_eq!(with(&[&list(&entry(b"b.com"))[..], b"x"].concat()), Sniffed::Malformed);
        let hidden = sniff(&extended(&hello, ENCRYPTED_HELLO[0], b"anything"));
        assert_eq!(hidden, Sniffed::Hello(Hello { name: Some("a.com".to_owned()), encrypted: true }));
        // An alert between two parts of it.
        let mut parts = fragmented(&hello, 100);
        parts.splice(105..105, [21, 3, 1, 0, 2, 1, 0]);
        assert_eq!(sniff(&parts), Sniffed::Malformed);
    }

    #[test]
    fn other_protocols_are_no_tls() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[0x80, 46, 1, 3, 1], &[22, 2, 0], &[23, 3, 3], &[5, 1, 0]]
        {
            assert_eq!(sniff(bytes), Sniffed::NotTls, "{bytes:?}");
        }
        assert_eq!(sniff(&[22, 3, 1, 0, 0]), Sniffed::Malformed);
        assert_eq!(sniff(&[22, 3, 1, 0xff, 0xff, 1]), Sniffed::Malformed);
        assert_eq!(sniff(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Sniffed::Malformed);
        let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xff][..], &[0; HELLO_BYTES_MAX]].concat();
        assert_eq!(sniff(&endless), Sniffed::Malformed);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Of a hello with damage, a server reads the name that we read, or we refuse it, or the server does.
        #[test]
        fn a_server_reads_no_other_name(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = real("api.example.com");
            let at = at.index(bytes.len());
            bytes[at] = to;
            let mut acceptor = rustls::server::Acceptor::default();
            acceptor.read_tls(&mut bytes.as_slice()).unwrap();
            if let Ok(Some(accepted)) = acceptor.accept() {
                let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                match sniff(&bytes) {
                    Sniffed::Hello(hello) => prop_assert_eq!(hello.name.map(|name| name.to_ascii_lowercase()), theirs),
                    other => prop_assert!(other == Sniffed::Malformed || other == Sniffed::NotTls, "{:?}", other),
                }
            }
            let _any = sniff(&bytes[..cut.index(bytes.len())]);
        }
    }
}
