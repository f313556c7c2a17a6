//! The outermost layer: every request gets an id, every refusal is recorded, and every error leaves as a problem document that names the id.

use std::sync::Arc;

use agentapi_shared::EventId;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::{Instrument, debug, info_span};

use super::Peer;
use super::error::{ApiError, KEPT_HEADERS};
use crate::audit::Refusal;
use crate::plane::Plane;
use crate::request::{self, Request as Current};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers a request and explains its failure.
pub(super) async fn number_and_explain(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    let id = EventId::generate();
    let method = request.method().clone();
    // The path only: a query may one day hold what a log must not.
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(str::to_owned);
    let span = info_span!("request", id = %id, %method, path);
    let current = Current::new(id, peer, agent);
    let answered = async {
        let answer = next.run(request).await;
        // A path that leads nowhere refuses nothing.
        if let Some(route) = route
            && let Some(refusal) = refusal(&answer, method.as_str(), route.as_str(), &path)
        {
            plane.trail.refused(&refusal).await;
        }
        answer
    };
    let mut answer = request::scope(Some(current), answered).instrument(span.clone()).await;
    let id = id.to_string();
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

/// What is recorded of an answer: that somebody was not let in, may not do it, or looked for what is not theirs.
fn refusal(answer: &Response, method: &str, route: &str, path: &str) -> Option<Refusal> {
    let status = answer.status();
    let refuses = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&status);
    let error = answer.extensions().get::<ApiError>().filter(|_| refuses)?;
    Some(Refusal {
        status: status.as_u16(),
        code: error.code.clone(),
        method: method.to_owned(),
        route: route.to_owned(),
        path: path.to_owned(),
    })
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
