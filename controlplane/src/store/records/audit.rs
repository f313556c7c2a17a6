//! Records of the audit trail: as they are written, and as they are read.

use std::ops::RangeInclusive;

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

    /// What the store itself has to tell, in the name of a job: whoever asked did not know it before.
    #[must_use]
    pub fn fact(org: OrgId, job: &'static str, action: &'static str, detail: Value) -> Self {
        Self {
            id: EventId::generate(),
            at: crate::clock::now(),
            action: action.into(),
            channel: "system",
            session: None,
            host: None,
            detail,
            org: Some(org),
            job,
            credential: None,
            request: None,
            personal: Personal::default(),
        }
    }

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

impl AuditPosition {
    /// Records that a page looks at, whatever it shows of them: a filter that nothing passes must not read the whole trail.
    const LOOKED_AT_MAX: u64 = 2_000;

    /// The numbers that a page looks at, in a chain that ends at `head`; none if there are none.
    #[must_use]
    pub fn window(self, head: u64) -> Option<RangeInclusive<u64>> {
        let window = match self {
            Self::Before(number) => {
                let last = number.saturating_sub(1).min(head);
                last.saturating_sub(Self::LOOKED_AT_MAX - 1).max(1)..=last
            }
            Self::After(number) => number.saturating_add(1)..=head.min(number.saturating_add(Self::LOOKED_AT_MAX)),
        };
        (!window.is_empty()).then_some(window)
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

impl AuditPage {
    /// What was found in a [window](AuditPosition::window) of a chain that ends at `head`.
    #[must_use]
    pub fn of(records: Vec<SealedRecord>, filter: &AuditFilter, window: &RangeInclusive<u64>, head: u64) -> Self {
        let is_full = records.len() >= filter.limit as usize;
        let (looked_to, end) = match filter.position {
            AuditPosition::Before(_) => (*window.start(), 1),
            AuditPosition::After(_) => (*window.end(), head),
        };
        let reached = records.last().filter(|_| is_full).map_or(looked_to, |record| record.seal.number);
        Self { records, next: (reached != end).then_some(reached) }
    }
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// Whose.
    pub org: OrgId,
    /// Its last place.
    pub seal: Seal,
}
