//! The keys that are in use together, and what each request is sent with.

use std::sync::{Mutex, PoisonError};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::Gateway;
use super::key::{Key, Purpose};
use super::mistake::ProjectMistake;
use super::value::{ANON, SERVICE};
use crate::auth::Secret;
use crate::clock;

const APIKEY: HeaderName = HeaderName::from_static("apikey");

/// Newer PostgREST refuses to start with less.
const SECRET_CHARS_MIN: usize = 32;
/// A token that we sign for jobs is good for this long.
const SERVICE_LIFETIME: Duration = Duration::minutes(10);
/// And replaced this long before its end, so that none is over when it arrives.
const SERVICE_RENEWED_BEFORE: Duration = Duration::minutes(2);

/// What was read.
pub(super) struct Texts {
    pub(super) anon: Option<Secret>,
    pub(super) service: Option<Secret>,
    pub(super) secret: Option<Secret>,
}

/// The keys in use.
#[derive(Debug)]
pub(super) struct KeySet {
    anon: Option<Key>,
    service: ServiceKey,
    pub(super) secret: Option<Secret>,
}

#[derive(Debug)]
enum ServiceKey {
    Given(Key),
    /// With the project's own secret, where there is no gateway.
    Signed {
        secret: Secret,
        last: Mutex<Option<(Secret, OffsetDateTime)>>,
    },
}

impl KeySet {
    /// Checks every key, and whether they belong together.
    pub(super) fn of(texts: Texts, auth: Option<&Url>, gateway: Gateway) -> Result<Self, Vec<ProjectMistake>> {
        let mut mistakes = Vec::new();
        let (project, now) = (auth.and_then(project), clock::now());
        let short = texts.secret.as_ref().is_some_and(|secret| secret.expose().chars().count() < SECRET_CHARS_MIN);
        if short {
            mistakes.push(ProjectMistake::ShortSecret { min: SECRET_CHARS_MIN });
        }
        let mut key = |text: Option<Secret>, purpose: Purpose| {
            let key = text.map(|text| Key::of(text, purpose, project, now)).transpose();
            let key = key.and_then(|key| match (key, &texts.secret) {
                (Some(Key::Jwt(jwt)), Some(secret)) if !is_signed_with(&jwt, secret) => {
                    Err(ProjectMistake::Signature { name: purpose.variable() })
                }
                (key, _) => Ok(key),
            });
            key.unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                None
            })
        };
        let given = (texts.anon.is_some(), texts.service.is_some());
        let (anon, service) = (key(texts.anon, Purpose::Anon), key(texts.service, Purpose::Service));
        if auth.is_some() && !given.0 {
            mistakes.push(ProjectMistake::Missing { name: ANON, kind: "publishable, or anon" });
        }
        let service = match (gateway, service, &texts.secret) {
            (Gateway::Supabase, Some(key), _) | (Gateway::None, Some(key @ Key::Jwt(_)), _) => {
                Some(ServiceKey::Given(key))
            }
            (Gateway::None, _, Some(secret)) => {
                Some(ServiceKey::Signed { secret: secret.clone(), last: Mutex::default() })
            }
            // A key that is wrong was named above.
            (Gateway::Supabase, None, _) if given.1 => None,
            (Gateway::Supabase, None, _) => {
                mistakes.push(ProjectMistake::Missing { name: SERVICE, kind: "secret, or service_role" });
                None
            }
            (Gateway::None, ..) => {
                mistakes.push(ProjectMistake::NoJwt);
                None
            }
        };
        match service {
            Some(service) if mistakes.is_empty() => Ok(Self { anon, service, secret: texts.secret }),
            _ => Err(mistakes),
        }
    }

    pub(super) fn service_headers(&self) -> HeaderMap {
        match &self.service {
            ServiceKey::Given(key) => headers_of(key),
            ServiceKey::Signed { secret, last } => {
                let mut headers = HeaderMap::with_capacity(1);
                let token = service_token(secret, last);
                set_bearer(&mut headers, token.as_ref().map_or("", Secret::expose));
                headers
            }
        }
    }

    pub(super) fn caller_headers(&self, token: &str) -> HeaderMap {
        let mut headers = self.anon_headers();
        // Never beside the caller's: a request in nobody's name reads nothing, one with another name would.
        headers.remove(AUTHORIZATION);
        set_bearer(&mut headers, token);
        headers
    }

    pub(super) fn anon_headers(&self) -> HeaderMap {
        self.anon.as_ref().map(headers_of).unwrap_or_default()
    }
}

/// An opaque key as a bearer would be refused; a JWT is needed there by whoever is behind the gateway.
fn headers_of(key: &Key) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    let (Key::Opaque(secret) | Key::Jwt(secret)) = key;
    if let Some(value) = sensitive(secret.expose()) {
        headers.insert(APIKEY, value);
    }
    if let Key::Jwt(jwt) = key {
        set_bearer(&mut headers, jwt.expose());
    }
    headers
}

fn set_bearer(headers: &mut HeaderMap, token: &str) {
    if let Some(value) = sensitive(&format!("Bearer {token}")) {
        headers.insert(AUTHORIZATION, value);
    }
}

/// A value that no `Debug` shows; none for what cannot be sent.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A token of the service role, as Supabase's own key is, but for minutes.
fn service_token(secret: &Secret, last: &Mutex<Option<(Secret, OffsetDateTime)>>) -> Option<Secret> {
    let now = clock::now();
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((token, until)) = &*last
        && now < *until - SERVICE_RENEWED_BEFORE
    {
        return Some(token.clone());
    }
    let until = now + SERVICE_LIFETIME;
    let claims = json!({
        "role": "service_role", "iss": "agentapi", "iat": now.unix_timestamp(), "exp": until.unix_timestamp()
    });
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    // Nothing of this can fail: the key is a string of bytes, the claims are an object.
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()?;
    let token = Secret::from_text(token);
    *last = Some((token.clone(), until));
    Some(token)
}

fn is_signed_with(jwt: &Secret, secret: &Secret) -> bool {
    let Some((message, signature)) = jwt.expose().rsplit_once('.') else { return false };
    let key = DecodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
}

/// The reference of a hosted project; none for one that is hosted elsewhere.
fn project(auth: &Url) -> Option<&str> {
    auth.host_str()?.strip_suffix(".supabase.co")
}
