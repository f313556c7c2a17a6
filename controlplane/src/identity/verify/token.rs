//! A JWT in its compact form, taken apart before anything in it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::TokenError;
use super::keys::{Algorithm, PublicKey};

/// Larger than a token with the claims of a project's own hook; what is longer is not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Names of keys are thumbprints or UUIDs.
const KID_BYTES_MAX: usize = 256;

/// What is read of a header. Where keys lie (`jku`, `x5u`, `jwk`, `x5c`) is not for a token to say, so nothing reads that.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// The parts of a token.
#[derive(Debug)]
pub(in crate::identity) struct Compact<'a> {
    pub(in crate::identity) algorithm: Algorithm,
    pub(in crate::identity) kid: Option<String>,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Compact<'a> {
    pub(in crate::identity) fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if [head, payload, signature].iter().any(|part| part.is_empty() || part.contains('.')) {
            // Also one that says of itself that it needs no signature.
            return Err(TokenError::Malformed);
        }
        let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| TokenError::Malformed)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| TokenError::Malformed)?;
        if head.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let is_jwt = |typ: &String| ["jwt", "at+jwt"].contains(&typ.to_ascii_lowercase().as_str());
        if !head.typ.as_ref().is_none_or(is_jwt) || head.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err(TokenError::Malformed);
        }
        let algorithm = Algorithm::named(&head.alg).ok_or(TokenError::Algorithm)?;
        Ok(Self { algorithm, kid: head.kid, message, payload, signature })
    }

    /// What the token says, once it is shown that the key signed it.
    pub(in crate::identity) fn payload(&self, key: &PublicKey) -> Result<Vec<u8>, TokenError> {
        if key.algorithm != self.algorithm {
            return Err(TokenError::Algorithm);
        }
        if !key.signed(self.message, self.signature) {
            return Err(TokenError::Signature);
        }
        URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| TokenError::Malformed)
    }
}
