//! Audit entries: what is written about a change, without secrets and without terminal bytes.

use agentapi_shared::{EventId, HostId, SessionId};
use serde_json::Value;

use crate::clock;
use crate::domain::policy::Principal;
use crate::store::records::AuditEntry;

/// An entry about something that `principal` did to a session.
#[must_use]
pub fn of_session(principal: &Principal, action: &'static str, session: SessionId, detail: Value) -> AuditEntry {
    AuditEntry { session: Some(session), ..entry(action, principal.channel(), detail) }
}

/// An entry about something that `principal` did to their account.
#[must_use]
pub fn of_account(channel: &'static str, action: &'static str) -> AuditEntry {
    entry(action, channel, Value::Null)
}

/// An entry about something that followed from what a host said.
#[must_use]
pub fn of_host(host: HostId, action: &'static str, session: Option<SessionId>, detail: Value) -> AuditEntry {
    AuditEntry { session, host: Some(host), ..entry(action, "link", detail) }
}

fn entry(action: &'static str, channel: &'static str, detail: Value) -> AuditEntry {
    AuditEntry {
        id: EventId::generate(),
        at: clock::now(),
        action: action.into(),
        channel,
        session: None,
        host: None,
        detail,
    }
}
