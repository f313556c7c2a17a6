//! Who a request is from. A handler that takes a [`Principal`] cannot be reached without one.

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::{Api, ApiError, limits, origin};
use crate::auth::Secret;
use crate::clock;
use crate::domain::policy::{Credential, Principal};
use crate::request::{self, Caller};
use crate::store::records::{BrowserSession, Holder};

impl FromRequestParts<Api> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        if let Some(token) = bearer(&parts.headers)? {
            let hash = token.hash();
            let Some(Holder::User(holder)) = api.plane.store.token(hash.clone()).await? else {
                return Err(ApiError::unauthorized());
            };
            let principal = known(Self { holder, credential: Credential::Token(hash) });
            limits::take(parts, api, &principal)?;
            return Ok(principal);
        }
        let cookie = cookie(&parts.headers, &cookie_name(api.port)).ok_or_else(ApiError::unauthorized)?;
        let hash = cookie.hash();
        let session = api.plane.store.browser_session(hash.clone(), clock::now()).await?;
        let BrowserSession { holder, expires_at } = session.ok_or_else(ApiError::unauthorized)?;
        let principal = known(Self { holder, credential: Credential::Browser { hash, expires_at } });
        // A browser sends cookies by itself: that a page of ours asked for it has to be shown.
        origin::check(parts, api.port)?;
        limits::take(parts, api, &principal)?;
        Ok(principal)
    }
}

/// Whatever comes of the request, the audit trail says whom it is from.
fn known(principal: Principal) -> Principal {
    request::identify(Caller {
        tenant: principal.tenant(),
        name: principal.holder.name.clone(),
        credential: principal.credential_id(),
        channel: principal.channel(),
    });
    principal
}

/// The token of an `Authorization: Bearer` header; an error if the header is something else.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::unauthorized())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(ApiError::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(ApiError::unauthorized());
    }
    Ok(Some(Secret::from_text(token.trim().to_owned())))
}

/// Browsers share cookies between ports, so the port is in the name.
pub(super) fn cookie_name(port: u16) -> String {
    format!("agentapi_{port}")
}

/// The value of a cookie.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| Secret::from_text(value.to_owned()))
}

/// A host, by its token, which is good for the link only.
pub(super) async fn host(headers: &HeaderMap, api: &Api) -> Result<agentapi_shared::HostId, ApiError> {
    let token = bearer(headers)?.ok_or_else(ApiError::unauthorized)?;
    match api.plane.store.token(token.hash()).await? {
        Some(Holder::Host(host)) => Ok(host),
        Some(Holder::User(_)) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "the link takes the credential of a host"))
        }
        None => Err(ApiError::unauthorized()),
    }
}
