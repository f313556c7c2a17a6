//! `/api/v1/sessions/{id}/egress`.

use agentapi_shared::EventId;
use agentapi_shared::api::{LIMIT_DEFAULT, LIMIT_MAX, Page, Problem};
use agentapi_shared::egress::EgressDecision;
use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::extract::{self, Params};
use super::{Api, ApiError};
use crate::domain::policy::Principal;
use crate::domain::sessions;
use crate::store::records::EgressFilter;

/// List what a session's programs connected to and what they were refused, newest first.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/egress", operation_id = "listEgress", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path),
        ("verdict" = Option<String>, Query, description = "Only `allowed`, `denied`, `would_deny` or `failed` ones"),
        ("limit" = Option<u32>, Query, description = "Items of a page: 50 if absent, at most 200"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<EgressDecision>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<Page<EgressDecision>>, ApiError> {
    let verdict = params.read("verdict", "allowed, denied, would_deny or failed", |text| text.parse().ok());
    let limit = params.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let before = params.read("cursor", "the `next_cursor` of a page", read_cursor);
    params.finish()?;
    let id = extract::id(&id, "session_not_found", "session")?;
    let filter = EgressFilter { verdict, before, limit };
    let (data, next) = sessions::egress(&api.plane, &principal, id, filter).await?;
    Ok(Json(Page { data, next_cursor: next.map(|id| URL_SAFE_NO_PAD.encode(id.to_string())) }))
}

fn read_cursor(text: &str) -> Option<EventId> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?.parse().ok()
}
