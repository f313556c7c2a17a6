//! Records of the audit trail: as they are written, and as they are read.

use agentapi_shared::audit::{Actor, ActorKind, Entry, Personal, Seal};
use agentapi_shared::{EventId, HostId, OrgId, SessionId};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::store::Scope;

/// One entry of the audit trail, written in the transaction of the change that it tells of.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its id.
    pub id: EventId,
    /// When.
    pub at: OffsetDateTime,
    /// Such as `session.create`.
    pub action: std::borrow::Cow<'static, str>,
    /// `api`, `web`, `link` or `system`.
    pub channel: &'static str,
    /// The session it is about.
    pub session: Option<SessionId>,
    /// The host it is about.
    pub host: Option<HostId>,
    /// More, without secrets.
    pub detail: Value,
    /// Whose chain it stands in; none: the caller's or the session's organisation.
    pub org: Option<OrgId>,
    /// Who acts where neither a tenant nor a host does.
    pub job: &'static str,
    /// Names the credential of whoever acts, without giving it away.
    pub credential: Option<String>,
    /// The request that did it.
    pub request: Option<EventId>,
    /// What is personal of it: beside the text, never in it.
    pub personal: Personal,
}

impl AuditEntry {
    /// The control plane's own work.
    pub const SYSTEM: &'static str = "system";

    /// Who acts, by the scope that the store was called with.
    #[must_use]
    pub fn actor(&self, scope: &Scope) -> (ActorKind, String) {
        match scope {
            Scope::Tenant(tenant) => (ActorKind::User, tenant.user.to_string()),
            Scope::Host(host) => (ActorKind::Host, host.to_string()),
            Scope::System => (ActorKind::System, self.job.to_owned()),
        }
    }

    /// The exact text of it in the chain of `org`.
    #[must_use]
    pub fn text(&self, org: OrgId, scope: &Scope) -> String {
        let (kind, id) = self.actor(scope);
        let entry = Entry {
            id: self.id,
            org,
            at: self.at,
            action: &self.action,
            channel: self.channel,
            actor: Actor { kind, id: &id, credential: self.credential.as_deref() },
            session: self.session,
            host: self.host,
            request: self.request,
            detail: &self.detail,
        };
        entry.text()
    }

    /// As the functions of the Postgres schema take it.
    #[must_use]
    pub fn argument(&self, org: OrgId, scope: &Scope) -> Value {
        let personal = self.personal.text().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        json!({ "entry": self.text(org, scope), "personal": personal, "job": self.job })
    }
}

/// A record of the trail with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Its number, and the chain's value after it.
    pub seal: Seal,
    /// Its id.
    pub id: EventId,
    /// Its exact text.
    pub entry: String,
    /// JSON of what is personal; none: nothing, or erased.
    pub personal: Option<String>,
}

/// Which records a list shows. Only sealed ones: each has a number within a second of its writing.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only about this session.
    pub session: Option<SessionId>,
    /// Only about this host.
    pub host: Option<HostId>,
    /// Only ones that happened then or later.
    pub from: Option<OffsetDateTime>,
    /// Only ones that happened before.
    pub until: Option<OffsetDateTime>,
    /// Which way, and from where.
    pub position: AuditPosition,
    /// At most so many.
    pub limit: u32,
}

/// Which way a trail is read. The bound is not part of what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditPosition {
    /// Newest first, below a number.
    Before(u64),
    /// Oldest first, above a number.
    After(u64),
}

impl Default for AuditPosition {
    fn default() -> Self {
        Self::Before(u64::MAX)
    }
}

/// A page of the trail. It may be short, and even empty, with more to come: a page looks at so many records and no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<SealedRecord>,
    /// The last number that was looked at; none: there is nothing more that way.
    pub next: Option<u64>,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// Whose.
    pub org: OrgId,
    /// Its last place.
    pub seal: Seal,
}
