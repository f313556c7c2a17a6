//! Host names as clients ask for them: what is a name, what is an address in disguise, and what is neither.
//!
//! Resolvers take more for an address than is written like one (`2130706433`, `0x7f.1`, `127.1`). Nothing that could be read that way is a name here.

use std::net::IpAddr;

/// Characters of a host name, by RFC 1035 section 2.3.4.
const NAME_CHARS_MAX: usize = 253;
/// Characters between two dots, by the same.
const LABEL_CHARS_MAX: usize = 63;

/// A name in the one form in which it is compared: lower case, ASCII, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name.
    Name(Name),
    /// An address, written in the usual way.
    Address(IpAddr),
}

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    /// It would be read as an address by some, in a form nobody needs.
    #[error("it is an address in an unusual form")]
    OddAddress,
    /// It is no name.
    #[error("it is no host name (names of other scripts are written as xn--...)")]
    Malformed,
}

impl Host {
    /// Reads what stands for a host in a request; an IPv6 address may be in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Malformed)?;
            return inner.parse().map(|address| Self::Address(IpAddr::V6(address))).map_err(|_| HostError::OddAddress);
        }
        if text.contains(':') {
            let like_an_address = |c: char| c.is_ascii_alphanumeric() || ":.%".contains(c);
            let error = if text.chars().all(like_an_address) { HostError::OddAddress } else { HostError::Malformed };
            return text.parse().map(Self::Address).map_err(|_| error);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Ok(address) = name.parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(HostError::OddAddress);
        }
        if name.len() > NAME_CHARS_MAX || !name.split('.').all(is_label) {
            return Err(HostError::Malformed);
        }
        Ok(Self::Name(Name(name)))
    }
}

/// Whether a label makes the whole an IPv4 address, by the WHATWG's "ends in a number": digits, or hexadecimal with `0x`.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Letters, digits, hyphens, and the underscore that some services have in their names.
fn is_label(label: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl Name {
    /// As it is compared.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether another spelling means this name.
    pub(crate) fn is(&self, text: &str) -> bool {
        text.strip_suffix('.').unwrap_or(text).eq_ignore_ascii_case(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form() {
        for (text, expected) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("a", "a"),
            ("_svc.example.com", "_svc.example.com"),
            ("xn--bcher-kva.de", "xn--bcher-kva.de"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("0x7f.example", "0x7f.example"),
        ] {
            assert_eq!(Host::parse(text), Ok(Host::Name(Name(expected.to_owned()))), "{text}");
        }
    }

    #[test]
    fn addresses_are_never_names() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.1.", "10.0.0.1"),
            ("[::1]", "::1"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ] {
            assert_eq!(Host::parse(text), Ok(Host::Address(expected.parse().unwrap())), "{text}");
        }
        for text in [
            "2130706433",
            "0x7f000001",
            "017700000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "1.2.3.4.5",
            "0x",
            "a.0x",
            "[::1%lo]",
            "fe80::1%eth0",
            "[127.0.0.1]",
            "256.1.1.1",
            "127.0.0.0x1",
            "1.2.3.0X4",
        ] {
            assert_eq!(Host::parse(text), Err(HostError::OddAddress), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.com", "a".repeat(64));
        for text in [
            "",
            ".",
            "..",
            "127.0.0.1..",
            "a..b",
            ".a",
            "-a.com",
            "a-.com",
            "a b",
            "a\r\nb",
            "a/b",
            "a@b",
            "bücher.de",
            "a\0b",
            "*.com",
            "exаmple.com",
            "[::1",
            "127。0。0。1",
            &long,
        ] {
            assert_eq!(Host::parse(text), Err(HostError::Malformed), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The system's resolver reads no accepted name as an address, and a name means itself.
        #[test]
        fn no_name_is_an_address_to_a_resolver(text in "(0x|0X)?[0-9a-fA-F.xX]{1,16}") {
            if let Ok(Host::Name(name)) = Host::parse(&text) {
                let c = std::ffi::CString::new(name.as_str()).unwrap();
                prop_assert!(!crate::sys::is_numeric_host(&c), "{text}");
                prop_assert_eq!(Host::parse(name.as_str()), Ok(Host::Name(name.clone())));
                prop_assert!(name.is(&text));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,300}") {
            if let Ok(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(name.as_str().is_ascii() && name.as_str().len() <= NAME_CHARS_MAX);
            }
        }
    }
}
