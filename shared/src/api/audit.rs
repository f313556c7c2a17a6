//! Records of the audit trail, as the API lists them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One record with its place in the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRecord {
    /// Its number in the organisation's trail, from 1 without gaps.
    pub number: u64,
    /// The chain's value after it, in hexadecimal.
    pub hash: String,
    /// What is recorded; its text is what is hashed, to the byte.
    #[cfg_attr(feature = "openapi", schema(value_type = AuditEntryFields))]
    pub entry: Box<RawValue>,
    /// Names and addresses of the actor, which may be erased; null if there are none, or none any more.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<AuditPersonal>))]
    pub personal: Option<Box<RawValue>>,
}

/// The fields of a record.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntryFields {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: String,
    /// Whose trail.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub org_id: String,
    /// When it happened, RFC 3339 in UTC.
    pub at: String,
    /// Such as `session.create`.
    pub action: String,
    /// `api`, `web`, `link`, `system` or `database`.
    pub channel: String,
    /// Who.
    pub actor: AuditActor,
    /// To which session.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub session_id: Option<String>,
    /// On which host.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub host_id: Option<String>,
    /// The request that did it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub request_id: Option<String>,
    /// More, by action.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub detail: serde_json::Value,
}

/// Who acted.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditActor {
    /// `user`, `host`, `system` or `database`.
    pub kind: String,
    /// Id of the user or host, or the name of a job or role.
    pub id: String,
    /// Tells credentials of one actor apart.
    #[serde(default)]
    pub credential: Option<String>,
}

/// What is personal of an actor.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPersonal {
    /// Their name.
    #[serde(default)]
    pub name: Option<String>,
    /// Their address.
    #[serde(default)]
    pub email: Option<String>,
    /// Where the request came from.
    #[serde(default)]
    pub ip: Option<String>,
    /// What their client says of itself.
    #[serde(default)]
    pub user_agent: Option<String>,
}

/// Answer of `GET /api/v1/audit/key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditKey {
    /// Its short name, as checkpoints have it.
    pub key_id: String,
    /// `ed25519:` and base64: for `agentapi audit verify --key`.
    pub public_key: String,
}
