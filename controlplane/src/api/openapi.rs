//! The API's own description, and whether the server is well.

use std::sync::Arc;

use agentapi_shared::api::{Problem, ScreenFormat};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};

use super::{Api, ApiError};

// What only a query parameter has is not collected from the handlers.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "AgentAPI",
        description = "Coding agents in terminals: sessions, screens, input, events. Errors are RFC 9457 problem documents.",
        license(name = "MIT", identifier = "MIT"),
    ),
    components(schemas(ScreenFormat))
)]
struct Document;

/// What is not said at the handlers.
pub(super) fn document() -> OpenApi {
    let mut document = Document::openapi();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("agentapi_3284")));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", bearer);
    components.add_security_scheme("cookie", cookie);
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new("bearer", none), SecurityRequirement::new("cookie", none)]);
    document
}

/// The document as text.
pub(super) fn to_json(document: &OpenApi) -> String {
    document.to_pretty_json().unwrap_or_default()
}

/// `GET /api/v1/openapi.json`; public, like the source it is made from.
pub(super) async fn serve(document: Arc<str>) -> Response {
    ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// Whether the process serves.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "health", responses((status = 200, body = String)), security(()))]
pub(super) async fn livez() -> &'static str {
    "ok"
}

/// Whether it can do its work: its store answers.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "health", security(()),
    responses((status = 200, body = String), (status = 503, body = Problem)),
)]
pub(super) async fn readyz(State(api): State<Api>) -> Result<&'static str, ApiError> {
    api.plane.store.ping().await?;
    Ok("ok")
}
