//! Keys of issuers and of forgers, and tokens of any header and any claims.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A key that signs, and how it is published.
pub(in crate::identity) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// As a member of a set; null for a secret.
    pub(in crate::identity) jwk: Value,
    /// The public key as a file; empty for a secret.
    pub(in crate::identity) pem: String,
    name: &'static str,
}

impl Signer {
    pub(in crate::identity) fn secret(secret: &str) -> Self {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, key, jwk: Value::Null, pem: String::new(), name: "HS256" }
    }

    pub(in crate::identity) fn es256(kid: &str) -> Self {
        let pair = signature::EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": encode(&point[1..33]), "y": encode(&point[33..])
        });
        let public = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { algorithm: Algorithm::ES256, key, jwk, pem: pem(&public.as_der().unwrap()), name: "ES256" }
    }

    pub(in crate::identity) fn rs256(kid: &str) -> Self {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
            "n": encode(public.modulus().big_endian_without_leading_zero()),
            "e": encode(public.exponent().big_endian_without_leading_zero())
        });
        let pem = pem(&public.as_der().unwrap());
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // PKCS #8 is a PKCS #1 key in an envelope of 26 bytes, for keys of this size.
        let key = EncodingKey::from_rsa_der(&private.as_ref()[26..]);
        Self { algorithm: Algorithm::RS256, key, jwk, pem, name: "RS256" }
    }

    /// A token with this header and these claims, whatever they say.
    pub(in crate::identity) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(header, &claims.to_string())
    }

    /// The same with claims that are no value of JSON.
    pub(in crate::identity) fn sign_text(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", encoded(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A token as an issuer makes it.
    pub(in crate::identity) fn token(&self, claims: &Value) -> String {
        let header = match &self.jwk["kid"] {
            Value::Null => json!({ "alg": self.name, "typ": "JWT" }),
            kid => json!({ "alg": self.name, "typ": "JWT", "kid": kid }),
        };
        self.sign(&header, claims)
    }
}

pub(in crate::identity) fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn pem(der: &PublicKeyX509Der<'_>) -> String {
    let body = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}
