//! `/api/v1/members` and `/api/v1/invitations`: of the organisation that the request is in.

use agentapi_shared::api::{
    AcceptInvitation, CreateInvitation, Invitation, InvitationLink, InvitedTo, Member, Page, Problem, SetMemberRole,
};
use agentapi_shared::{InvitationId, UserId};
use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};

use super::extract::{self, Body, Params};
use super::stranger::Stranger;
use super::{Api, ApiError};
use crate::domain::members;
use crate::domain::policy::{Principal, Visitor};

fn user_id(text: &str) -> Result<UserId, ApiError> {
    extract::id(text, "member_not_found", "member")
}

/// List who is in the organisation.
#[utoipa::path(
    get, path = "/api/v1/members", operation_id = "listMembers", tag = "organizations",
    responses((status = 200, body = Page<Member>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<Member>>, ApiError> {
    params.finish()?;
    Ok(Json(Page { data: members::list(&api.plane, &principal).await?, next_cursor: None }))
}

/// Give a member another role.
#[utoipa::path(
    patch, path = "/api/v1/members/{user}", operation_id = "setMemberRole", tag = "organizations",
    params(("user" = uuid::Uuid, Path)),
    request_body = SetMemberRole,
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn set_role(
    State(api): State<Api>,
    principal: Principal,
    Path(user): Path<String>,
    params: Params,
    body: Body<SetMemberRole>,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    members::set_role(&api.plane, &principal, user_id(&user)?, &body.value.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a member, or leave.
#[utoipa::path(
    delete, path = "/api/v1/members/{user}", operation_id = "removeMember", tag = "organizations",
    params(("user" = uuid::Uuid, Path)),
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    Path(user): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    members::remove(&api.plane, &principal, user_id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List invitations, newest first.
#[utoipa::path(
    get, path = "/api/v1/invitations", operation_id = "listInvitations", tag = "organizations",
    responses((status = 200, body = Page<Invitation>), (status = "4XX", body = Problem)),
)]
pub(super) async fn invitations(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<Invitation>>, ApiError> {
    params.finish()?;
    Ok(Json(Page { data: members::invitations(&api.plane, &principal).await?, next_cursor: None }))
}

/// Invite the owner of a mail address; the link is shown this once.
#[utoipa::path(
    post, path = "/api/v1/invitations", operation_id = "createInvitation", tag = "organizations",
    request_body = CreateInvitation,
    responses((status = 201, body = InvitationLink), (status = "4XX", body = Problem)),
)]
pub(super) async fn invite(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    params: Params,
    body: Body<CreateInvitation>,
) -> Result<(StatusCode, Json<InvitationLink>), ApiError> {
    params.finish()?;
    let org = principal.holder.org;
    let (invitation, token) = members::invite(&api.plane, &principal, body.value).await?;
    let page = api.site.page_for_others(&headers);
    let (token, url) = (token.expose().to_owned(), format!("{page}/#invitation={}&organization={org}", token.expose()));
    Ok((StatusCode::CREATED, Json(InvitationLink { invitation, token, url })))
}

/// Take an invitation back.
#[utoipa::path(
    delete, path = "/api/v1/invitations/{id}", operation_id = "revokeInvitation", tag = "organizations",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn revoke_invitation(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    let id: InvitationId = extract::id(&id, "invitation_not_found", "invitation")?;
    members::revoke_invitation(&api.plane, &principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show what an invitation is to, to whoever holds its link: the organisation's name and the role.
#[utoipa::path(
    post, path = "/api/v1/invitations/lookup", operation_id = "lookUpInvitation", tag = "organizations",
    request_body = AcceptInvitation, security(()),
    responses((status = 200, body = InvitedTo), (status = "4XX", body = Problem)),
)]
pub(super) async fn look_up(
    State(api): State<Api>,
    _counted: Stranger,
    params: Params,
    body: Body<AcceptInvitation>,
) -> Result<Json<InvitedTo>, ApiError> {
    params.finish()?;
    Ok(Json(members::look_up(&api.plane, body.value).await?))
}

/// Accept an invitation to the address that is verified as one's own.
#[utoipa::path(
    post, path = "/api/v1/invitations/accept", operation_id = "acceptInvitation", tag = "organizations",
    request_body = AcceptInvitation,
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn accept(
    State(api): State<Api>,
    _counted: Stranger,
    visitor: Visitor,
    params: Params,
    body: Body<AcceptInvitation>,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    members::accept(&api.plane, &visitor, body.value).await?;
    Ok(StatusCode::NO_CONTENT)
}
