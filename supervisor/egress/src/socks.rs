//! SOCKS5 (RFC 1928) as far as it is spoken here: no authentication, CONNECT by name. Pure: bytes in, what they say out.

/// First byte of everything.
pub(crate) const VERSION: u8 = 5;
/// A request is never longer: header, a name of 255 bytes with its length, a port.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 + 1 + 255 + 2;
/// A greeting is never longer.
pub(crate) const GREETING_BYTES_MAX: usize = 2 + 255;

/// The method that needs no authentication.
const NO_AUTHENTICATION: u8 = 0;

/// What came of reading a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read<T> {
    /// More bytes are needed.
    Incomplete,
    /// The message, and how many bytes it had.
    Done(T, usize),
    /// They are no such message; the reply that says why.
    Invalid(Reply),
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// A name, or an address in its usual form.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// Codes of RFC 1928 section 6, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Connected.
    Succeeded = 0,
    /// Something here went wrong.
    GeneralFailure = 1,
    /// By the rules.
    NotAllowed = 2,
    /// The name leads nowhere, or nobody is there.
    HostUnreachable = 4,
    /// Only CONNECT is spoken.
    CommandNotSupported = 7,
    /// Neither a name nor an address.
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// As it is sent; the bound address is nobody's business.
    pub(crate) fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

/// Reads a greeting: whether the client can do without authentication.
pub(crate) fn greeting(bytes: &[u8]) -> Read<bool> {
    match bytes {
        [] | [VERSION] => Read::Incomplete,
        [VERSION, count, methods @ ..] => match methods.get(..usize::from(*count)) {
            Some(offered) => Read::Done(offered.contains(&NO_AUTHENTICATION), 2 + offered.len()),
            None => Read::Incomplete,
        },
        _ => Read::Invalid(Reply::GeneralFailure),
    }
}

/// Reads a request.
pub(crate) fn request(bytes: &[u8]) -> Read<Request> {
    let (command, kind, rest) = match bytes {
        [VERSION, command, 0, kind, rest @ ..] => (*command, *kind, rest),
        [] | [VERSION] | [VERSION, _] | [VERSION, _, 0] => return Read::Incomplete,
        _ => return Read::Invalid(Reply::GeneralFailure),
    };
    if command != 1 {
        return Read::Invalid(Reply::CommandNotSupported);
    }
    let host = match kind {
        1 => rest.first_chunk::<4>().map(|octets| (std::net::Ipv4Addr::from(*octets).to_string(), 4)),
        4 => rest.first_chunk::<16>().map(|octets| (std::net::Ipv6Addr::from(*octets).to_string(), 16)),
        3 => match rest {
            [length, name @ ..] => match name.get(..usize::from(*length)).map(std::str::from_utf8) {
                Some(Ok(name)) => Some((name.to_owned(), 1 + name.len())),
                Some(Err(_)) => return Read::Invalid(Reply::GeneralFailure),
                None => None,
            },
            [] => None,
        },
        _ => return Read::Invalid(Reply::AddressTypeNotSupported),
    };
    let Some((host, used)) = host else { return Read::Incomplete };
    match rest.get(used..).and_then(<[u8]>::first_chunk::<2>) {
        Some(port) => Read::Done(Request { host, port: u16::from_be_bytes(*port) }, 4 + used + 2),
        None => Read::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings() {
        assert_eq!(greeting(&[5, 1, 0]), Read::Done(true, 3));
        assert_eq!(greeting(&[5, 2, 1, 2, 9]), Read::Done(false, 4));
        assert_eq!(greeting(&[5, 0]), Read::Done(false, 2));
        assert_eq!(greeting(&[5, 2, 0]), Read::Incomplete);
        assert_eq!(greeting(&[4, 1]), Read::Invalid(Reply::GeneralFailure));
    }

    #[test]
    fn requests() {
        let named = [&[5, 1, 0, 3, 5][..], b"a.com", &[1, 187]].concat();
        let done = |host: &str, port, used| Read::Done(Request { host: host.to_owned(), port }, used);
        assert_eq!(request(&named), done("a.com", 443, 12));
        assert_eq!(request(&[&named[..], b"more"].concat()), done("a.com", 443, 12));
        for end in 0..named.len() {
            assert_eq!(request(&named[..end]), Read::Incomplete, "{end}");
        }
        assert_eq!(request(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80]), done("127.0.0.1", 80, 10));
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
        assert_eq!(request(&v6), done("::1", 80, 22));
        for (bytes, reply) in [
            (&[5, 2, 0, 3, 1][..], Reply::CommandNotSupported),
            (&[5, 3, 0, 1], Reply::CommandNotSupported),
            (&[5, 1, 0, 2], Reply::AddressTypeNotSupported),
            (&[5, 1, 9], Reply::GeneralFailure),
            (&[5, 1, 0, 3, 1, 0xff, 0, 80], Reply::GeneralFailure),
        ] {
            assert_eq!(request(bytes), Read::Invalid(reply), "{bytes:?}");
        }
    }
}
