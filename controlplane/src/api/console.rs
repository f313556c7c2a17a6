//! The web console: files that were built before this program and are part of it.

use axum::extract::Request;
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use rust_embed::RustEmbed;

use super::ApiError;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Files;

/// Scripts only from here; styles also inline, because the terminal writes style elements; sockets only to here.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Assets carry a hash of their content in their name.
const FOREVER: &str = "public, max-age=31536000, immutable";

const NOT_BUILT: &str = "<!doctype html><title>AgentAPI</title><p>This program was built without its console. \
                         Run <code>make web</code>, then build again. The API works.</p>";

/// Everything that no route takes: a file, or the page that finds its way by itself.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::of_status(StatusCode::NOT_FOUND).into_response();
    }
    let name = path.trim_start_matches('/');
    match Files::get(name).filter(|_| name != "index.html") {
        Some(file) => {
            let kind = file.metadata.mimetype().to_owned();
            let cache = if name.starts_with("assets/") { FOREVER } else { "no-cache" };
            let mut answer = file.data.into_owned().into_response();
            if let Ok(kind) = HeaderValue::from_str(&kind) {
                answer.headers_mut().insert(CONTENT_TYPE, kind);
            }
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
            with_policy(answer)
        }
        // A missing asset is missing; any other path is a place inside the console.
        None if name.starts_with("assets/") => ApiError::of_status(StatusCode::NOT_FOUND).into_response(),
        None => index(),
    }
}

fn index() -> Response {
    let mut answer = match Files::get("index.html") {
        Some(page) => Html(page.data.into_owned()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response(),
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    with_policy(answer)
}

fn with_policy(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}
