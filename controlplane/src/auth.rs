//! Secrets and what is made of them: tokens, codes and cookies are 32 random bytes; only their SHA-256 is kept.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Prefix of a person's token, so that scanners of leaked secrets know it.
pub const USER_TOKEN_PREFIX: &str = "aa_";
/// Prefix of a host's token.
pub const HOST_TOKEN_PREFIX: &str = "aah_";

/// A secret, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A new one: the prefix and 43 characters.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// One that exists.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, to hand it to the one it is for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }
}

/// SHA-256 in hexadecimal. Enough for secrets of 256 random bits, which nobody can guess their way through.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _infallible = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_documented_form_and_are_not_shown() {
        let secret = Secret::generate(USER_TOKEN_PREFIX);
        assert_eq!(secret.expose().len(), 3 + 43);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_ne!(secret, Secret::generate(USER_TOKEN_PREFIX));
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
