//! Requests of somebody who is not known yet. A handler that takes a [`Stranger`] cannot be reached without being counted by where the request
//! comes from.

use axum::extract::FromRequestParts;
use http::header::ORIGIN;
use http::request::Parts;

use super::{Api, ApiError, limits};

/// See the module.
#[derive(Debug)]
pub(super) struct Stranger {
    /// What the request says.
    pub(super) parts: Parts,
}

impl FromRequestParts<Api> for Stranger {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        limits::take_address(parts, api)?;
        Ok(Self { parts: parts.clone() })
    }
}

impl Stranger {
    /// A page of another origin must not be able to log a browser in as someone else. Programs have no page.
    pub(super) fn check_page(&self, api: &Api) -> Result<(), ApiError> {
        if self.parts.headers.contains_key(ORIGIN) { api.site.check(&self.parts) } else { Ok(()) }
    }
}
