//! Keys, each with the one algorithm that it is for, and the sets in which issuers publish them.

use std::collections::HashMap;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

/// An issuer has a few; each is work to look at.
const KEYS_MAX: usize = 64;

/// How tokens may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::identity) enum Algorithm {
    /// With a secret that both sides have.
    Hs256,
    Es256,
    Rs256,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "ES256" => Self::Es256,
            "RS256" => Self::Rs256,
            _ => return None,
        })
    }

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
        }
    }
}

/// A key and what it is for.
#[derive(Debug, Clone)]
pub(in crate::identity) struct PublicKey {
    pub(super) algorithm: Algorithm,
    key: DecodingKey,
}

impl PublicKey {
    pub(in crate::identity) fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { algorithm, key }
    }

    /// Whether it signed a message. What cannot be read as a signature is none.
    pub(super) fn signed(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.library();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm).unwrap_or(false)
    }

    /// With its name; none if tokens cannot be signed with it. A secret that is published is no secret.
    fn of(jwk: &Jwk) -> Option<(String, Self)> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = match (&jwk.algorithm, common.key_algorithm) {
            (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES256))
                if key.curve == EllipticCurve::P256 =>
            {
                Algorithm::Es256
            }
            (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::Rs256,
            _ => return None,
        };
        let name = common.key_id.clone().filter(|name| !name.is_empty())?;
        Some((name, Self::new(algorithm, DecodingKey::from_jwk(jwk).ok()?)))
    }
}

/// A set as it is published. Keys that are not for us are left out, and do not make the set unreadable.
#[derive(Deserialize)]
pub(super) struct PublishedSet {
    keys: Vec<Value>,
}

impl PublishedSet {
    /// By name. Of two with one name neither is taken: a lookup must have one answer.
    pub(super) fn by_name(self) -> HashMap<String, PublicKey> {
        let mut known: HashMap<String, Option<PublicKey>> = HashMap::new();
        for value in self.keys.into_iter().take(KEYS_MAX) {
            let parsed = serde_json::from_value::<Jwk>(value).ok();
            if let Some((name, key)) = parsed.as_ref().and_then(PublicKey::of) {
                known.entry(name).and_modify(|other| *other = None).or_insert(Some(key));
            }
        }
        known.into_iter().filter_map(|(name, key)| Some((name, key?))).collect()
    }
}
