//! What callers do with the audit trail of their organisation: they read it. Nobody writes to it.

use agentapi_shared::audit::export::FORMAT;
use agentapi_shared::audit::{Manifest, RecordLine, Seal};
use serde_json::json;
use serde_json::value::RawValue;

use super::policy::{self, Action, Principal};
use super::{DomainError, audit, validate};
use crate::clock;
use crate::plane::Plane;
use crate::store::Scope;
use crate::store::records::{AuditFilter, AuditPage, AuditPosition, SealedRecord, TenantContext};

/// Records of an export that are in memory at once.
const EXPORT_PAGE: u32 = 200;

/// A page of the trail.
pub async fn list(plane: &Plane, principal: &Principal, filter: AuditFilter) -> Result<AuditPage, DomainError> {
    policy::check(principal, Action::AuditRead)?;
    Ok(plane.store.audit_records(principal.tenant(), filter).await?)
}

/// A trail that is being handed out, from one number to the last that was there at its begin.
#[derive(Debug)]
pub struct Export {
    tenant: TenantContext,
    manifest: Option<Manifest>,
    at: u64,
    last: u64,
}

/// Begins to hand out what comes after a number. That it was done is recorded before.
pub async fn export(plane: &Plane, principal: &Principal, after: u64) -> Result<Export, DomainError> {
    policy::check(principal, Action::AuditRead)?;
    let tenant = principal.tenant();
    let head = seal_at(plane, &tenant, AuditPosition::default()).await?.unwrap_or(Seal::START);
    if after > head.number {
        return Err(validate::fault("query.after", format!("the trail has {} records", head.number)));
    }
    let previous = match after {
        0 => Seal::START,
        after => seal_at(plane, &tenant, AuditPosition::After(after - 1)).await?.unwrap_or(Seal::START),
    };
    let detail = json!({ "after": after, "last": head.number });
    let entry = audit::of_organization(principal, "audit.export", detail);
    plane.store.audit(Scope::Tenant(tenant.clone()), entry, None).await?;
    let checkpoints = plane.trail.checkpoints();
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        org_id: tenant.org,
        exported_at: clock::now(),
        after,
        previous: previous.hash,
        last: head.number,
        head: head.hash,
        count: head.number - after,
        public_key: checkpoints.map(|checkpoints| checkpoints.public()),
        checkpoints: checkpoints.map_or_else(Vec::new, |all| all.recent(tenant.org, after, head.number)),
    };
    Ok(Export { tenant, manifest: Some(manifest), at: after, last: head.number })
}

async fn seal_at(plane: &Plane, tenant: &TenantContext, position: AuditPosition) -> Result<Option<Seal>, DomainError> {
    let filter = AuditFilter { position, limit: 1, ..AuditFilter::default() };
    let page = plane.store.audit_records(tenant.clone(), filter).await?;
    Ok(page.records.first().map(|record| record.seal))
}

impl Export {
    /// The next lines; none after the last. A trail that has a gap ends early, and its reader sees that it does.
    pub async fn next(&mut self, plane: &Plane) -> Result<Option<String>, DomainError> {
        if let Some(manifest) = self.manifest.take() {
            return Ok(Some(line(&manifest)));
        }
        if self.at >= self.last {
            return Ok(None);
        }
        let filter = AuditFilter {
            position: AuditPosition::After(self.at),
            limit: EXPORT_PAGE.min(u32::try_from(self.last - self.at).unwrap_or(EXPORT_PAGE)),
            ..AuditFilter::default()
        };
        let page = plane.store.audit_records(self.tenant.clone(), filter).await?;
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
