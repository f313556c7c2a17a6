//! Errors as RFC 9457 problem documents.

use serde::{Deserialize, Serialize};

/// Body of every error, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `about:blank`: the code says what a type URI would.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable word for programs, such as `session_not_found`.
    pub code: String,
    /// One sentence for a person: what is wrong and what to do.
    pub detail: String,
    /// The id in the answer's `X-Request-Id` and in the server's log.
    pub request_id: String,
    /// The fields at fault, if the request was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Where, such as `size.cols` or `query.limit`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}
