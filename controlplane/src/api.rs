//! The HTTP surface: one readable list of routes. Handlers translate; what is allowed and what follows is decided in `domain`.

mod agents;
mod api_keys;
mod audit;
mod console;
mod egress;
mod enrolments;
mod error;
mod events;
mod extract;
mod hosts;
mod limits;
mod link;
mod login;
mod members;
mod metrics;
mod openapi;
mod organizations;
mod origin;
mod principal;
mod request_id;
mod sessions;
mod sign_in;
mod stranger;
mod terminal;
mod upgrade;
mod well_known;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::organizations::Foundings;
use crate::identities::Identities;
use crate::limits::Limits;
use crate::plane::Plane;

pub use error::ApiError;
pub use metrics::router as metrics_router;
pub use origin::Site;
pub use sign_in::BACK;
pub use well_known::router as well_known_router;

/// A request body is never larger.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub std::net::IpAddr);

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    /// The control plane.
    pub plane: Arc<Plane>,
    /// Under which names browsers reach us.
    pub site: Arc<Site>,
    /// Who may found organisations.
    pub foundings: Foundings,
    /// How callers can say who they are.
    pub identities: Arc<Identities>,
    /// How many requests callers may make.
    pub limits: Arc<Limits>,
}

/// Every documented route.
fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::get, sessions::update, sessions::delete))
        .routes(routes!(sessions::restart))
        .routes(routes!(sessions::screen))
        .routes(routes!(sessions::input))
        .routes(routes!(sessions::resize))
        .routes(routes!(egress::list))
        .routes(routes!(terminal::attach))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::get, enrolments::revoke))
        .routes(routes!(enrolments::create))
        .routes(routes!(enrolments::redeem))
        .routes(routes!(enrolments::rotate))
        .routes(routes!(enrolments::confirm))
        .routes(routes!(organizations::list, organizations::create))
        .routes(routes!(organizations::get, organizations::update))
        .routes(routes!(members::list))
        .routes(routes!(members::set_role, members::remove))
        .routes(routes!(members::invitations, members::invite))
        .routes(routes!(members::revoke_invitation))
        .routes(routes!(members::look_up))
        .routes(routes!(members::accept))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(agents::list))
        .routes(routes!(events::stream))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::key))
        .routes(routes!(login::create_code))
        .routes(routes!(login::login))
        .routes(routes!(sign_in::methods))
        .routes(routes!(sign_in::password))
        .routes(routes!(sign_in::begin))
        .routes(routes!(sign_in::finish))
        .routes(routes!(login::logout))
        .routes(routes!(login::me))
        .routes(routes!(openapi::livez))
        .routes(routes!(openapi::readyz))
}

/// The whole server.
pub fn router(api: Api) -> Router {
    let (router, document) = documented().split_for_parts();
    let document: Arc<str> = openapi::to_json(&document).into();
    router
        .route("/api/v1/openapi.json", get(move || openapi::serve(document.clone())))
        .route(agentapi_shared::link::PATH, get(link::connect))
        .fallback(console::serve)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.plane.clone(), request_id::number_and_explain))
        .layer(middleware::from_fn_with_state(api.clone(), limits::tell))
        .with_state(api)
}

/// The OpenAPI document, as it is served.
#[must_use]
pub fn openapi_json() -> String {
    let (_, document) = documented().split_for_parts();
    openapi::to_json(&document)
}
