//! Table `audit_logs`: what every change writes to, and what stands for itself.

use super::{Sqlite, hosts, rows};
use crate::store::records::AuditEntry;
use crate::store::{Answer, AuditStore, OutboxSeen, Scope};

impl AuditStore for Sqlite {
    fn audit(&self, scope: Scope, entry: AuditEntry, seen: OutboxSeen) -> Answer<'_, ()> {
        self.call(move |tx| {
            let org = rows::audit_org(tx, &scope, &entry)?;
            rows::insert_audit(tx, &scope, org, &entry)?;
            hosts::record_seen(tx, seen)
        })
    }
}
