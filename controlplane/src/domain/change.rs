//! A change of a session, written only if its record is still the one that it was computed from.

use agentapi_shared::SessionId;

use super::DomainError;
use crate::metrics;
use crate::plane::Plane;
use crate::store::records::{AuditEntry, SessionChange, SessionRecord};
use crate::store::{Scope, StoreError};

/// How often a change is computed again because another came in between; each round means that someone else got on.
const CHANGE_ATTEMPTS_MAX: u32 = 32;

/// Computes a change from the record until it is written on the record it was computed from, and tells everyone.
pub async fn change(
    plane: &Plane,
    scope: Scope,
    id: SessionId,
    entry: Option<AuditEntry>,
    rule: impl Fn(&SessionRecord) -> Result<Option<SessionChange>, DomainError>,
) -> Result<SessionRecord, DomainError> {
    for _ in 0..CHANGE_ATTEMPTS_MAX {
        let record = plane.store.session(scope.clone(), id).await.map_err(DomainError::of_session)?;
        let Some(change) = rule(&record)? else { return Ok(record) };
        let end = metrics::end(&change);
        match plane.store.update_session(scope.clone(), id, record.revision, change, entry.clone(), None).await {
            Ok(record) => {
                plane.metrics.count_end(end);
                plane.publish(&record);
                return Ok(record);
            }
            Err(StoreError::Stale) => {}
            Err(other) => return Err(DomainError::of_session(other)),
        }
    }
    Err(DomainError::Busy("too many changes of this session at once"))
}
