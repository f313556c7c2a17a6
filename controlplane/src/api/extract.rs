//! Reading requests: bodies, queries and ids, each fault with the name of its field.

use std::str::FromStr;

use agentapi_shared::SpawnNumber;
use agentapi_shared::api::FieldError;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::auth::sha256_hex;

/// Offsets in a spawn's output are not above: the numbers that JavaScript counts exactly, 8 PiB.
const OFFSET_MAX: u64 = (1 << 53) - 1;

/// A JSON body. An absent one is an empty object where that makes sense for `T`.
#[derive(Debug)]
pub(super) struct Body<T> {
    /// What it says.
    pub(super) value: T,
    /// SHA-256 of its bytes.
    pub(super) hash: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|refused| {
            use axum::response::IntoResponse as _;
            ApiError::of_status(refused.into_response().status())
        })?;
        if !is_json && !bytes.is_empty() {
            return Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        Ok(Self { value: parse(text)?, hash: sha256_hex(&bytes) })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|failure| {
        let path = failure.path().to_string();
        let error = failure.into_inner();
        if error.is_syntax() || error.is_eof() {
            return ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is not JSON: {error}"));
        }
        let message = message_of(&error);
        let fault = FieldError { field: field_of(&path, &message), message };
        ApiError::fields(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", vec![fault])
    })?;
    json.end().map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", format!("more follows after the JSON: {error}"))
    })?;
    Ok(value)
}

/// serde's sentence without its place in the text, and without the value: it may be a secret that sits in the wrong field.
fn message_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(sentence, _)| sentence);
    match text.split_once("invalid type: ").and_then(|(_, rest)| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let kind = found.split([' ', '`', '"']).next().unwrap_or("another type");
            format!("expected {expected}, found {kind}")
        }
        None => text.to_owned(),
    }
}

/// The path, or for an unknown or missing field its name there.
fn field_of(path: &str, message: &str) -> String {
    let named = ["unknown field `", "missing field `"]
        .into_iter()
        .find_map(|start| message.strip_prefix(start)?.split_once('`').map(|(name, _)| name));
    match (path, named) {
        (".", None) => "body".to_owned(),
        (".", Some(name)) => name.to_owned(),
        (path, Some(name)) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    }
}

/// The parameters of a query, taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    faults: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "malformed_query", "the query cannot be read"))?;
        Ok(Self { pairs, faults: Vec::new() })
    }
}

impl Params {
    /// Every value of a parameter.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may come once.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "given more than once");
        }
        values.pop()
    }

    /// A parameter that `read` makes sense of; `expected` says what it should be.
    pub(super) fn read<T>(&mut self, name: &str, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = read(&text);
        if value.is_none() {
            self.fault(name, format!("expected {expected}"));
        }
        value
    }

    /// `SPAWN:OFFSET`.
    pub(super) fn position(&mut self, name: &str) -> Option<(SpawnNumber, u64)> {
        self.read(name, "SPAWN:OFFSET, two numbers", |text| {
            let (spawn, offset) = text.split_once(':')?;
            let offset = offset.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?;
            Some((spawn.parse().ok().filter(|spawn| *spawn > 0)?, offset))
        })
    }

    /// A number within limits.
    pub(super) fn number<T>(&mut self, name: &str, min: T, max: T) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let expected = format!("a number from {min} to {max}");
        self.read(name, &expected, |text| text.parse().ok().filter(|n| (min..=max).contains(n)))
    }

    /// `true` or `false`; absent is false.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.read(name, "true or false", |text| text.parse().ok()).unwrap_or(false)
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(FieldError { field: format!("query.{name}"), message: message.into() });
    }

    /// Passes if every parameter was known and made sense.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            self.fault(&shown, "unknown parameter");
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(ApiError::fields(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", self.faults))
    }
}

/// The id in a path. One that is no id names nothing.
pub(super) fn id<T: FromStr>(text: &str, code: &str, what: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::new(StatusCode::NOT_FOUND, code, format!("no {what} has this id")))
}

#[cfg(test)]
mod tests {
    use agentapi_shared::api::CreateSession;

    use super::*;

    fn check(body: &str, status: u16, field: &str) {
        let error = parse::<CreateSession>(body.as_bytes()).err().unwrap();
        let found = error.errors.first().map_or("", |error| error.field.as_str());
        assert_eq!((error.status.as_u16(), found), (status, field), "{body}: {}", error.detail);
    }

    #[test]
    fn a_body_that_cannot_be_read_names_its_field() {
        check(r#"{"agent":"custom","comand":["x"]}"#, 422, "comand");
        check(r#"{}"#, 422, "agent");
        check(r#"{"agent":7}"#, 422, "agent");
        check(r#"{"agent":"custom","size":{"cols":0,"rows":40}}"#, 422, "size");
        check(r#"{"agent":"custom","size":{"cols":65535,"rows":40}}"#, 422, "size");
        check(r#"{"agent":"custom","size":{"cols":80,"rows":"x"}}"#, 422, "size.rows");
        check(r#"{"agent":"custom","size":{"cols":80,"rows":24,"depth":1}}"#, 422, "size.depth");
        check(r#"{"agent":"custom","command":["a",1]}"#, 422, "command[1]");
        check(r#"{"agent":"custom","workspace":{"source":"git"}}"#, 422, "workspace.source");
        check(r#"{"agent":"custom"} x"#, 400, "");
        check(r#"{"agent":"#, 400, "");
        check("\u{1}", 400, "");
    }

    #[test]
    fn values_are_in_no_message() {
        let error = parse::<CreateSession>(br#"{"agent":"custom","env":"s3cret"}"#).err().unwrap();
        assert_eq!(error.errors[0].field, "env");
        assert!(!error.detail.contains("s3cret"), "{}", error.detail);
    }
}
