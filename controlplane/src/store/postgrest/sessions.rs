//! Tables `user_sessions` and `spawns`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use agentapi_shared::api::SandboxPolicy;
use agentapi_shared::{HostId, OrgId, SessionId};

use super::callers::CreatedRow;
use super::client::{Client, Name};
use super::filter::{Filter, Query};
use super::rows::{self, SESSION_COLUMNS, SessionRow};
use super::{Postgrest, host_of};
use crate::store::records::{
    AuditEntry, IdempotencyKey, NewSession, SessionChange, SessionFilter, SessionRecord, TenantContext,
};
use crate::store::{Answer, Created, OutboxSeen, Scope, SessionStore, StoreError};

/// Spawns that are read of a session: the newest. Far more than anybody restarts one.
pub(super) const SPAWNS_MAX: u32 = 1000;

/// A server gives at least so many rows (`db-max-rows`, docs/supabase.md): fewer are all there are.
const SERVER_ROWS_MIN: usize = 200;

/// Sessions whose organisation is remembered. Overflow: all are forgotten, and asked for when they are needed.
const KNOWN_MAX: usize = 20_000;

/// Whose sessions are: an audit record must name the organisation before the database is asked, and that of a session never changes.
#[derive(Debug, Default)]
pub(super) struct KnownOrgs(Mutex<HashMap<SessionId, OrgId>>);

impl KnownOrgs {
    fn get(&self, id: SessionId) -> Option<OrgId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    fn learn(&self, id: SessionId, org: OrgId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(id, org);
    }
}

/// A session with its spawns, if it is on this host; wherever it is if there is none. Nearly all have few spawns, and an order costs PostgREST a
/// third of what the whole read does: it is asked for only where the server might have left out some.
pub(super) async fn read(
    client: &Client,
    name: Name<'_>,
    id: SessionId,
    host: Option<HostId>,
) -> Result<SessionRow, StoreError> {
    let query = Query::of("user_sessions", SESSION_COLUMNS)
        .only(&Filter::eq("id", &id))
        .only_if(host.map(|host| Filter::eq("host_id", &host)));
    let first = async |query: &Query| client.rows::<SessionRow>(name, query).await?.pop().ok_or(StoreError::NotFound);
    let row = first(&query).await?;
    if row.spawns.len() < SERVER_ROWS_MIN {
        return Ok(row);
    }
    first(&query.page("spawns", "number.desc", SPAWNS_MAX)).await
}

impl Postgrest {
    fn record(&self, row: SessionRow) -> SessionRecord {
        let record = SessionRecord::from(row);
        self.orgs.learn(record.id, record.org);
        record
    }

    fn records(&self, found: Vec<SessionRow>) -> Vec<SessionRecord> {
        found.into_iter().map(|row| self.record(row)).collect()
    }

    /// Whose a session is.
    pub(super) async fn org_of(&self, id: SessionId) -> Result<OrgId, StoreError> {
        if let Some(org) = self.orgs.get(id) {
            return Ok(org);
        }
        let org = self.as_service().org_of(id).await?;
        self.orgs.learn(id, org);
        Ok(org)
    }
}

impl SessionStore for Postgrest {
    fn create_session(
        &self,
        tenant: TenantContext,
        new: NewSession,
        key: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Created> {
        Box::pin(async move {
            let audit = audit.argument(tenant.org, &Scope::Tenant(tenant.clone()));
            let caller = self.as_caller(&tenant)?;
            Ok(match caller.create_session(rows::new_session(&new), key.as_ref(), audit).await? {
                CreatedRow::Made { sandbox_policy } => {
                    self.orgs.learn(new.id, tenant.org);
                    let policy = sandbox_policy.map(SandboxPolicy::from_stored).unwrap_or_default();
                    Created::New(Box::new(SessionRecord::made(&tenant, &new, policy)))
                }
                CreatedRow::Replay(replay) => Created::Seen(replay.into()),
            })
        })
    }

    fn session(&self, scope: Scope, id: SessionId) -> Answer<'_, SessionRecord> {
        Box::pin(async move {
            let row = match &scope {
                Scope::Tenant(tenant) => self.as_caller(tenant)?.session(id).await?,
                Scope::Host(_) | Scope::System => self.as_service().session(host_of(&scope), id).await?,
            };
            Ok(self.record(row))
        })
    }

    fn sessions(&self, tenant: TenantContext, filter: SessionFilter) -> Answer<'_, Vec<SessionRecord>> {
        Box::pin(async move { Ok(self.records(self.as_caller(&tenant)?.sessions_page(&filter).await?)) })
    }

    fn unsettled(&self, host: Option<HostId>) -> Answer<'_, Vec<SessionRecord>> {
        Box::pin(async move { Ok(self.records(self.as_service().unsettled(host).await?)) })
    }

    fn update_session(
        &self,
        scope: Scope,
        id: SessionId,
        revision: u64,
        change: SessionChange,
        audit: Option<AuditEntry>,
        seen: OutboxSeen,
    ) -> Answer<'_, SessionRecord> {
        Box::pin(async move {
            let change = rows::change(&change);
            let row = if let Scope::Tenant(tenant) = &scope {
                let audit = audit.map(|entry| entry.argument(tenant.org, &scope));
                self.as_caller(tenant)?.update_session(id, revision, change, audit).await?
            } else {
                let audit = match audit {
                    Some(entry) => Some(entry.argument(self.org_of(id).await?, &scope)),
                    None => None,
                };
                let seen = seen.map(|(_, number)| number);
                self.as_service().update_session(host_of(&scope), id, revision, change, audit, seen).await?
            };
            Ok(self.record(row))
        })
    }

    fn purge_session(&self, scope: Scope, id: SessionId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Scope::Tenant(tenant) = &scope {
                let audit = audit.argument(tenant.org, &scope);
                return self.as_caller(tenant)?.purge_session(id, audit).await;
            }
            let org = match self.org_of(id).await {
                // One that is gone is removed.
                Err(StoreError::NotFound) => return Ok(()),
                other => other?,
            };
            let audit = audit.argument(org, &scope);
            self.as_service().purge_session(host_of(&scope), id, audit).await
        })
    }
}
