//! What operators watch, on a listener of its own: collectors have no credential, and what they read is nobody else's.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;

use super::{ApiError, error, request_id};
use crate::plane::Plane;

/// The media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole of that listener.
pub fn router(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(plane.clone(), request_id::number_and_explain))
        .with_state(plane)
}

async fn metrics(State(plane): State<Arc<Plane>>) -> Result<Response, ApiError> {
    let text = plane.metrics.text(&plane).await?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
