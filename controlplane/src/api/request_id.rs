//! The outermost layer: every request gets an id, and every error leaves as a problem document that names it.

use agentapi_shared::EventId;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use tracing::{Instrument, debug, info_span};

use super::error::{ApiError, KEPT_HEADERS};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers a request and explains its failure.
pub(super) async fn number_and_explain(request: Request, next: Next) -> Response {
    let id = EventId::generate().to_string();
    let method = request.method().clone();
    // The path only: a query may one day hold what a log must not.
    let path = request.uri().path().to_owned();
    let span = info_span!("request", id = %id, %method, path);
    let mut answer = next.run(request).instrument(span.clone()).await;
    if answer.status().is_client_error() || answer.status().is_server_error() {
        answer = explain(answer, &id);
    }
    span.in_scope(|| debug!(status = answer.status().as_u16(), "answered"));
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

fn explain(answer: Response, id: &str) -> Response {
    let is_page = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        return answer;
    }
    let error = answer.extensions().get::<ApiError>().cloned().unwrap_or_else(|| ApiError::of_status(answer.status()));
    let mut explained = error.answer(id);
    for name in KEPT_HEADERS {
        if let Some(value) = answer.headers().get(&name) {
            explained.headers_mut().insert(name, value.clone());
        }
    }
    explained
}
