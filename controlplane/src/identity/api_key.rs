//! Keys of programs: `aa_IIIIIIII_SSS...SCCCCCC`, which people, scanners for leaked secrets and we can tell from anything else.
//!
//! `I` is the part that is shown afterwards, `S` 32 random bytes, `C` a checksum of all that stands before it; all in base 62, so that a double
//! click selects a part and nothing has to be escaped. A typo is refused without asking the database, which keeps the SHA-256 and the part
//! that is shown. The checksum proves nothing: whoever makes up a key can make one.

use std::fmt;

use crate::auth::{Secret, USER_TOKEN_PREFIX};

/// Digits of base 62, in the order of their bytes.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Enough to tell one's keys apart.
const SHOWN_CHARS: usize = 8;
/// 32 bytes: 43 digits are the fewest that hold 256 bits.
const SECRET_CHARS: usize = 43;
/// 32 bits.
const CHECKSUM_CHARS: usize = 6;
const SHOWN_END: usize = USER_TOKEN_PREFIX.len() + SHOWN_CHARS;
const CHECKED_END: usize = SHOWN_END + 1 + SECRET_CHARS;
/// A key has this many characters, always.
pub const API_KEY_CHARS: usize = CHECKED_END + CHECKSUM_CHARS;

/// It is no key, or one with a typo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no API key of AgentAPI: it was shortened or mistyped; they have {API_KEY_CHARS} characters and begin with aa_"
)]
pub struct NotAnApiKey;

/// A key whose checksum is right. Whether it is anybody's, the store knows.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Secret);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKey").field(&self.shown()).finish()
    }
}

impl ApiKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::of(rand::random(), rand::random())
    }

    fn of(shown: u64, secret: [u8; 32]) -> Self {
        let mut text = String::with_capacity(API_KEY_CHARS);
        text.push_str(USER_TOKEN_PREFIX);
        push_digits(&mut text, &shown.to_be_bytes(), SHOWN_CHARS);
        text.push('_');
        push_digits(&mut text, &secret, SECRET_CHARS);
        let checksum = crc32fast::hash(text.as_bytes());
        push_digits(&mut text, &checksum.to_be_bytes(), CHECKSUM_CHARS);
        Self(Secret::from_text(text))
    }

    /// Whether a text is meant to be a key of this form: of others, and of typos in this, `parse` says more.
    #[must_use]
    pub fn is_like(text: &str) -> bool {
        let mut bytes = text.bytes().skip(SHOWN_END);
        text.starts_with(USER_TOKEN_PREFIX) && bytes.next() == Some(b'_') && text.len() != LOCAL_TOKEN_CHARS
    }

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, NotAnApiKey> {
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric();
        let bytes = text.as_bytes();
        let (Some(shown), Some(b'_'), Some(rest)) = (
            bytes.get(USER_TOKEN_PREFIX.len()..SHOWN_END),
            bytes.get(SHOWN_END),
            bytes.get(SHOWN_END + 1..API_KEY_CHARS),
        ) else {
            return Err(NotAnApiKey);
        };
        let is_formed = bytes.len() == API_KEY_CHARS
            && text.starts_with(USER_TOKEN_PREFIX)
            && shown.iter().chain(rest).all(is_digit);
        if !is_formed {
            return Err(NotAnApiKey);
        }
        let (checked, checksum) = text.split_at(CHECKED_END);
        let mut expected = String::with_capacity(CHECKSUM_CHARS);
        push_digits(&mut expected, &crc32fast::hash(checked.as_bytes()).to_be_bytes(), CHECKSUM_CHARS);
        if checksum != expected {
            return Err(NotAnApiKey);
        }
        Ok(Self(Secret::from_text(text.to_owned())))
    }

    /// What is kept, and shown in lists: the prefix and the first part.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.0.expose().get(..SHOWN_END).unwrap_or_default()
    }

    /// What is kept of it to know it again.
    #[must_use]
    pub fn hash(&self) -> String {
        self.0.hash()
    }

    /// The key itself, to hand it to whom it is for, once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// The token in an installation's own credential file, which has no parts: the prefix and 32 bytes in base 64.
