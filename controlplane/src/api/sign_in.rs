//! Logging in with a browser at an issuer: by password, or by going there and coming back.

use agentapi_shared::api::{LoginMethods, PasswordLogin, Problem};
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::{ORIGIN, SET_COOKIE};
use http::request::Parts;

use super::extract::Body;
use super::principal::{self, cookie_name};
use super::{Api, ApiError, login, origin};
use crate::auth::Secret;
use crate::domain::logins::{self, Invited, LogInError};
use crate::identity::login::{BEGUN_LIFETIME, Callback};

/// Where browsers come back to.
pub const BACK: &str = "/api/v1/login/issuer/callback";
/// What a browser keeps until then is for this alone.
const KEPT_PATH: &str = "/api/v1/login/issuer";

/// Which ways there are to log in.
#[utoipa::path(
    get, path = "/api/v1/login/methods", operation_id = "listLoginMethods", tag = "login", security(()),
    responses((status = 200, body = LoginMethods)),
)]
pub(super) async fn methods(State(api): State<Api>) -> Json<LoginMethods> {
    let issuer = api.identities.oidc.as_ref().map(|oidc| oidc.issuer().to_owned());
    Json(LoginMethods { password: api.identities.supabase.is_some(), issuer })
}

/// Log in with an address and a password.
#[utoipa::path(
    post, path = "/api/v1/login/password", operation_id = "loginByPassword", tag = "login", request_body = PasswordLogin,
    security(()), responses((status = 204), (status = "4XX", body = Problem)),
)]
pub(super) async fn password(
    State(api): State<Api>,
    parts: Parts,
    body: Body<PasswordLogin>,
) -> Result<Response, ApiError> {
    // A page of another origin must not be able to log a browser in as someone else.
    if parts.headers.contains_key(ORIGIN) {
        origin::check(&parts, api.port)?;
    }
    let PasswordLogin { email, password, invitation } = body.value;
    let invited = invitation
        .map(|invitation| Invited { org: invitation.organization_id, token: Secret::from_text(invitation.token) });
    let password = Secret::from_text(password);
    let made = logins::by_password(&api.plane, &api.identities, email.trim(), &password, invited).await?;
    let cookie = login::set_cookie(api.port, made.cookie.expose(), made.lifetime.whole_seconds());
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Go to the issuer.
#[utoipa::path(
    get, path = "/api/v1/login/issuer", operation_id = "beginIssuerLogin", tag = "login", security(()),
    responses((status = 303), (status = "4XX", body = Problem)),
)]
pub(super) async fn begin(State(api): State<Api>, parts: Parts) -> Result<Response, ApiError> {
    origin::own_host(&parts, api.port)?;
    let oidc = api.identities.oidc.as_ref().ok_or(LogInError::Off)?;
    let begun = oidc.begin(&api.identities.sealer).await.map_err(LogInError::from)?;
    let cookie = kept_cookie(api.port, begun.cookie.expose(), BEGUN_LIFETIME.whole_seconds());
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&begun.url)).into_response())
}

/// Come back from the issuer.
#[utoipa::path(
    get, path = "/api/v1/login/issuer/callback", operation_id = "finishIssuerLogin", tag = "login", security(()),
    responses((status = 303), (status = "4XX", body = Problem)),
)]
pub(super) async fn finish(State(api): State<Api>, parts: Parts) -> Result<Response, ApiError> {
    origin::own_host(&parts, api.port)?;
    let kept =
        principal::cookie(&parts.headers, &kept_name(api.port)).unwrap_or_else(|| Secret::from_text(String::new()));
    let callback = Query::<Callback>::try_from_uri(&parts.uri).map(|Query(callback)| callback).unwrap_or_default();
    let made = logins::by_issuer(&api.plane, &api.identities, &kept, &callback).await?;
    let cookie = login::set_cookie(api.port, made.cookie.expose(), made.lifetime.whole_seconds());
    let mut answer = Redirect::to("/").into_response();
    for cookie in [cookie, kept_cookie(api.port, "", 0)] {
        if let Ok(value) = cookie.parse() {
            answer.headers_mut().append(SET_COOKIE, value);
        }
    }
    Ok(answer)
}

fn kept_name(port: u16) -> String {
    format!("{}_begun", cookie_name(port))
}

/// Lax: the issuer's page leads back here, which is another site's.
fn kept_cookie(port: u16, value: &str, max_age: i64) -> String {
    format!("{}={value}; Path={KEPT_PATH}; HttpOnly; SameSite=Lax; Max-Age={max_age}", kept_name(port))
}
