//! `/api/v1/host-enrolments`, and what a host does with its own credential.

use agentapi_shared::HostId;
use agentapi_shared::api::{CreateHostEnrolment, HostCredential, HostEnrolment, Problem, RedeemHostEnrolment};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use http::request::Parts;

use super::extract::{self, Body, Params};
use super::stranger::Stranger;
use super::{Api, ApiError, principal};
use crate::domain::enrolments;
use crate::domain::policy::Principal;

/// Make a token that one machine becomes a host of the organisation with; it is shown this once.
#[utoipa::path(
    post, path = "/api/v1/host-enrolments", operation_id = "createHostEnrolment", tag = "hosts",
    request_body = CreateHostEnrolment,
    responses((status = 201, body = HostEnrolment), (status = "4XX", body = Problem)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
    body: Body<CreateHostEnrolment>,
) -> Result<(StatusCode, Json<HostEnrolment>), ApiError> {
    params.finish()?;
    Ok((StatusCode::CREATED, Json(enrolments::create(&api.plane, &principal, body.value).await?)))
}

/// Exchange an enrolment token for a host's credential.
#[utoipa::path(
    post, path = "/api/v1/host-enrolments/redeem", operation_id = "redeemHostEnrolment", tag = "hosts", security(()),
    request_body = RedeemHostEnrolment,
    responses((status = 201, body = HostCredential), (status = "4XX", body = Problem)),
)]
pub(super) async fn redeem(
    State(api): State<Api>,
    _counted: Stranger,
    params: Params,
    body: Body<RedeemHostEnrolment>,
) -> Result<(StatusCode, Json<HostCredential>), ApiError> {
    params.finish()?;
    let made = enrolments::redeem(&api.plane, body.value.token).await?;
    let credential = made.ok_or_else(|| {
        let detail = "this enrolment token was used already or is over; `agentapi host enrol` makes a new one";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_enrolment_token", detail)
    })?;
    Ok((StatusCode::CREATED, Json(credential)))
}

/// Exchange a host's credential for a new one; the one before is good until ten minutes after the new one was used.
#[utoipa::path(
    post, path = "/api/v1/hosts/credential", operation_id = "rotateHostCredential", tag = "hosts",
    responses((status = 201, body = HostCredential), (status = "4XX", body = Problem)),
)]
pub(super) async fn rotate(
    State(api): State<Api>,
    parts: Parts,
    params: Params,
) -> Result<(StatusCode, Json<HostCredential>), ApiError> {
    let (host, shown) = principal::host(&parts, &api).await?;
    params.finish()?;
    Ok((StatusCode::CREATED, Json(enrolments::rotate(&api.plane, host, shown).await?)))
}

/// Say with a new credential that the host has it: those before end in ten minutes. A link that is opened with it says the same.
#[utoipa::path(
    post, path = "/api/v1/hosts/credential/confirm", operation_id = "confirmHostCredential", tag = "hosts",
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn confirm(State(api): State<Api>, parts: Parts, params: Params) -> Result<StatusCode, ApiError> {
    let (_, hash) = principal::host(&parts, &api).await?;
    params.finish()?;
    enrolments::confirm(&api.plane, hash).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a host of the organisation: its link closes, and its credential is good no longer.
#[utoipa::path(
    delete, path = "/api/v1/hosts/{id}", operation_id = "revokeHost", tag = "hosts",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    let id: HostId = extract::id(&id, "host_not_found", "host")?;
    enrolments::revoke(&api.plane, &principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
