//! Logging in with a browser at an issuer: by password, or by going there and coming back.

use agentapi_shared::api::{LoginMethods, PasswordLogin, Problem};
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::SET_COOKIE;

use super::extract::Body;
use super::origin::Kept;
use super::stranger::Stranger;
use super::{Api, ApiError, limits, principal};
use crate::auth::Secret;
use crate::domain::logins::{self, Invited, LogInError};
use crate::identity::login::{BEGUN_LIFETIME, Callback};

/// Where browsers come back to.
pub const BACK: &str = "/api/v1/login/issuer/callback";

/// Which ways there are to log in.
#[utoipa::path(
    get, path = "/api/v1/login/methods", operation_id = "listLoginMethods", tag = "login", security(()),
    responses((status = 200, body = LoginMethods)),
)]
pub(super) async fn methods(State(api): State<Api>) -> Json<LoginMethods> {
    let issuer = logins::issuer_logins(&api.identities).ok().map(|oidc| oidc.issuer().to_owned());
    Json(LoginMethods {
        password: api.identities.supabase.is_some(),
        issuer,
        links: api.identities.makes_tokens(),
        api_keys: api.identities.makes_tokens(),
        sign_up: api.foundings.sign_up.as_str().to_owned(),
    })
}

/// Log in with an address and a password.
#[utoipa::path(
    post, path = "/api/v1/login/password", operation_id = "loginByPassword", tag = "login", request_body = PasswordLogin,
    security(()), responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn password(
    State(api): State<Api>,
    stranger: Stranger,
    body: Body<PasswordLogin>,
) -> Result<Response, ApiError> {
    stranger.check_page(&api)?;
    let PasswordLogin { email, password, invitation } = body.value;
    limits::take_account(&stranger.parts, &api, email.trim())?;
    let invited = invitation
        .map(|invitation| Invited { org: invitation.organization_id, token: Secret::from_text(invitation.token) });
    let password = Secret::from_text(password);
    let made = logins::by_password(&api.plane, &api.identities, email.trim(), &password, invited).await?;
    let name = api.site.name_or_local(&stranger.parts.headers);
    let cookie = name.set_cookie(Kept::Login, made.cookie.expose(), made.lifetime.whole_seconds());
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Go to the issuer.
#[utoipa::path(
    get, path = "/api/v1/login/issuer", operation_id = "beginIssuerLogin", tag = "login", security(()),
    responses((status = 303), (status = "4XX", body = Problem)),
)]
pub(super) async fn begin(State(api): State<Api>, stranger: Stranger) -> Result<Response, ApiError> {
    let name = api.site.own_name(&stranger.parts.headers)?;
    let oidc = logins::issuer_logins(&api.identities)?;
    let begun = oidc.begin(&api.identities.sealer).await.map_err(LogInError::from)?;
    let cookie = name.set_cookie(Kept::Begun, begun.cookie.expose(), BEGUN_LIFETIME.whole_seconds());
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&begun.url)).into_response())
}

/// Come back from the issuer.
#[utoipa::path(
    get, path = "/api/v1/login/issuer/callback", operation_id = "finishIssuerLogin", tag = "login", security(()),
    responses((status = 303), (status = "4XX", body = Problem)),
)]
pub(super) async fn finish(State(api): State<Api>, stranger: Stranger) -> Result<Response, ApiError> {
    let parts = &stranger.parts;
    let name = api.site.own_name(&parts.headers)?;
    let kept = principal::cookie(&parts.headers, &name.cookie(Kept::Begun));
    let kept = kept.unwrap_or_else(|| Secret::from_text(String::new()));
    let callback = Query::<Callback>::try_from_uri(&parts.uri).map(|Query(callback)| callback).unwrap_or_default();
    let made = logins::by_issuer(&api.plane, &api.identities, &kept, &callback).await?;
    let cookie = name.set_cookie(Kept::Login, made.cookie.expose(), made.lifetime.whole_seconds());
    let mut answer = Redirect::to("/").into_response();
    for cookie in [cookie, name.set_cookie(Kept::Begun, "", 0)] {
        if let Ok(value) = cookie.parse() {
            answer.headers_mut().append(SET_COOKIE, value);
        }
    }
    Ok(answer)
}
