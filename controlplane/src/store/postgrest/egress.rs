//! Table `egress_decisions`.

use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{EventId, HostId, SessionId, SpawnNumber};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::filter::{Filter, Query};
use super::{Postgrest, host_of, rows};
use crate::store::records::EgressFilter;
use crate::store::{Answer, EgressStore, OutboxSeen, Scope, StoreError};

/// A page of a session's decisions. Asked of the session, so that whoever may not see it finds nothing, not an empty page.
const COLUMNS: &str = "egress_decisions(*)";

#[derive(Debug, Deserialize)]
pub(super) struct EgressOfSession {
    egress_decisions: Vec<EgressRow>,
}

#[derive(Debug, Deserialize)]
struct EgressRow {
    id: EventId,
    spawn: SpawnNumber,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    host: String,
    port: u16,
    address: Option<String>,
    verdict: EgressVerdict,
    rule: String,
    bytes_up: u64,
    bytes_down: u64,
    duration_ms: u64,
    times: u64,
}

pub(super) fn page(session: SessionId, filter: &EgressFilter) -> Query {
    Query::of("user_sessions", COLUMNS)
        .only(&Filter::eq("id", &session))
        .only_if(filter.verdict.map(|verdict| Filter::eq("egress_decisions.verdict", &verdict.as_str())))
        .only_if(filter.before.map(|before| Filter::lt("egress_decisions.id", &before)))
        .page("egress_decisions", "id.desc", filter.limit)
}

pub(super) fn decisions(
    mut found: Vec<EgressOfSession>,
    session: SessionId,
) -> Result<Vec<EgressDecision>, StoreError> {
    let found = found.pop().ok_or(StoreError::NotFound)?;
    let decision = |row: EgressRow| EgressDecision {
        id: row.id,
        session,
        spawn: row.spawn,
        at: row.created_at,
        host: row.host,
        port: row.port,
        address: row.address,
        verdict: row.verdict,
        rule: row.rule,
        bytes_up: row.bytes_up,
        bytes_down: row.bytes_down,
        duration_ms: row.duration_ms,
        times: row.times,
    };
    Ok(found.egress_decisions.into_iter().map(decision).collect())
}

/// As the function takes it. Counts beyond what the database holds are its largest.
pub(super) fn written(decision: &EgressDecision) -> Value {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    json!({
        "id": decision.id, "session": decision.session, "spawn": decision.spawn, "at": rows::time(decision.at),
        "host": decision.host, "port": decision.port, "address": decision.address, "verdict": decision.verdict,
        "rule": decision.rule, "bytes_up": count(decision.bytes_up), "bytes_down": count(decision.bytes_down),
        "duration_ms": count(decision.duration_ms), "times": count(decision.times),
    })
}

impl EgressStore for Postgrest {
    fn record_egress(&self, host: HostId, decision: EgressDecision, seen: OutboxSeen) -> Answer<'_, ()> {
        Box::pin(async move {
            let seen = seen.map(|(_, number)| number);
            self.as_service().record_egress(host, &decision, seen).await
        })
    }

    fn egress(&self, scope: Scope, session: SessionId, filter: EgressFilter) -> Answer<'_, Vec<EgressDecision>> {
        Box::pin(async move {
            match &scope {
                Scope::Tenant(tenant) => self.as_caller(tenant)?.egress(session, &filter).await,
                Scope::Host(_) | Scope::System => self.as_service().egress(host_of(&scope), session, &filter).await,
            }
        })
    }
}
