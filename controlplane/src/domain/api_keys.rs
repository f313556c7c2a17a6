//! What callers do with API keys: see them, make them for themselves, end them.

use agentapi_shared::ApiKeyId;
use agentapi_shared::api::{ApiKey, CreateApiKey, NewApiKey};
use serde_json::json;

use super::policy::{self, Action, Principal};
use super::{DomainError, audit, validate};
use crate::clock;
use crate::identity::api_key;
use crate::plane::Plane;
use crate::sockets::Who;
use crate::store::records::{self, ApiKeyRecord, MadeByKey};

const NO_KEY: (&str, &str) = ("api_key_not_found", "API key");

/// One's own, or everybody's for whoever manages keys.
pub async fn list(plane: &Plane, principal: &Principal) -> Result<Vec<ApiKey>, DomainError> {
    policy::check(principal, Action::ApiKeyView)?;
    let found = plane.store.api_keys(principal.tenant()).await?;
    Ok(found.into_iter().map(present).collect())
}

/// Makes one that acts in the caller's name.
pub async fn create(plane: &Plane, principal: &Principal, request: CreateApiKey) -> Result<NewApiKey, DomainError> {
    policy::check(principal, Action::ApiKeyCreate)?;
    validate::api_key(&request)?;
    // A key makes no key that is for more than itself.
    let own = principal.holder.key.as_ref().map_or(&[][..], |key| &key.scopes);
    let wider = request.scopes.is_empty() || request.scopes.iter().any(|scope| !own.contains(scope));
    if !own.is_empty() && wider {
        return Err(DomainError::Forbidden);
    }
    // Nor one that is good for longer.
    let until = principal.holder.key.as_ref().and_then(|key| key.expires_at);
    let (id, key, now) = (ApiKeyId::generate(), api_key::ApiKey::generate(), clock::now());
    let new = records::NewApiKey {
        id,
        name: request.name,
        prefix: key.shown().to_owned(),
        hash: key.hash(),
        scopes: request.scopes,
        expires_at: [request.expires_in_seconds.map(|seconds| validate::later(now, seconds)), until]
            .into_iter()
            .flatten()
            .min(),
        made_by: principal.made_by(),
    };
    let made = ApiKeyRecord {
        id,
        user: principal.holder.user,
        name: new.name.clone(),
        prefix: new.prefix.clone(),
        scopes: new.scopes.clone(),
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
        made_by: new.made_by,
    };
    let entry = audit::of_organization(principal, "api_key.create", json!({ "api_key": id, "scopes": new.scopes }));
    let created = plane.store.create_api_key(principal.tenant(), new, entry).await;
    created.map_err(|error| DomainError::of(NO_KEY, error))?;
    Ok(NewApiKey { api_key: present(made), key: key.expose().to_owned() })
}

/// Ends one, what was opened with it, and, unless that is to stay, what was made with it.
pub async fn revoke(plane: &Plane, principal: &Principal, id: ApiKeyId, made: MadeByKey) -> Result<(), DomainError> {
    policy::check(principal, Action::ApiKeyRevoke)?;
    let stays = (made == MadeByKey::Stays).then_some("stays");
    let entry = audit::of_organization(principal, "api_key.revoke", json!({ "api_key": id, "made": stays }));
    let revoked = plane.store.revoke_api_key(principal.tenant(), id, made, entry).await;
    revoked.map_err(|error| DomainError::of(NO_KEY, error))?;
    plane.sockets.revoke(|owner| matches!(owner.who, Who::Member { key: Some(key), .. } if key == id));
    // What was opened with what it had made is found by looking.
    plane.credentials_changed.send_replace(());
    Ok(())
}

fn present(record: ApiKeyRecord) -> ApiKey {
    ApiKey {
        id: record.id,
        name: record.name,
        prefix: record.prefix,
        user_id: record.user,
        scopes: record.scopes,
        created_at: record.created_at,
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
        last_used_at: record.last_used_at,
        made_by: record.made_by,
    }
}
