//! Requests to issuers: bounded in time and in size, and never led elsewhere.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Url};
use serde::de::DeserializeOwned;

/// An issuer that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A login waits for this, and so may a request that brings a key which is not known yet.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer: many times the keys of an issuer, or a token with many claims.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Reasons are words.
const CODE_BYTES_MAX: usize = 64;

/// Why an issuer gave no answer that can be used. None holds anything of a request.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No client could be made.
    #[error("cannot prepare TLS")]
    Client(#[source] reqwest::Error),
    /// No answer.
    #[error("no answer from {place}")]
    Unreachable {
        /// Whom was asked.
        place: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Something is wrong there, or with the request.
    #[error("{place} answers {status}")]
    Status {
        /// Whom was asked.
        place: String,
        /// HTTP.
        status: u16,
        /// What it calls the reason, if it says.
        code: Option<String>,
    },
    /// More than an issuer has to say.
    #[error("{place} answers with more than {ANSWER_BYTES_MAX} bytes")]
    TooLong {
        /// Whom was asked.
        place: String,
    },
    /// Something else than what was asked for.
    #[error("{place} answers with something else than was asked for; is it what its variable should name?")]
    Unexpected {
        /// Whom was asked.
        place: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// A client for all issuers. It follows no redirect: what is sent holds secrets, and what comes back decides who somebody is.
pub fn client() -> Result<Client, FetchError> {
    Client::builder()
        .user_agent(concat!("agentapi/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TOTAL_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(FetchError::Client)
}

/// What an answer with an error holds, by OAuth and by Supabase Auth.
#[derive(serde::Deserialize)]
struct Refusal {
    error_code: Option<String>,
    error: Option<String>,
}

/// Sends a request and reads the answer.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder, place: &Url) -> Result<T, FetchError> {
    let body = body(request, place).await?;
    serde_json::from_slice(&body).map_err(|source| FetchError::Unexpected { place: named(place), source })
}

/// Sends a request whose answer says nothing.
pub(super) async fn empty(request: RequestBuilder, place: &Url) -> Result<(), FetchError> {
    body(request, place).await.map(|_nothing| ())
}

async fn body(request: RequestBuilder, place: &Url) -> Result<Vec<u8>, FetchError> {
    let unreachable =
        |source: reqwest::Error| FetchError::Unreachable { place: named(place), source: source.without_url() };
    let mut answer = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(FetchError::TooLong { place: named(place) });
        }
        body.extend_from_slice(&part);
    }
    if answer.status().is_success() {
        return Ok(body);
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
    let code = refusal.and_then(|refusal| refusal.error_code.or(refusal.error)).filter(|code| is_code(code));
    Err(FetchError::Status { place: named(place), status: answer.status().as_u16(), code })
}

/// Whether a text of others is a word that can be shown.
pub(super) fn is_code(text: &str) -> bool {
    text.len() <= CODE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A place without what a query may hold.
fn named(place: &Url) -> String {
    format!("{}{}", place.origin().ascii_serialization(), place.path())
}
