//! The one place where errors become answers. Every error is a problem document (RFC 9457); its request id is added on the way out.

use agentapi_shared::api::{FieldError, Problem};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tracing::error;

use crate::domain::DomainError;
use crate::domain::logins::LogInError;
use crate::identity::login::{LoginError, RefreshError};
use crate::store::StoreError;
use crate::store::records::Replay;

/// When a caller may try again what the server could not do.
const RETRY_AFTER_SECONDS: u64 = 2;

/// An error as callers see it. `domain` errors convert into it; use the constructors for what only HTTP knows.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// An error with a status, a stable code and a sentence.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let retry = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::GATEWAY_TIMEOUT;
        let retry_after_s = retry.then_some(RETRY_AFTER_SECONDS);
        Self { status, code: code.to_owned(), detail: detail.into(), errors: Vec::new(), retry_after_s }
    }

    /// One that is worth another try after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// 400 for a request that cannot be read, or 422 for one that can but makes no sense.
    #[must_use]
    pub fn fields(status: StatusCode, code: &str, errors: Vec<FieldError>) -> Self {
        let detail = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>();
        Self { errors, ..Self::new(status, code, detail.join("; ")) }
    }

    /// 401: no credential, or one that is not known.
    #[must_use]
    pub fn unauthorized() -> Self {
        let detail = "pass `Authorization: Bearer TOKEN`, or log in with a link from `agentapi open`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The document, without its request id.
    pub(super) fn problem(&self, request_id: &str) -> Problem {
        Problem {
            type_uri: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.clone(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// The answer, with its request id.
    pub(super) fn answer(&self, request_id: &str) -> Response {
        let body = serde_json::to_string(&self.problem(request_id)).unwrap_or_default();
        let mut answer = (self.status, body).into_response();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }

    /// What an answer that the framework made means.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "this path does not take this method; see `Allow`")
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is larger than 1 MiB"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "send JSON, with `Content-Type: application/json`")
            }
            status if status.is_client_error() => ("bad_request", "the request cannot be read"),
            _ => ("internal", "something went wrong here; the log has more under this request id"),
        };
        Self::new(status, code, detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut answer = self.status.into_response();
        // The middleware that knows the request id makes the document of it.
        answer.extensions_mut().insert(self);
        answer
    }
}

/// The answer to a known path with another method; the router adds `Allow`.
pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Headers of an answer that a problem document keeps.
pub(super) const KEPT_HEADERS: [http::HeaderName; 1] = [ALLOW];

impl From<DomainError> for ApiError {
    fn from(failure: DomainError) -> Self {
        use StatusCode as S;
        let detail = failure.to_string();
        match failure {
            DomainError::SessionNotFound => Self::new(S::NOT_FOUND, "session_not_found", detail),
            DomainError::HostNotFound => Self::new(S::NOT_FOUND, "host_not_found", detail),
            DomainError::SpawnNotFound(_) => Self::new(S::NOT_FOUND, "spawn_not_found", detail),
            DomainError::Forbidden => Self::new(S::FORBIDDEN, "forbidden", detail),
            DomainError::Invalid(errors) => Self::fields(S::UNPROCESSABLE_ENTITY, "invalid_request", errors),
            DomainError::Conflict { code, detail } => Self::new(S::CONFLICT, code, detail),
            DomainError::Idempotency(Replay::Mismatch) => Self::new(
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was used for another request; use a new one for each request",
            ),
            DomainError::Idempotency(_) => Self::new(
                S::CONFLICT,
                "idempotency_in_flight",
                "the first request with this Idempotency-Key is still at work, or its outcome was lost",
            ),
            DomainError::HostUnreachable => Self::new(S::SERVICE_UNAVAILABLE, "host_unreachable", detail),
            DomainError::HostTimeout => Self::new(S::GATEWAY_TIMEOUT, "host_timeout", detail),
            DomainError::Busy(_) => Self::new(S::SERVICE_UNAVAILABLE, "busy", detail),
            DomainError::Host(refused) => of_host(&refused),
            DomainError::NotFound { code, .. } => Self::new(S::NOT_FOUND, code, detail),
            DomainError::Quota { code, detail } => Self::new(S::TOO_MANY_REQUESTS, code, detail),
            DomainError::Unfit { code, detail } => Self::new(S::FORBIDDEN, code, detail),
            DomainError::Store(error) => of_store(&error),
        }
    }
}

impl From<LogInError> for ApiError {
    fn from(failure: LogInError) -> Self {
        use StatusCode as S;
        let detail = failure.to_string();
        match failure {
            LogInError::Off => Self::new(S::NOT_FOUND, "login_not_offered", detail),
            LogInError::ShutOut => Self::new(S::FORBIDDEN, "user_disabled", detail),
            LogInError::NoOrganization => Self::new(S::FORBIDDEN, "no_organization", detail),
            LogInError::Unconfirmed => Self::new(S::FORBIDDEN, "address_not_confirmed", detail),
            LogInError::Invitation => Self::new(S::FORBIDDEN, "invitation_refused", detail),
            LogInError::Store(error) => of_store(&error),
            LogInError::Login(failure) => of_login(&failure),
        }
    }
}

impl From<RefreshError> for ApiError {
    fn from(failure: RefreshError) -> Self {
        use StatusCode as S;
        let detail = failure.to_string();
        match failure {
            RefreshError::Over => Self::new(S::UNAUTHORIZED, "login_over", detail),
            RefreshError::Busy | RefreshError::Ending => Self::new(S::SERVICE_UNAVAILABLE, "busy", detail),
            RefreshError::Login(failure) => of_login(&failure),
            RefreshError::Store(error) => of_store(&error),
        }
    }
}

/// What an issuer, or its token, came to. Only what is nobody's fault here is logged.
fn of_login(failure: &LoginError) -> ApiError {
    use StatusCode as S;
    let detail = failure.to_string();
    match failure {
        LoginError::Refused => ApiError::new(S::UNAUTHORIZED, "invalid_password", detail),
        LoginError::Unconfirmed => ApiError::new(S::FORBIDDEN, "address_not_confirmed", detail),
        LoginError::TooMany => ApiError::new(S::TOO_MANY_REQUESTS, "too_many_logins", detail),
        LoginError::Over => ApiError::new(S::UNAUTHORIZED, "login_over", detail),
        LoginError::NotBegun => ApiError::new(S::BAD_REQUEST, "login_not_begun", detail),
        LoginError::Issuer { .. } => ApiError::new(S::FORBIDDEN, "issuer_refused", detail),
        LoginError::Token(error) if !error.is_unavailable() => {
            ApiError::new(S::UNAUTHORIZED, "invalid_token", error.to_string())
        }
        LoginError::Token(_) | LoginError::Unavailable(_) | LoginError::Description { .. } | LoginError::Seal(_) => {
            error!(error = agentapi_shared::runtime::chain(failure), "a login failed");
            ApiError::new(S::SERVICE_UNAVAILABLE, "issuer_unavailable", detail)
        }
    }
}

fn of_host(refused: &agentapi_shared::link::CommandError) -> ApiError {
    use StatusCode as S;
    let (status, code) = match refused.code.as_str() {
        "not_found" => (S::NOT_FOUND, "not_on_host"),
        "not_running" => (S::CONFLICT, "session_not_running"),
        "already_running" | "stale_generation" => (S::CONFLICT, "conflict"),
        "invalid" => (S::UNPROCESSABLE_ENTITY, "invalid_request"),
        "input_full" => (S::SERVICE_UNAVAILABLE, "input_full"),
        "refused" => (S::CONFLICT, "host_refused"),
        "busy" => (S::SERVICE_UNAVAILABLE, "busy"),
        "timeout" => (S::GATEWAY_TIMEOUT, "host_timeout"),
        _ => (S::BAD_GATEWAY, "host_failed"),
    };
    ApiError::new(status, code, refused.detail.clone())
}

fn of_store(failure: &StoreError) -> ApiError {
    use StatusCode as S;
    let detail = failure.to_string();
    match failure {
        StoreError::NotFound => {
            ApiError::new(S::NOT_FOUND, "not_found", "there is nothing of this name that you can see")
        }
        StoreError::Forbidden => ApiError::new(S::FORBIDDEN, "forbidden", "your role does not allow this"),
        StoreError::Unauthenticated => ApiError::unauthorized(),
        StoreError::NoCallerToken => ApiError::new(S::NOT_IMPLEMENTED, "no_caller_tokens", detail),
        StoreError::Quota(word) => ApiError::new(S::TOO_MANY_REQUESTS, word, detail),
        StoreError::Refused(word) => ApiError::new(S::CONFLICT, word, detail),
        StoreError::Stale => ApiError::new(S::CONFLICT, "conflict", detail),
        StoreError::Unavailable(_) => {
            error!(error = failure as &dyn std::error::Error, source = ?std::error::Error::source(failure), "store");
            ApiError::new(
                S::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "the store does not answer; try again in a moment",
            )
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(failure: StoreError) -> Self {
        of_store(&failure)
    }
}