const LOCAL_TOKEN_CHARS: usize = USER_TOKEN_PREFIX.len() + 43;

const _: () = assert!(LOCAL_TOKEN_CHARS != API_KEY_CHARS);

/// A number in base 62 with this many digits; of one that is larger, the last.
fn push_digits(text: &mut String, number: &[u8], digits: usize) {
    let mut number = number.to_vec();
    let mut found = vec![b'0'; digits];
    for digit in found.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            let [.., quotient] = (value / 62).to_be_bytes();
            (*byte, remainder) = (quotient, value % 62);
        }
        *digit = usize::try_from(remainder).ok().and_then(|index| DIGITS.get(index).copied()).unwrap_or(b'0');
    }
    text.extend(found.into_iter().map(char::from));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_has_the_documented_form_and_shows_its_first_part_only() {
        let key = ApiKey::generate();
        let text = key.expose();
        assert_eq!(text.len(), 61);
        assert!(text.starts_with("aa_") && text.as_bytes()[11] == b'_', "{text}");
        assert_eq!(key.shown(), &text[..11]);
        assert_eq!(format!("{key:?}"), format!("ApiKey({:?})", &text[..11]));
        assert_eq!(key.hash(), crate::auth::sha256_hex(text.as_bytes()));
        assert_ne!(key, ApiKey::generate());
        // Made once, so that keys which are in use stay good.
        let fixed = ApiKey::of(0x0123_4567_89ab_cdef, [0xff; 32]);
        assert_eq!(fixed.expose(), "aa_UfDVRKBz_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp12pqNKV");
        assert_eq!(ApiKey::of(0, [0; 32]).expose(), "aa_00000000_000000000000000000000000000000000000000000011gvWg");
    }

    #[test]
    fn tokens_of_other_forms_are_told_apart() {
        for _ in 0..200 {
            let local = Secret::generate(USER_TOKEN_PREFIX);
            assert!(!ApiKey::is_like(local.expose()) && ApiKey::parse(local.expose()).is_err());
            assert!(ApiKey::is_like(ApiKey::generate().expose()));
        }
        for other in ["", "aa_", "aah_abc", "eyJhbGciOi.J9.x", "sb_secret_abc", "aä_0000000_0"] {
            assert!(!ApiKey::is_like(other) && ApiKey::parse(other).is_err(), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_key_is_read_and_hides_all_of_its_bytes(shown: u64, secret: [u8; 32], other: [u8; 32]) {
            let key = ApiKey::of(shown, secret);
            prop_assert_eq!(ApiKey::parse(key.expose()), Ok(key.clone()));
            // Nothing of the secret is lost: others have others.
            prop_assert_eq!(secret == other, key == ApiKey::of(shown, other));
        }

        #[test]
        fn one_wrong_character_is_found(shown: u64, secret: [u8; 32], at in 0..API_KEY_CHARS, to in "[ -~]") {
            let key = ApiKey::of(shown, secret);
            let mut text = key.expose().to_owned();
            text.replace_range(at..=at, &to);
            prop_assert_eq!(ApiKey::parse(&text).is_ok(), text == key.expose());
        }

        #[test]
        fn swapped_lost_and_doubled_characters_are_found(shown: u64, secret: [u8; 32], at in 0..API_KEY_CHARS - 1) {
            let key = ApiKey::of(shown, secret);
            let text = key.expose();
            let mut swapped = text.as_bytes().to_vec();
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            prop_assert_eq!(ApiKey::parse(&swapped).is_ok(), swapped == text);
            let (before, after) = text.split_at(at);
            prop_assert!(ApiKey::parse(&[before, &after[1..]].concat()).is_err());
            prop_assert!(ApiKey::parse(&[before, &after[..1], after].concat()).is_err());
            prop_assert!(ApiKey::parse(before).is_err());
        }

        #[test]
        fn any_text_is_answered(text: String) {
            prop_assert!(ApiKey::parse(&text).is_err());
            let _answered = ApiKey::is_like(&text);
        }
    }
}
