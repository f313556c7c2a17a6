//! What callers do with the audit trail of their organisation, and the operator with the platform's: they read it. Nobody writes to it.

use agentapi_shared::OrgId;
use agentapi_shared::audit::export::FORMAT;
use agentapi_shared::audit::{Manifest, PLATFORM, RecordLine, Seal};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::policy::{self, Action, Principal};
use super::{DomainError, audit, validate};
use crate::audit::Checkpoints;
use crate::clock;
use crate::plane::Plane;
use crate::store::records::{AuditEntry, AuditFilter, AuditPage, AuditPosition, SealedRecord, TenantContext};
use crate::store::{Scope, Store, StoreError};

/// Records of an export that are in memory at once.
const EXPORT_PAGE: u32 = 200;

/// A page of the trail.
pub async fn list(plane: &Plane, principal: &Principal, filter: AuditFilter) -> Result<AuditPage, DomainError> {
    policy::check(principal, Action::AuditRead)?;
    Ok(plane.store.audit_records(principal.tenant(), filter).await?)
}

/// Whose trail.
#[derive(Debug, Clone)]
pub enum Whose {
    /// Of the caller's organisation.
    Tenant(TenantContext),
    /// The platform's: for its operator alone.
    Platform,
}

impl Whose {
    fn org(&self) -> OrgId {
        match self {
            Self::Tenant(tenant) => tenant.org,
            Self::Platform => PLATFORM,
        }
    }

    async fn page(&self, store: &dyn Store, filter: AuditFilter) -> Result<AuditPage, StoreError> {
        match self {
            Self::Tenant(tenant) => store.audit_records(tenant.clone(), filter).await,
            Self::Platform => store.platform_records(filter).await,
        }
    }

    async fn seal_at(&self, store: &dyn Store, position: AuditPosition) -> Result<Option<Seal>, StoreError> {
        let page = self.page(store, AuditFilter { position, limit: 1, ..AuditFilter::default() }).await?;
        Ok(page.records.first().map(|record| record.seal))
    }
}

/// A trail that is being handed out, from one number to the last that was there at its begin.
#[derive(Debug)]
pub struct Export {
    whose: Whose,
    manifest: Option<String>,
    at: u64,
    last: u64,
}

/// Begins to hand out to a caller what comes after a number. That it was done is recorded before.
pub async fn export(plane: &Plane, principal: &Principal, after: u64) -> Result<Export, DomainError> {
    policy::check(principal, Action::AuditRead)?;
    let tenant = principal.tenant();
    let record = |detail| (Scope::Tenant(tenant.clone()), audit::of_organization(principal, "audit.export", detail));
    let checkpoints = plane.trail.checkpoints().map(|checkpoints| &**checkpoints);
    begin(&*plane.store, Whose::Tenant(tenant.clone()), after, checkpoints, record).await
}

/// The same for the platform's operator, of its own chain.
pub async fn export_platform(store: &dyn Store, after: u64, checkpoints: &Checkpoints) -> Result<Export, DomainError> {
    let record = |detail| (Scope::System, audit::of_platform("audit.export", detail));
    begin(store, Whose::Platform, after, Some(checkpoints), record).await
}

async fn begin(
    store: &dyn Store,
    whose: Whose,
    after: u64,
    checkpoints: Option<&Checkpoints>,
    record: impl FnOnce(Value) -> (Scope, AuditEntry),
) -> Result<Export, DomainError> {
    let head = whose.seal_at(store, AuditPosition::default()).await?.unwrap_or(Seal::START);
    if after > head.number {
        return Err(validate::fault("query.after", format!("the trail has {} records", head.number)));
    }
    let previous = match after {
        0 => Seal::START,
        after => whose.seal_at(store, AuditPosition::After(after - 1)).await?.unwrap_or(Seal::START),
    };
    let (scope, entry) = record(json!({ "after": after, "last": head.number }));
    store.audit(scope, entry, None).await?;
    let known = checkpoints.map_or_else(Vec::new, |all| all.recent(whose.org(), after, head.number));
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        org_id: whose.org(),
        // After the newest checkpoint was signed.
        exported_at: clock::now(),
        after,
        previous: previous.hash,
        last: head.number,
        head: head.hash,
        count: head.number - after,
        public_key: checkpoints.map(Checkpoints::public),
        checkpoints: known,
        range_signature: None,
    };
    let line = checkpoints.map_or_else(|| manifest.line(None), |all| all.sign_manifest(&manifest));
    Ok(Export { whose, manifest: Some(line + "\n"), at: after, last: head.number })
}

impl Export {
    /// The next lines; none after the last. A trail that has a gap ends early, and its reader sees that it does.
    pub async fn next(&mut self, store: &dyn Store) -> Result<Option<String>, DomainError> {
        if let Some(manifest) = self.manifest.take() {
            return Ok(Some(manifest));
        }
        if self.at >= self.last {
            return Ok(None);
        }
        let filter = AuditFilter {
            position: AuditPosition::After(self.at),
            limit: EXPORT_PAGE.min(u32::try_from(self.last - self.at).unwrap_or(EXPORT_PAGE)),
            ..AuditFilter::default()
        };
        let page = self.whose.page(store, filter).await?;
        let Some(last) = page.records.last() else { return Ok(None) };
        self.at = last.seal.number;
        Ok(Some(page.records.iter().map(record_line).collect()))
    }
}

fn record_line(record: &SealedRecord) -> String {
    line(&RecordLine {
        number: record.seal.number,
        id: record.id,
        hash: record.seal.hash,
        entry: record.entry.as_str().into(),
        personal: record.personal.as_deref().and_then(|text| serde_json::from_str::<&RawValue>(text).ok()),
    })
}

fn line<T: serde::Serialize>(value: &T) -> String {
    // Strings, numbers and JSON have no form that could fail.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}
