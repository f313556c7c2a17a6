//! Audit entries: what is written about a change, without secrets and without terminal bytes.
//!
//! Which request did it, and with which credential, is taken from [`crate::request`]; who acted is the store's scope.

use agentapi_shared::audit::{PLATFORM, Personal};
use agentapi_shared::{EventId, HostId, SessionId};
use serde_json::Value;

use crate::clock;
use crate::domain::policy::{Principal, Visitor};
use crate::request;
use crate::store::records::AuditEntry;

/// The actor of what somebody did whom nobody knows.
const ANONYMOUS: &str = "anonymous";

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

/// An entry about something that `principal` did to their organisation, or learned of it.
#[must_use]
pub fn of_organization(principal: &Principal, action: &'static str, detail: Value) -> AuditEntry {
    entry(action, principal.channel(), detail)
}

/// An entry about how `visitor` came into an organisation.
#[must_use]
pub fn of_visitor(visitor: &Visitor, action: &'static str, detail: Value) -> AuditEntry {
    entry(action, visitor.credential().channel(), detail)
}

/// An entry about something that the platform's operator did on the machine of the control plane.
#[must_use]
pub fn of_operator(action: &'static str, detail: Value) -> AuditEntry {
    AuditEntry { job: "operator", ..entry(action, "system", detail) }
}

/// The same about the platform, or about somebody who is in several organisations: it stands in the platform's chain.
#[must_use]
pub fn of_platform(action: &'static str, detail: Value) -> AuditEntry {
    AuditEntry { org: Some(PLATFORM), ..of_operator(action, detail) }
}

/// An entry about something that a job of the control plane did to a session.
#[must_use]
pub fn of_job(session: SessionId, action: &'static str, detail: Value) -> AuditEntry {
    AuditEntry { session: Some(session), ..entry(action, "system", detail) }
}

/// An entry about something that followed from what a host said.
#[must_use]
pub fn of_host(host: HostId, action: &'static str, session: Option<SessionId>, detail: Value) -> AuditEntry {
    AuditEntry { session, host: Some(host), ..entry(action, "link", detail) }
}

/// An entry about something that was refused to whoever sent the current request: in their organisation's chain, or in the platform's if
/// nobody knows them.
#[must_use]
pub fn of_refusal(detail: Value) -> AuditEntry {
    let request = request::current();
    match request.as_ref().and_then(|request| request.caller()) {
        Some(caller) => entry("request.refused", caller.channel, detail),
        None => AuditEntry { org: Some(PLATFORM), job: ANONYMOUS, ..entry("request.refused", "api", detail) },
    }
}

fn entry(action: &'static str, channel: &'static str, detail: Value) -> AuditEntry {
    let request = request::current();
    let caller = request.as_ref().and_then(|request| request.caller());
    let personal = request.as_ref().map(|request| Personal {
        name: caller.map(|caller| caller.name.clone()),
        email: None,
        ip: request.ip.map(|ip| ip.to_string()),
        user_agent: request.user_agent.clone(),
    });
    AuditEntry {
        id: EventId::generate(),
        at: clock::now(),
        action: action.into(),
        channel,
        session: None,
        host: None,
        detail,
        org: None,
        job: AuditEntry::SYSTEM,
        credential: caller.map(|caller| caller.credential.clone()),
        request: request.as_ref().map(|request| request.id),
        personal: personal.unwrap_or_default(),
    }
}
