//! Who a request is from. A handler that takes a [`Principal`] cannot be reached without one.

use agentapi_shared::HostId;
use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::{Api, ApiError, extract, limits, origin};
use crate::auth::Secret;
use crate::clock;
use crate::domain::policy::{Credential, Principal};
use crate::domain::{logins, organizations};
use crate::identity::api_key::ApiKey;
use crate::request::{self, Caller};
use crate::store::records::{BrowserSession, Holder};

/// Which of their organisations a caller means.
const ORGANIZATION: &str = "x-agentapi-organization";

impl FromRequestParts<Api> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        if let Some(token) = bearer(&parts.headers)? {
            let hash = token.hash();
            // A JWT begins with `{"` in base64, which no key of ours does.
            if token.expose().starts_with("eyJ") && api.identities.verifier.is_some() {
                let (holder, expires_at, login) = logins::by_token(&api.plane, &api.identities, &token).await?;
                let principal = Self { holder, credential: Credential::Issuer { hash, expires_at } };
                let admitted = admit(parts, api, principal, Ok(())).await?;
                if let (Some(login), Some(issuer)) = (&login, &api.identities.issuer) {
                    api.plane.sights.see(&*api.plane.store, &admitted, issuer, login).await?;
                }
                return Ok(admitted);
            }
            // A typo is no question for the database.
            if ApiKey::is_like(token.expose()) {
                ApiKey::parse(token.expose())
                    .map_err(|error| ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", error.to_string()))?;
            }
            let Some(Holder::User(holder)) = api.plane.store.token(hash.clone()).await? else {
                return Err(ApiError::unauthorized());
            };
            return admit(parts, api, Self { holder, credential: Credential::Token(hash) }, Ok(())).await;
        }
        let cookie = cookie(&parts.headers, &cookie_name(api.port)).ok_or_else(ApiError::unauthorized)?;
        let hash = cookie.hash();
        let session = api.plane.store.browser_session(hash.clone(), clock::now()).await?;
        let BrowserSession { mut holder, expires_at } = session.ok_or_else(ApiError::unauthorized)?;
        if let Some(refresher) = &api.identities.refresher {
            holder.token = refresher.token(&hash).await?;
        }
        let principal = Self { holder, credential: Credential::Browser { hash, expires_at } };
        // A browser sends cookies by itself: that a page of ours asked for it has to be shown.
        admit(parts, api, principal, origin::check(parts, api.port)).await
    }
}

/// Lets somebody in whom the store knows. Whatever comes of the request, the audit trail says whom it is from, and where.
async fn admit(
    parts: &Parts,
    api: &Api,
    principal: Principal,
    checked: Result<(), ApiError>,
) -> Result<Principal, ApiError> {
    let admitted = match checked.and_then(|()| limits::take(parts, api, &principal)) {
        Ok(()) => within(parts, api, principal.clone()).await.and_then(|admitted| {
            limits::take_within(parts, api, &admitted)?;
            Ok(admitted)
        }),
        Err(refused) => Err(refused),
    };
    let known = admitted.as_ref().unwrap_or(&principal);
    request::identify(Caller {
        tenant: known.tenant(),
        name: known.holder.name.clone(),
        credential: known.credential_id(),
        channel: known.channel(),
    });
    admitted
}

/// The caller in the organisation that the request names; without a name, in the one of their credential. Browsers send no headers of their
/// own with event streams and WebSockets, so a cookie may say it too: it only chooses among the organisations that one is in.
async fn within(parts: &Parts, api: &Api, principal: Principal) -> Result<Principal, ApiError> {
    let header = parts.headers.get(ORGANIZATION).map(|value| value.to_str().unwrap_or_default().to_owned());
    let wanted = header.or_else(|| {
        cookie(&parts.headers, &format!("{}_organization", cookie_name(api.port))).map(|text| text.expose().to_owned())
    });
    let Some(wanted) = wanted else { return Ok(principal) };
    let org = extract::id(&wanted, "organization_not_found", "organisation")?;
    Ok(organizations::enter(&api.plane, principal, org).await?)
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
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| Secret::from_text(value.to_owned()))
}

/// A host, by its token, which is good for what hosts do only; and the token's hash.
pub(super) async fn host(headers: &HeaderMap, api: &Api) -> Result<(HostId, String), ApiError> {
    let token = bearer(headers)?.ok_or_else(ApiError::unauthorized)?;
    match api.plane.store.token(token.hash()).await? {
        Some(Holder::Host(host)) => Ok((host, token.hash())),
        Some(Holder::User(_)) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "the link takes the credential of a host"))
        }
        None => Err(ApiError::unauthorized()),
    }
}
