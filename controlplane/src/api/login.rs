//! Logging in with a browser: a one-time code becomes a cookie.

use agentapi_shared::api::{Login, LoginCode, Me, Problem};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use time::Duration;

use super::extract::{Body, Params};
use super::origin::Kept;
use super::stranger::Stranger;
use super::{Api, ApiError};
use crate::auth::Secret;
use crate::clock;
use crate::domain::policy::{self, Action, Credential, Principal, Visitor};
use crate::domain::{audit, organizations};
use crate::sockets::Proof;
use crate::store::records::NewLoginCode;

/// A login code is good for this long.
const CODE_LIFETIME: Duration = Duration::minutes(5);
/// A browser stays logged in for this long.
const COOKIE_LIFETIME: Duration = Duration::days(30);

/// Make a code for one login in a browser.
#[utoipa::path(
    post, path = "/api/v1/login-codes", operation_id = "createLoginCode", tag = "login",
    responses((status = 201, body = LoginCode), (status = "4XX", body = Problem)),
)]
pub(super) async fn create_code(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    params: Params,
) -> Result<(StatusCode, Json<LoginCode>), ApiError> {
    params.finish()?;
    policy::check(&principal, Action::Login)?;
    // The login would be good for longer than what it was made with.
    if !matches!(principal.credential, Credential::Browser { .. }) && principal.expires_at().is_some() {
        let detail = "a key or a token that ends makes no login, which would outlive it; log in yourself, or use a key without an end";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    api.identities.require_tokens()?;
    let code = Secret::generate("");
    let expires_at = clock::now() + CODE_LIFETIME;
    let entry = audit::of_account(principal.channel(), "login_code.create");
    let new = NewLoginCode { hash: code.hash(), expires_at, made_by: principal.made_by() };
    api.plane.store.create_login_code(principal.tenant(), new, entry).await?;
    let url = format!("{}/#code={}", api.site.page_for_caller(&headers), code.expose());
    Ok((StatusCode::CREATED, Json(LoginCode { code: code.expose().to_owned(), url, expires_at })))
}

/// Exchange a code for a cookie.
#[utoipa::path(
    post, path = "/api/v1/login", operation_id = "login", tag = "login", request_body = Login, security(()),
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn login(State(api): State<Api>, stranger: Stranger, body: Body<Login>) -> Result<Response, ApiError> {
    stranger.check_page(&api)?;
    api.identities.require_tokens()?;
    let cookie = Secret::generate("");
    let expires_at = clock::now() + COOKIE_LIFETIME;
    let entry = audit::of_account("web", "login");
    let code = Secret::from_text(body.value.code);
    let holder = api.plane.store.redeem_login_code(code.hash(), cookie.hash(), expires_at, entry).await?;
    if holder.is_none() {
        let detail = "this login link was used already or is over; `agentapi open` makes a new one";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_login_code", detail));
    }
    let name = api.site.name_or_local(&stranger.parts.headers);
    let value = name.set_cookie(Kept::Login, cookie.expose(), COOKIE_LIFETIME.whole_seconds());
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, value)]).into_response())
}

/// End this browser's login.
#[utoipa::path(
    post, path = "/api/v1/logout", operation_id = "logout", tag = "login",
    responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn logout(State(api): State<Api>, visitor: Visitor, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Credential::Browser { hash, .. } = visitor.credential() {
        let (entry, tenant) = (audit::of_account("web", "logout"), visitor.tenant());
        let token = tenant.token.clone();
        match &visitor {
            Visitor::Member(_) => api.plane.store.end_browser_session(tenant, hash.clone(), entry).await?,
            Visitor::Newcomer(_) => api.plane.store.end_newcomer_login(tenant.user, hash.clone(), entry).await?,
        }
        api.identities.ended(hash, token.as_ref()).await;
        let proof = Proof::Browser(hash.clone());
        api.plane.sockets.revoke(|owner| owner.proof == proof);
    }
    let removed = api.site.name_or_local(&headers).set_cookie(Kept::Login, "", 0);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, removed)]).into_response())
}

/// Who the caller is.
#[utoipa::path(
    get, path = "/api/v1/me", operation_id = "getMe", tag = "login",
    responses((status = 200, body = Me), (status = "4XX", body = Problem)),
)]
pub(super) async fn me(State(api): State<Api>, principal: Principal, params: Params) -> Result<Json<Me>, ApiError> {
    params.finish()?;
    let memberships = organizations::memberships(&api.plane, &principal).await?;
    Ok(Json(Me {
        user_id: principal.holder.user,
        organization_id: principal.holder.org,
        memberships,
        name: principal.holder.name,
        organization: principal.holder.organization,
        role: principal.holder.role.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}
