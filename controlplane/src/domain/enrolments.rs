//! How a machine becomes a host of an organisation, how its credential is changed, and how it ends.

use agentapi_shared::HostId;
use agentapi_shared::api::{CreateHostEnrolment, ENROLMENT_SECONDS, HostCredential, HostEnrolment};
use serde_json::{Value, json};
use time::Duration;

use super::policy::{self, Action, Principal};
use super::{DomainError, audit, validate};
use crate::auth::{HOST_TOKEN_PREFIX, Secret};
use crate::clock;
use crate::plane::Plane;
use crate::sockets::Who;
use crate::store::StoreError;
use crate::store::records::{AuditEntry, NewEnrolment, Rotation};

/// Prefix of an enrolment's token, so that scanners of leaked secrets know it.
const TOKEN_PREFIX: &str = "aae_";

/// After a host first used its new credential, the one before is good for so long: what is under way with it ends by itself.
const CHANGE_OVER: Duration = Duration::minutes(10);

const NO_HOST: (&str, &str) = ("host_not_found", "host");

/// Makes a token that one machine may become a host with.
pub async fn create(
    plane: &Plane,
    principal: &Principal,
    request: CreateHostEnrolment,
) -> Result<HostEnrolment, DomainError> {
    policy::check(principal, Action::HostManage)?;
    validate::enrolment(&request)?;
    let token = Secret::generate(TOKEN_PREFIX);
    let expires_at = validate::later(clock::now(), request.expires_in_seconds.unwrap_or(ENROLMENT_SECONDS));
    let entry = audit::of_organization(principal, "host_enrolment.create", json!({ "name": request.name }));
    let made_by = principal.made_by();
    let new = NewEnrolment { hash: token.hash(), name: request.name, expires_at, made_by };
    plane.store.create_host_enrolment(principal.tenant(), new, entry).await?;
    Ok(HostEnrolment { token: token.expose().to_owned(), expires_at })
}

/// Takes a token and makes a host of whoever brings it; none if the token is unknown, used or over.
pub async fn redeem(plane: &Plane, token: String) -> Result<Option<HostCredential>, DomainError> {
    let (host, credential) = (HostId::generate(), Secret::generate(HOST_TOKEN_PREFIX));
    let hash = Secret::from_text(token).hash();
    let org = plane.store.redeem_host_enrolment(hash, host, credential.hash(), clock::now()).await?;
    Ok(org.map(|_| HostCredential { host_id: host, token: credential.expose().to_owned() }))
}

/// Gives a host a new credential in place of the one it came with, which stays good until the new one was used.
pub async fn rotate(plane: &Plane, host: HostId, shown: String) -> Result<HostCredential, DomainError> {
    let credential = Secret::generate(HOST_TOKEN_PREFIX);
    let entry = audit::of_host(host, "host.rotate", None, Value::Null);
    let rotation = Rotation { shown, new: credential.hash(), others_end_at: clock::now() + CHANGE_OVER };
    let rotated = plane.store.rotate_host_credential(host, rotation, entry).await;
    rotated.map_err(|error| DomainError::of(NO_HOST, error))?;
    Ok(HostCredential { host_id: host, token: credential.expose().to_owned() })
}

/// A host uses this credential: it has it, and needs those before no longer.
pub async fn confirm(plane: &Plane, credential_hash: String) -> Result<(), DomainError> {
    Ok(plane.store.confirm_host_credential(credential_hash, clock::now() + CHANGE_OVER).await?)
}

/// Ends a host of the organisation: its link closes, and its credentials are good no longer.
pub async fn revoke(plane: &Plane, principal: &Principal, host: HostId) -> Result<(), DomainError> {
    // One that serves everybody is seen, and the platform's; what is not seen does not exist.
    let hosts = plane.store.hosts(principal.tenant()).await?;
    let found = hosts.iter().find(|found| found.id == host);
    let found = found.ok_or_else(|| DomainError::of(NO_HOST, StoreError::NotFound))?;
    policy::check(principal, Action::HostManage)?;
    if found.org.is_none() {
        return Err(DomainError::Forbidden);
    }
    let entry = AuditEntry { host: Some(host), ..audit::of_organization(principal, "host.revoke", Value::Null) };
    let revoked = plane.store.revoke_host(principal.tenant(), host, entry).await;
    revoked.map_err(|error| DomainError::of(NO_HOST, error))?;
    plane.sockets.revoke(|owner| owner.who == Who::Host(host));
    Ok(())
}
