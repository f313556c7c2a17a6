//! Rate limits in HTTP: headers that say how things stand (draft-ietf-httpapi-ratelimit-headers-10), and the refusal.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Api, ApiError, Peer};
use crate::domain::policy::{Principal, Visitor};
use crate::limits::{Exceeded, Question, Shown, Standing, Unasked, WINDOW};
use crate::store::Answer;
use agentapi_shared::UserId;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Where the layer below leaves what the headers say: only it knows whose the request is.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<Standing>>>);

/// Adds the headers to every answer to a request that was counted.
pub(super) async fn tell(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    let mut answer = next.run(request).await;
    let Some(standing) = *told.0.lock().unwrap_or_else(PoisonError::into_inner) else { return answer };
    let standing = format!("\"{}\";r={};t={}", standing.name, standing.remaining, standing.reset_s);
    for (name, value) in [(RATE_LIMIT, standing.as_str()), (RATE_LIMIT_POLICY, api.limits.policy())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Counts a request of somebody who is known.
pub(super) fn take(parts: &Parts, api: &Api, visitor: &Visitor) -> Result<(), ApiError> {
    take_of(parts, api, visitor.credential().hash(), visitor.tenant().user)
}

/// The same, before it is known where they are.
pub(super) fn take_of(parts: &Parts, api: &Api, credential: &str, user: UserId) -> Result<(), ApiError> {
    told(parts, api.limits.take(credential, user))
}

/// Counts it for the organisation that it is in.
pub(super) fn take_within(parts: &Parts, api: &Api, principal: &Principal) -> Result<(), ApiError> {
    told(parts, api.limits.take_within(principal.holder.org))
}

/// Counts a request of somebody whom nothing holds but where they come from: they are not known yet, or in no organisation.
pub(super) fn take_address(parts: &Parts, api: &Api) -> Result<(), ApiError> {
    by_place(parts, |address| api.limits.take_address(address))
}

/// Counts an attempt to log in with a password, by the account and by where it comes from.
pub(super) fn take_account(parts: &Parts, api: &Api, email: &str) -> Result<(), ApiError> {
    by_place(parts, |address| api.limits.take_account(email, address))
}

/// Asks the store whose a credential is, unless too many from the same place were nobody's. What was good before is always asked about.
pub(super) async fn ask<'a, T>(
    parts: &Parts,
    api: &'a Api,
    (shown, hash): (Shown, &str),
    ask: impl FnOnce() -> Answer<'a, Option<T>>,
) -> Result<T, ApiError> {
    let question = match parts.extensions.get::<Peer>() {
        Some(Peer(address)) => api.limits.ask(shown, hash, *address),
        // The server says of each connection where it comes from.
        None => Ok(Question::free()),
    };
    let question = question.map_err(|unasked| match unasked {
        Unasked::Wrong => ApiError::unauthorized(),
        Unasked::Exceeded(exceeded) => refused(parts, exceeded),
    })?;
    match ask().await {
        Ok(Some(found)) => {
            question.good();
            Ok(found)
        }
        Ok(None) => {
            question.wrong();
            Err(ApiError::unauthorized())
        }
        Err(failure) => {
            question.unanswered();
            Err(failure.into())
        }
    }
}

fn by_place(parts: &Parts, take: impl FnOnce(IpAddr) -> Result<Option<Standing>, Exceeded>) -> Result<(), ApiError> {
    match parts.extensions.get::<Peer>() {
        Some(Peer(address)) => told(parts, take(*address)),
        // The server says of each connection where it comes from.
        None => Ok(()),
    }
}

fn told(parts: &Parts, taken: Result<Option<Standing>, Exceeded>) -> Result<(), ApiError> {
    if let Some(standing) = taken.map_err(|exceeded| refused(parts, exceeded))? {
        tell_of(parts, standing);
    }
    Ok(())
}

fn tell_of(parts: &Parts, standing: Standing) {
    if let Some(Told(told)) = parts.extensions.get::<Told>() {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        // The nearest limit is the one that matters.
        if told.is_none_or(|known| standing.remaining <= known.remaining) {
            *told = Some(standing);
        }
    }
}

fn refused(parts: &Parts, exceeded: Exceeded) -> ApiError {
    let Exceeded { name, quota, retry_s } = exceeded;
    // Until there is room for one the bucket is empty; it is full a window later.
    tell_of(parts, Standing { name, remaining: 0, reset_s: WINDOW.as_secs() });
    let detail = match name {
        "address" | "account" => format!("{exceeded}; wait {retry_s} s"),
        "failures" => format!(
            "more than {quota} credentials a minute from this address are nobody's; wait {retry_s} s, and look which program there has a wrong one"
        ),
        _ => format!("{exceeded}; wait {retry_s} s, and follow GET /api/v1/events instead of asking again and again"),
    };
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(retry_s)
}
