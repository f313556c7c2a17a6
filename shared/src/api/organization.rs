//! Organisations: settings, members, invitations, API keys, and machines that become hosts.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::SandboxPolicy;
use crate::id::{ApiKeyId, HostId, InvitationId, OrgId, UserId};

/// Characters in the name of an organisation, an API key or a host.
pub const ORGANIZATION_NAME_CHARS_MAX: usize = 128;
/// Characters of a mail address.
pub const EMAIL_CHARS_MAX: usize = 320;
/// The shortest time after which sessions are stopped: shorter ones would end what somebody just started.
pub const EXPIRY_SECONDS_MIN: u64 = 60;
/// The longest.
pub const EXPIRY_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// The longest that ended sessions are kept by a setting.
pub const RETENTION_DAYS_MAX: u32 = 3660;
/// An invitation is good for this long when nobody says otherwise.
pub const INVITATION_SECONDS: u64 = 7 * 24 * 3600;
/// It is never good for longer.
pub const INVITATION_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// An enrolment token is good for this long when nobody says otherwise.
pub const ENROLMENT_SECONDS: u64 = 3600;
/// It is never good for longer: it is meant for a machine that is set up now.
pub const ENROLMENT_SECONDS_MAX: u64 = 24 * 3600;
/// Live API keys of one person under one name: the one in use, and the one that takes its place.
pub const API_KEYS_PER_NAME_MAX: u32 = 2;

/// What an organisation wants of all its sessions; what is absent has no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OrganizationSettings {
    /// A session that nobody watched, typed into or changed for so long is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_idle_seconds_max: Option<u64>,
    /// A spawn that is older is stopped, whatever it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_age_seconds_max: Option<u64>,
    /// A session that ended so long ago is purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_retention_days: Option<u32>,
    /// Only these agents; `custom` for commands of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
    /// What sandboxes may be. It holds for what is started from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxPolicy>,
}

impl OrganizationSettings {
    /// What was stored. What is not known here was stored by a newer release, or by hand, and means nothing here; but a policy for sandboxes
    /// that cannot be read allows none.
    #[must_use]
    pub fn from_stored(stored: serde_json::Value) -> Self {
        const KNOWN: [&str; 4] =
            ["session_idle_seconds_max", "session_age_seconds_max", "session_retention_days", "agents"];
        let serde_json::Value::Object(mut fields) = stored else { return Self::default() };
        let sandbox = fields.remove("sandbox").filter(|policy| !policy.is_null()).map(SandboxPolicy::from_stored);
        fields.retain(|name, value| {
            let alone = serde_json::Value::Object([(name.clone(), value.clone())].into_iter().collect());
            KNOWN.contains(&name.as_str()) && serde_json::from_value::<Self>(alone).is_ok()
        });
        let rest: Self = serde_json::from_value(serde_json::Value::Object(fields)).unwrap_or_default();
        Self { sandbox, ..rest }
    }
}

/// How much an organisation may have; null: no limit. The platform sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quotas {
    /// Sessions that live at once.
    pub sessions_max: Option<u32>,
    /// Sessions made on one day, in UTC.
    pub sessions_per_day_max: Option<u32>,
    /// Terminals attached at once.
    pub viewers_max: Option<u32>,
}

