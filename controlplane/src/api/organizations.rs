//! `/api/v1/organizations`.

use agentapi_shared::OrgId;
use agentapi_shared::api::{CreateOrganization, Organization, Page, Problem, UpdateOrganization};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::extract::{self, Body, Params};
use super::{Api, ApiError};
use crate::domain::logins::LogInError;
use crate::domain::policy::{Principal, Visitor};
use crate::domain::{DomainError, organizations};

fn org_id(text: &str) -> Result<OrgId, ApiError> {
    extract::id(text, "organization_not_found", "organisation")
}

/// List the organisations that one is in.
#[utoipa::path(
    get, path = "/api/v1/organizations", operation_id = "listOrganizations", tag = "organizations",
    responses((status = 200, body = Page<Organization>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<Organization>>, ApiError> {
    params.finish()?;
    let data = organizations::list(&api.plane, &principal).await?;
    Ok(Json(Page { data, next_cursor: None }))
}

/// Make an organisation, as its owner.
#[utoipa::path(
    post, path = "/api/v1/organizations", operation_id = "createOrganization", tag = "organizations",
    request_body = CreateOrganization,
    responses((status = 201, body = Organization), (status = "4XX", body = Problem)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    visitor: Visitor,
    params: Params,
    body: Body<CreateOrganization>,
) -> Result<(StatusCode, Json<Organization>), ApiError> {
    params.finish()?;
    let made = organizations::create(&api.plane, &visitor, api.foundings, body.value.name).await;
    // Somebody who is nowhere is told what they can do about it, and not that their role does not allow it.
    let made = made.map_err(|refused| match (&visitor, refused) {
        (Visitor::Newcomer(_), DomainError::Forbidden) => ApiError::from(LogInError::NoOrganization),
        (_, other) => other.into(),
    })?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Show an organisation.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}", operation_id = "getOrganization", tag = "organizations",
    params(("org" = uuid::Uuid, Path)),
    responses((status = 200, body = Organization), (status = "4XX", body = Problem)),
)]
pub(super) async fn get(
    State(api): State<Api>,
    principal: Principal,
    Path(org): Path<String>,
    params: Params,
) -> Result<Json<Organization>, ApiError> {
    params.finish()?;
    Ok(Json(organizations::get(&api.plane, &principal, org_id(&org)?).await?))
}

/// Change an organisation's name and settings.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{org}", operation_id = "updateOrganization", tag = "organizations",
    params(("org" = uuid::Uuid, Path)),
    request_body = UpdateOrganization,
    responses((status = 200, body = Organization), (status = "4XX", body = Problem)),
)]
pub(super) async fn update(
    State(api): State<Api>,
    principal: Principal,
    Path(org): Path<String>,
    params: Params,
    body: Body<UpdateOrganization>,
) -> Result<Json<Organization>, ApiError> {
    params.finish()?;
    Ok(Json(organizations::update(&api.plane, principal, org_id(&org)?, body.value).await?))
}
