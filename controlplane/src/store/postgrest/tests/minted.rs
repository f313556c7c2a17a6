//! A project without a secret of ours: it takes the tokens that we sign, by the keys that we publish, and nobody else's.

use std::path::PathBuf;
use std::sync::Arc;

use agentapi_shared::EventId;
use agentapi_test_postgres::jwt;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::real::Real;
use crate::capability::Role;
use crate::identity::mint::Minter;
use crate::identity::project::ProjectKeys;
use crate::store::contract::{self, Subject};
use crate::store::records::SessionFilter;
use crate::store::{Store, StoreError};
use crate::stores::Stores;

const OURS: &str = "https://agents.example";

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("minted-{}", EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn minter(&self, name: &str) -> Arc<Minter> {
        Arc::new(Minter::open(&self.0.join(name), OURS).unwrap())
    }

    async fn store(&self, url: &str, minter: Option<Arc<Minter>>) -> Result<Arc<dyn Store>> {
        let service = jwt::signed(&jwt::service_claims(), jwt::SECRET);
        let keys = ProjectKeys::open(|name| match name {
            "SUPABASE_REST_URL" => Some(url.to_owned()),
            "SUPABASE_SERVICE_ROLE_KEY" => Some(service.clone()),
            _ => None,
        })?;
        Ok(Stores::open(&self.0, keys, minter).await?.store())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// What a project verifies tokens with that has a secret and takes another issuer.
fn with_secret(mut keys: Value) -> String {
    let secret = json!({ "kty": "oct", "alg": "HS256", "kid": "secret", "k": URL_SAFE_NO_PAD.encode(jwt::SECRET) });
    keys["keys"].as_array_mut().unwrap().push(secret);
    keys.to_string()
}

#[tokio::test]
async fn the_contract_holds_with_tokens_of_our_own() -> Result<()> {
    let (dir, mut real) = (Dir::new(), Real::start().await?);
    let minter = dir.minter("signing.keys");
    real.cluster.keys = with_secret(minter.key_set());
    real.cluster.serve("agentapi").await?;
    let store = dir.store(&real.cluster.url, Some(minter)).await?;
    let [ours, theirs] = [real.owner().await?, real.member().await?];
    let colleague = real.person(ours.org, agentapi_shared::UserId::generate(), Role::Member).await?;
    contract::run(&Subject { store, ours: ours.clone(), theirs, colleague }).await;

    // Tokens of an issuer that the project does not know, by whatever name; and none at all.
    let stranger = dir.store(&real.cluster.url, Some(dir.minter("other.keys"))).await?;
    let refused = stranger.sessions(ours.clone(), page()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoCallerToken), "{refused:?}");
    let mute = dir.store(&real.cluster.url, None).await?;
    let refused = mute.sessions(ours.clone(), page()).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::NoCallerToken) && refused.to_string().contains("--public-url"),
        "{refused:?}"
    );
    let known = dir.store(&real.cluster.url, Some(dir.minter("signing.keys"))).await?;
    known.sessions(ours, page()).await?;
    Ok(())
}

fn page() -> SessionFilter {
    SessionFilter { limit: 10, ..SessionFilter::default() }
}
