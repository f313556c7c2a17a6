//! `/api/v1/api-keys`: of the organisation that the request is in.

use agentapi_shared::ApiKeyId;
use agentapi_shared::api::{ApiKey, CreateApiKey, NewApiKey, Page, Problem};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::extract::{self, Body, Params};
use super::{Api, ApiError};
use crate::domain::api_keys;
use crate::domain::policy::Principal;
use crate::store::records::MadeByKey;

/// List one's own API keys, newest first; everybody's for owners and admins.
#[utoipa::path(
    get, path = "/api/v1/api-keys", operation_id = "listApiKeys", tag = "organizations",
    responses((status = 200, body = Page<ApiKey>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<ApiKey>>, ApiError> {
    params.finish()?;
    Ok(Json(Page { data: api_keys::list(&api.plane, &principal).await?, next_cursor: None }))
}

/// Make an API key that acts in one's own name; it is shown this once.
#[utoipa::path(
    post, path = "/api/v1/api-keys", operation_id = "createApiKey", tag = "organizations",
    request_body = CreateApiKey,
    responses((status = 201, body = NewApiKey), (status = "4XX", body = Problem)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
    body: Body<CreateApiKey>,
) -> Result<(StatusCode, Json<NewApiKey>), ApiError> {
    params.finish()?;
    api.identities.require_tokens()?;
    Ok((StatusCode::CREATED, Json(api_keys::create(&api.plane, &principal, body.value).await?)))
}

/// End an API key, every terminal and event stream that was opened with it, and what was made with it.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{id}", operation_id = "revokeApiKey", tag = "organizations",
    params(
        ("id" = uuid::Uuid, Path),
        ("made" = Option<String>, Query, description = "`ends` if absent; `stays`: what was made with it goes on"),
    ),
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<StatusCode, ApiError> {
    let made = params.read("made", "ends or stays", |text| match text {
        "ends" => Some(MadeByKey::Ends),
        "stays" => Some(MadeByKey::Stays),
        _ => None,
    });
    params.finish()?;
    let id: ApiKeyId = extract::id(&id, "api_key_not_found", "API key")?;
    api_keys::revoke(&api.plane, &principal, id, made.unwrap_or(MadeByKey::Ends)).await?;
    Ok(StatusCode::NO_CONTENT)
}
