//! Tokens as Supabase Auth signs them, and wrong ones.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

/// The project's secret.
pub const SECRET: &str = "the-secret-of-a-project-that-exists-for-one-test";

/// The claims of a person's token, good for an hour.
#[must_use]
pub fn claims(sub: Uuid) -> Value {
    json!({
        "sub": sub, "role": "authenticated", "aud": "authenticated", "exp": now() + 3600, "iat": now(),
        "iss": "https://project.example/auth/v1", "is_anonymous": false
    })
}

/// The claims of the service role's token.
#[must_use]
pub fn service_claims() -> Value {
    json!({ "role": "service_role", "iss": "supabase", "exp": now() + 3600 })
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}

/// A token with these claims, signed with `secret`.
#[must_use]
pub fn signed(claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A token that says of itself that it needs no signature.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// SHA-256 as hexadecimal text, as the functions take it.
#[must_use]
pub fn sha256_hex(text: &str) -> String {
    sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}
