//! The store of many tenants: Postgres behind PostgREST, as Supabase has them.
//!
//! A caller's request carries the caller's own token, and row level security decides; jobs carry the key of the service role. The two are two
//! types, [`callers::AsCaller`] and [`jobs::AsService`], so that no request of a caller gets the service role by mistake. Writes are functions of
//! the schema, each one transaction with its audit record.

mod audit;
mod callers;
mod checks;
mod client;
mod credentials;
mod egress;
mod error;
pub mod filter;
mod hosts;
mod idempotency;
mod jobs;
mod known;
mod logins;
mod operator;
mod organizations;
mod proof;
mod rows;
mod sessions;
pub mod tokens;
mod upkeep;
mod viewers;

use std::future::Future;
use std::sync::Arc;

use agentapi_shared::audit::{PLATFORM, Personal};
use agentapi_shared::{EventId, HostId};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::records::{AuditEntry, TenantContext};
use super::{Answer, Scope, Store, StoreError};
use callers::{AsCaller, TokenFrom};
use client::Client;
use error::{Failure, Party};
use jobs::AsService;
use sessions::KnownOrgs;
use tokens::TokenSource;

pub use checks::OpenError;
pub use client::Project;

/// Rows that are asked for at once where all are wanted.
const PAGE_ROWS: u32 = 500;

/// A project's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgrest {
    client: Client,
    tokens: Arc<dyn TokenSource>,
    orgs: Arc<KnownOrgs>,
    /// Counts what was written, for whoever seals it.
    written: Arc<watch::Sender<u64>>,
}

impl Postgrest {
    /// A client of a project, which is not asked anything yet. `tokens` speaks for callers who brought no token of the project.
    pub fn new(project: Arc<dyn Project>, tokens: Arc<dyn TokenSource>) -> Result<Self, OpenError> {
        let written = Arc::new(watch::Sender::new(0));
        let client = Client::new(project, written.clone()).map_err(OpenError::Client)?;
        Ok(Self { client, tokens, orgs: Arc::default(), written })
    }

    /// The same with another deadline for a request.
    #[cfg(test)]
    fn patient(self, deadline: std::time::Duration) -> Self {
        Self { client: self.client.patient(deadline), ..self }
    }

    fn as_service(&self) -> AsService<'_> {
        AsService::new(&self.client)
    }

    fn as_caller(&self, tenant: &TenantContext) -> Result<AsCaller<'_>, StoreError> {
        let (token, from) = match &tenant.token {
            Some(token) => (token.clone(), TokenFrom::Caller),
            None => {
                let made = self.tokens.token(tenant);
                let made = made.map_err(|error| Failure::NoToken(error).into_store_error(Party::SpokenFor))?;
                (made, TokenFrom::Us)
            }
        };
        Ok(AsCaller::new(&self.client, token, from, tenant.org))
    }

    /// Makes a shared host, or changes nothing if it is there.
    pub async fn create_host(&self, host: HostId, name: &str) -> Result<(), StoreError> {
        let entry = AuditEntry {
            id: EventId::generate(),
            at: OffsetDateTime::now_utc(),
            action: "host.create".into(),
            channel: "system",
            session: None,
            host: Some(host),
            detail: serde_json::Value::Null,
            org: Some(PLATFORM),
            job: AuditEntry::SYSTEM,
            credential: None,
            request: None,
            personal: Personal::default(),
        };
        let audit = entry.argument(PLATFORM, &Scope::System);
        self.as_service().create_host(host, None, name, audit).await
    }
}

/// The host in whose name a job acts.
fn host_of(scope: &Scope) -> Option<HostId> {
    match scope {
        Scope::Host(host) => Some(*host),
        Scope::Tenant(_) | Scope::System => None,
    }
}

/// Every row of what comes in pages, each asked for after the last row of the one before. It ends with an empty page: the server may give fewer
/// than asked for.
async fn all_rows<T, F>(mut page: impl FnMut(Option<&T>) -> F) -> Result<Vec<T>, StoreError>
where
    F: Future<Output = Result<Vec<T>, StoreError>>,
{
    let mut all = Vec::new();
    loop {
        let next = page(all.last()).await?;
        if next.is_empty() {
            return Ok(all);
        }
        all.extend(next);
    }
}

impl Store for Postgrest {
    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().schema_version().await.map(drop) })
    }
}

#[cfg(test)]
mod tests;
