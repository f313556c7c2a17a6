//! Where an issuer's keys are found: ours, for the project that takes our tokens. Public by their nature.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use serde_json::Value;

use crate::identity::mint::Minter;

/// Far less than a new key is announced for.
const CACHED: [(http::HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=600")];

/// The two documents; part of the server where tokens of our own are made.
pub fn router(minter: Arc<Minter>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(key_set))
        .route("/.well-known/openid-configuration", get(description))
        .with_state(minter)
}

async fn key_set(State(minter): State<Arc<Minter>>) -> ([(http::HeaderName, &'static str); 1], Json<Value>) {
    (CACHED, Json(minter.key_set()))
}

async fn description(State(minter): State<Arc<Minter>>) -> ([(http::HeaderName, &'static str); 1], Json<Value>) {
    (CACHED, Json(minter.description()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_description_leads_to_the_keys() {
        let dir = std::env::temp_dir().join(format!("well-known-{}", agentapi_shared::EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        let minter = Arc::new(Minter::open(&dir.join("signing.keys"), "https://agents.example").unwrap());
        let read = async |path: &str| -> Value {
            let request = http::Request::get(path).body(Body::empty()).unwrap();
            let answer = router(minter.clone()).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.headers()[CACHE_CONTROL], "public, max-age=600");
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
        };
        let description = read("/.well-known/openid-configuration").await;
        assert_eq!(description["issuer"], "https://agents.example");
        let place = description["jwks_uri"].as_str().unwrap().strip_prefix("https://agents.example").unwrap();
        let keys = read(place).await;
        assert_eq!(keys, minter.key_set());
        // Nothing of a private key.
        let mut members: Vec<&str> = keys["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
