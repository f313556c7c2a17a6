//! Who looks at terminals: there is a record of each attachment and of its end, and a limit of how many an organisation has at once.

use agentapi_shared::viewer::ViewerMode;
use agentapi_shared::{SessionId, ViewerId};
use serde_json::{Value, json};

use super::policy::Principal;
use super::{DomainError, audit};
use crate::leases::{LEASE, Lease};
use crate::plane::Plane;
use crate::store::records::NewViewer;

/// Enters a viewer of a session that the caller was found to see. A terminal that nobody can account for is not opened.
pub async fn attach(
    plane: &Plane,
    principal: &Principal,
    session: SessionId,
    mode: ViewerMode,
    replaces: Option<ViewerId>,
) -> Result<Lease, DomainError> {
    let new = NewViewer { id: ViewerId::generate(), session, lease: LEASE, replaces };
    // By the connection's id the trail says which end is whose, and whose place it took.
    let detail = json!({ "mode": mode, "connection": new.id, "replaces": replaces });
    let entry = audit::of_session(principal, "terminal.attach", session, detail);
    let replaced = plane.store.attach_viewer(principal.tenant(), new, entry).await.map_err(DomainError::of_session)?;
    if let Some(before) = replaces.filter(|_| replaced) {
        // On another control plane it ends with its next renewal, in 20 s at most: until then it is open and does not count. To count it would refuse
        // whoever comes back in time, which is what a replacement is for. It is bounded: by what one person may attach in that time (the rate limits),
        // each time to a terminal that they had; and of a single control plane the count is exact.
        plane.leases.replaced(before);
    }
    Ok(plane.leases.keep(new.id))
}

/// Records that one has ended, as soon as the store takes it.
pub fn detached(plane: &Plane, principal: &Principal, session: SessionId, viewer: ViewerId, detail: Value) {
    let entry = audit::of_session(principal, "terminal.detach", session, detail);
    plane.trail.detached(principal.tenant_of_late(), viewer, entry);
}
