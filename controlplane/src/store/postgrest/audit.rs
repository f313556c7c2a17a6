//! Tables `audit_logs`, `audit_seals` and `audit_personal`: what stands for itself, and how the trail is read. What goes with a change is written
//! by the function that makes the change.

use std::ops::RangeInclusive;

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::audit::{ChainHash, PLATFORM, Seal};
use agentapi_shared::{EventId, OrgId};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::filter::{Filter, Query};
use super::{Postgrest, host_of};
use crate::store::records::{
    AuditEntry, AuditFilter, AuditHead, AuditPage, AuditPosition, SealedRecord, TenantContext,
};
use crate::store::{Answer, AuditStore, OutboxSeen, Scope, SessionStore as _, StoreError};

/// A place of a chain, with its record.
#[derive(Debug, Deserialize)]
pub(super) struct SealRow {
    seq: u64,
    /// `\\x` and hexadecimal digits.
    hash: String,
    audit_logs: RecordRow,
}

#[derive(Debug, Deserialize)]
struct RecordRow {
    id: EventId,
    entry: String,
    audit_personal: Option<PersonalRow>,
}

#[derive(Debug, Deserialize)]
struct PersonalRow {
    data: Value,
}

/// A chain's end.
#[derive(Debug, Deserialize)]
pub(super) struct HeadRow {
    org_id: OrgId,
    seq: u64,
    hash: ChainHash,
}

impl HeadRow {
    pub(super) const COLUMNS: &'static str = "org_id,seq,hash";

    pub(super) fn org(&self) -> OrgId {
        self.org_id
    }
}

impl TryFrom<SealRow> for SealedRecord {
    type Error = StoreError;

    fn try_from(row: SealRow) -> Result<Self, StoreError> {
        let hash = row.hash.trim_start_matches("\\x").parse();
        let hash = hash.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        Ok(Self {
            seal: Seal { number: row.seq, hash },
            id: row.audit_logs.id,
            entry: row.audit_logs.entry,
            personal: row.audit_logs.audit_personal.map(|personal| personal.data.to_string()),
        })
    }
}

impl Postgrest {
    /// In whose chain a host speaks: in that of whose it is, and in the platform's if it is shared.
    async fn org_of_host(&self, scope: &Scope) -> Result<OrgId, StoreError> {
        let Scope::Host(host) = scope else { return Ok(PLATFORM) };
        match self.as_service().host(*host).await {
            Ok(row) => Ok(row.org().unwrap_or(PLATFORM)),
            Err(StoreError::NotFound) => Ok(PLATFORM),
            Err(other) => Err(other),
        }
    }
}

impl AuditStore for Postgrest {
    fn audit(&self, scope: Scope, entry: AuditEntry, seen: OutboxSeen) -> Answer<'_, ()> {
        Box::pin(async move {
            // What is about nobody's organisation is the control plane's to say, whoever is asking.
            if let (Scope::Tenant(tenant), None) = (&scope, entry.org) {
                let audit = entry.argument(tenant.org, &scope);
                return self.as_caller(tenant)?.record_audit(audit).await;
            }
            let org = match (entry.org, entry.session) {
                (Some(org), _) => org,
                (None, None) => self.org_of_host(&scope).await?,
                // A host speaks for sessions that are placed on it.
                (None, Some(session)) => match self.session(scope.clone(), session).await {
                    Ok(record) => record.org,
                    Err(StoreError::NotFound) => self.org_of_host(&scope).await?,
                    Err(other) => return Err(other),
                },
            };
            let audit = entry.argument(org, &scope);
            self.as_service().record_audit(org, host_of(&scope), audit, seen.map(|(_, number)| number)).await
        })
    }

    fn audit_written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    fn seal_audit(&self, max: u32) -> Answer<'_, u64> {
        Box::pin(async move { self.as_service().seal_audit(max).await })
    }

    fn audit_heads(&self) -> Answer<'_, Vec<AuditHead>> {
        Box::pin(async move {
            let heads = self.as_service().audit_heads().await?;
            let head = |row: HeadRow| AuditHead { org: row.org_id, seal: Seal { number: row.seq, hash: row.hash } };
            Ok(heads.into_iter().map(head).collect())
        })
    }

    fn audit_records(&self, tenant: TenantContext, filter: AuditFilter) -> Answer<'_, AuditPage> {
        Box::pin(async move {
            let caller = self.as_caller(&tenant)?;
            let head = caller.audit_head().await?;
            let Some(window) = filter.position.window(head) else { return Ok(AuditPage::default()) };
            let found = caller.audit_records(&page(&filter, &window)).await?;
            page_of(found, &filter, &window, head)
        })
    }
}

/// What was found, as it is given.
pub(super) fn page_of(
    found: Vec<SealRow>,
    filter: &AuditFilter,
    window: &RangeInclusive<u64>,
    head: u64,
) -> Result<AuditPage, StoreError> {
    let records = found.into_iter().map(SealedRecord::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(AuditPage::of(records, filter, window, head))
}

pub(super) fn page(filter: &AuditFilter, window: &RangeInclusive<u64>) -> Query {
    const COLUMNS: &str = "seq,hash,audit_logs!inner(id,entry,audit_personal(data))";
    let order = match filter.position {
        AuditPosition::Before(_) => "seq.desc",
        AuditPosition::After(_) => "seq.asc",
    };
    Query::of("audit_seals", COLUMNS)
        .only(&Filter::all(vec![Filter::gte("seq", window.start()), Filter::lte("seq", window.end())]))
        .only_if(filter.actor.as_ref().map(|actor| Filter::eq("audit_logs.created_by", actor)))
        .only_if(filter.action.as_ref().map(|action| Filter::eq("audit_logs.action", action)))
        .only_if(filter.session.map(|session| Filter::eq("audit_logs.session_id", &session)))
        .only_if(filter.host.map(|host| Filter::eq("audit_logs.host_id", &host)))
        .only_if(filter.from.map(|at| Filter::gte("audit_logs.created_at", &time_text(at))))
        .only_if(filter.until.map(|at| Filter::lt("audit_logs.created_at", &time_text(at))))
        .page("", order, filter.limit)
}