/// An organisation that the caller is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Organization {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: OrgId,
    /// For people.
    pub name: String,
    /// The caller's role in it.
    pub role: String,
    /// Whether the request is in it.
    pub current: bool,
    /// What it wants of sessions.
    pub settings: OrganizationSettings,
    /// How much it may have.
    pub quotas: Quotas,
    /// Rises with each change.
    pub revision: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Body of `POST /api/v1/organizations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// For people; 1 to 128 characters.
    pub name: String,
}

/// Body of `PATCH /api/v1/organizations/{org}`; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateOrganization {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New settings, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<OrganizationSettings>,
    /// The revision that the change was made from: 409 `conflict` if there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Somebody in an organisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Who.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub user_id: UserId,
    /// Their name.
    pub name: Option<String>,
    /// Their mail address.
    pub email: Option<String>,
    /// Their role.
    pub role: String,
    /// Whether they were shut out.
    pub disabled: bool,
    /// Since when they are in.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Body of `PATCH /api/v1/members/{user}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetMemberRole {
    /// `owner`, `admin`, `member`, `viewer`, `auditor` or `service_account`.
    pub role: String,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invitation {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: InvitationId,
    /// Whom it is for.
    pub email: String,
    /// The role it gives.
    pub role: String,
    /// `open`, `accepted`, `revoked` or `expired`.
    pub state: String,
    /// Who invited.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub created_by: UserId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Body of `POST /api/v1/invitations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateInvitation {
    /// Whom it is for: only whoever shows that this address is theirs can accept.
    pub email: String,
    /// The role it gives: any but `service_account`.
    pub role: String,
    /// For so long; a week if absent, at most 30 days.
    #[cfg_attr(feature = "openapi", schema(minimum = 60, maximum = 2592000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// Answer of `POST /api/v1/invitations`; the only time that the token is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvitationLink {
    /// The invitation.
    pub invitation: Invitation,
    /// What accepts it.
    pub token: String,
    /// The console with organisation and token in the fragment, which browsers do not send.
    pub url: String,
}

/// Body of `POST /api/v1/invitations/accept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptInvitation {
    /// The organisation that invited.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub organization_id: OrgId,
    /// From the link.
    pub token: String,
}

/// What an invitation is to, for whoever holds its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvitedTo {
    /// The organisation's name.
    pub organization: String,
    /// The role that it gives.
    pub role: String,
    /// When the link ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// An API key; the key itself is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKey {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: ApiKeyId,
    /// For people; the same for a key and the one that takes its place.
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// In whose name it acts.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub user_id: UserId,
    /// What it is for, beside reading; empty: all that its user may.
    pub scopes: Vec<KeyScope>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Until when it is good; null: until it is revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    /// The key that it was made with, and ends with; null: a person made it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub made_by: Option<ApiKeyId>,
}

/// What an API key is for. Each may read all that its user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Look, and change nothing.
    Read,
    /// Make, change and type into sessions.
    Sessions,
    /// Settings, members, keys and hosts.
    Organization,
}

impl KeyScope {
    /// The word of it, everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Sessions => "sessions",
            Self::Organization => "organization",
        }
    }
}

/// Body of `POST /api/v1/api-keys`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// For people; 1 to 128 characters. Two live keys of yours may have the same name.
    pub name: String,
    /// `read`, `sessions`, `organization`; absent or empty: all that you may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<KeyScope>,
    /// For so long, at most 366 days; absent: until it is revoked.
    #[cfg_attr(feature = "openapi", schema(minimum = 60, maximum = 31622400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// Answer of `POST /api/v1/api-keys`; the only time that the key is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewApiKey {
    /// What is kept of it.
    pub api_key: ApiKey,
    /// The key.
    pub key: String,
}

/// Body of `POST /api/v1/host-enrolments`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateHostEnrolment {
    /// The name that the host will have; 1 to 128 characters.
    pub name: String,
    /// For so long; an hour if absent, at most 24 hours.
    #[cfg_attr(feature = "openapi", schema(minimum = 60, maximum = 86400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// Answer of `POST /api/v1/host-enrolments`; the only time that the token is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostEnrolment {
    /// What one machine becomes a host with, once.
    pub token: String,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Body of `POST /api/v1/host-enrolments/redeem`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedeemHostEnrolment {
    /// The enrolment token.
    pub token: String,
}

/// A host's credential; shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostCredential {
    /// The host.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub host_id: HostId,
    /// What it proves itself with.
    pub token: String,
}

/// One organisation of `GET /api/v1/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Membership {
    /// The organisation.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub organization_id: OrgId,
    /// Its name.
    pub organization: String,
    /// The caller's role in it.
    pub role: String,
}
