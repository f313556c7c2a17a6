//! Hosts as callers see them, and where a session is placed.

use agentapi_shared::api::Host;

use crate::store::records::HostRecord;

/// A host for a caller.
#[must_use]
pub fn present(record: HostRecord, connected: bool) -> Host {
    Host {
        id: record.id,
        shared: record.org.is_none(),
        name: record.name,
        connected,
        last_seen_at: record.last_seen_at,
        version: record.version,
        facts: record.facts,
        sessions_running: record.sessions_running,
    }
}
