//! `/api/v1/hosts`.

use agentapi_shared::HostId;
use agentapi_shared::api::{Host, Page, Problem};
use axum::Json;
use axum::extract::{Path, State};

use super::extract::{self, Params};
use super::{Api, ApiError};
use crate::domain::DomainError;
use crate::domain::policy::{self, Action, Principal};

/// List hosts.
#[utoipa::path(
    get, path = "/api/v1/hosts", operation_id = "listHosts", tag = "hosts",
    responses((status = 200, body = Page<Host>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<Host>>, ApiError> {
    params.finish()?;
    policy::check(&principal, Action::HostView)?;
    let hosts = api.plane.store.hosts(principal.tenant()).await?;
    let data = hosts.into_iter().map(|host| api.plane.present_host(host)).collect();
    Ok(Json(Page { data, next_cursor: None }))
}

/// Show a host.
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}", operation_id = "getHost", tag = "hosts",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Host), (status = "4XX", body = Problem)),
)]
pub(super) async fn get(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Host>, ApiError> {
    params.finish()?;
    policy::check(&principal, Action::HostView)?;
    let id: HostId = extract::id(&id, "host_not_found", "host")?;
    let hosts = api.plane.store.hosts(principal.tenant()).await?;
    let host = hosts.into_iter().find(|host| host.id == id).ok_or(DomainError::HostNotFound)?;
    Ok(Json(api.plane.present_host(host)))
}
