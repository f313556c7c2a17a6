//! What the control plane does by itself, in nobody's name. Each job looks at the store, does what is due, and waits until something may be.

mod expiry;
mod leases;
mod recheck;
mod upkeep;

use std::sync::Arc;

use agentapi_shared::runtime::OnEnd;

use crate::plane::Plane;

/// Starts all of them; they end with the program.
pub fn start(plane: &Arc<Plane>) {
    let work = plane.clone();
    plane.tasks.spawn("job expiry", OnEnd::Continue, async move { expiry::run(&work).await });
    let work = plane.clone();
    plane.tasks.spawn("job leases", OnEnd::Continue, async move { leases::run(&work).await });
    let work = plane.clone();
    plane.tasks.spawn("job recheck", OnEnd::Continue, async move { recheck::run(&work).await });
    let work = plane.clone();
    plane.tasks.spawn("job upkeep", OnEnd::Continue, async move { upkeep::run(&work).await });
}
