//! Who a request is from. A handler that takes a [`Principal`] cannot be reached without one; one that takes a [`Visitor`] is there for people
//! who are in no organisation as well.

use agentapi_shared::HostId;
use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::origin::Kept;
use super::{Api, ApiError, extract, limits};
use crate::auth::Secret;
use crate::clock;
use crate::domain::logins::{self, LogInError};
use crate::domain::organizations;
use crate::domain::policy::{Credential, Newcomer, Principal, Visitor};
use crate::identity::api_key::ApiKey;
use crate::limits::Shown;
use crate::request::{self, Caller};
use crate::store::records::{BrowserSession, Holder, LoginHolder, NewcomerHolder, UserHolder};

/// Which of their organisations a caller means.
const ORGANIZATION: &str = "x-agentapi-organization";

impl FromRequestParts<Api> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match Visitor::from_request_parts(parts, api).await? {
            Visitor::Member(principal) => Ok(principal),
            Visitor::Newcomer(_) => Err(LogInError::NoOrganization.into()),
        }
    }
}

impl FromRequestParts<Api> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match bearer(&parts.headers)? {
            // A JWT begins with `{"` in base64, which no key of ours does.
            Some(token) if token.expose().starts_with("eyJ") && api.identities.verifier.is_some() => {
                by_issuer(parts, api, &token).await
            }
            Some(token) => by_key(parts, api, &token).await,
            None => by_cookie(parts, api).await,
        }
    }
}

async fn by_issuer(parts: &Parts, api: &Api, token: &Secret) -> Result<Visitor, ApiError> {
    let (hash, caller) = (token.hash(), logins::verified(&api.identities, token).await?);
    // Before anybody is asked about them: whoever the project vouches for may be any number of people.
    limits::take_of(parts, api, &hash, caller.user)?;
    if let Some(holder) = logins::by_token(&api.plane, &caller).await? {
        let credential = Credential::Issuer { hash, expires_at: caller.expires_at };
        let admitted = admit(parts, api, Visitor::Member(Principal { holder, credential }), Ok(())).await?;
        if let (Visitor::Member(principal), Some(login), Some(issuer)) =
            (&admitted, &caller.session, &api.identities.issuer)
        {
            api.plane.sights.see(&*api.plane.store, principal, issuer, login).await?;
        }
        return Ok(admitted);
    }
    limits::take_address(parts, api)?;
    Ok(Visitor::Newcomer(logins::meet(&api.plane, &api.identities, &caller, hash).await?))
}

async fn by_key(parts: &Parts, api: &Api, token: &Secret) -> Result<Visitor, ApiError> {
    // A typo is no question for the database.
    if ApiKey::is_like(token.expose()) {
        ApiKey::parse(token.expose())
            .map_err(|error| ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", error.to_string()))?;
    }
    let hash = token.hash();
    let found = limits::ask(parts, api, (Shown::Token, &hash), || api.plane.store.token(hash.clone())).await?;
    let Holder::User(holder) = found else {
        return Err(ApiError::unauthorized());
    };
    api.identities.require_tokens()?;
    let visitor = Visitor::Member(Principal { holder, credential: Credential::Token(hash) });
    let checked = limits::take(parts, api, &visitor);
    admit(parts, api, visitor, checked).await
}

async fn by_cookie(parts: &Parts, api: &Api) -> Result<Visitor, ApiError> {
    let name = api.site.name_or_local(&parts.headers).cookie(Kept::Login);
    let hash = cookie(&parts.headers, &name).ok_or_else(ApiError::unauthorized)?.hash();
    let ask = || api.plane.store.browser_session(hash.clone(), clock::now());
    let BrowserSession { holder, expires_at, made_by } = limits::ask(parts, api, (Shown::Cookie, &hash), ask).await?;
    let token = match &api.identities.refresher {
        Some(refresher) => refresher.token(&hash).await?,
        None => None,
    };
    if token.is_none() {
        api.identities.require_tokens()?;
    }
    let credential = Credential::Browser { hash, expires_at, made_by };
    let visitor = match holder {
        LoginHolder::Member(holder) => {
            Visitor::Member(Principal { holder: UserHolder { token, ..holder }, credential })
        }
        LoginHolder::Newcomer(NewcomerHolder { user, name }) => {
            Visitor::Newcomer(Newcomer { user, name, token, credential })
        }
    };
    // A browser sends cookies by itself: that a page of ours asked for it has to be shown.
    let checked = api.site.check(parts).and_then(|()| limits::take(parts, api, &visitor));
    admit(parts, api, visitor, checked).await
}

/// Lets somebody in whom the store knows. Whatever comes of the request of a member, the audit trail says whom it is from, and where.
async fn admit(parts: &Parts, api: &Api, visitor: Visitor, checked: Result<(), ApiError>) -> Result<Visitor, ApiError> {
    let Visitor::Member(principal) = visitor else {
        checked?;
        limits::take_address(parts, api)?;
        return Ok(visitor);
    };
    let admitted = match checked {
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
    admitted.map(Visitor::Member)
}

/// The caller in the organisation that the request names; without a name, in the one of their credential. Browsers send no headers of their
/// own with event streams and WebSockets, so a cookie may say it too: it only chooses among the organisations that one is in.
async fn within(parts: &Parts, api: &Api, principal: Principal) -> Result<Principal, ApiError> {
    let header = parts.headers.get(ORGANIZATION).map(|value| value.to_str().unwrap_or_default().to_owned());
    let wanted = header.or_else(|| {
        let name = api.site.name_or_local(&parts.headers).organization_cookie();
        cookie(&parts.headers, &name).map(|text| text.expose().to_owned())
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
pub(super) async fn host(parts: &Parts, api: &Api) -> Result<(HostId, String), ApiError> {
    let hash = bearer(&parts.headers)?.ok_or_else(ApiError::unauthorized)?.hash();
    match limits::ask(parts, api, (Shown::Host, &hash), || api.plane.store.token(hash.clone())).await? {
        Holder::Host(host) => Ok((host, hash)),
        Holder::User(_) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "the link takes the credential of a host"))
        }
    }
}
