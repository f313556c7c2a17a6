//! Ends live sockets and links whose credential the store no longer knows, or knows as something else: taken back by another replica, by a
//! command on this machine, or by hand in the database. What is taken back here ends at once.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock;
use crate::plane::Plane;
use crate::sockets::{Owner, Proof, Who};
use crate::store::StoreError;
use crate::store::records::{Holder, LoginHolder, UserHolder};

/// Every owner of a socket is asked about this often: twice within the minute after which nothing taken back is good.
const EVERY: Duration = Duration::from_secs(25);

pub(super) async fn run(plane: &Arc<Plane>) {
    let shutdown = plane.tasks.cancelled();
    let mut changed = plane.credentials_changed.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // The sender is part of the plane, which this holds.
            _ = changed.changed() => {}
            () = shutdown.cancelled() => return,
        }
        for owner in plane.sockets.owners() {
            match is_good(plane, &owner).await {
                Ok(true) => {}
                // Nobody can say that it is good: it is not.
                Ok(false) | Err(StoreError::Unauthenticated | StoreError::NoCallerToken) => {
                    info!("the credential of live sockets was taken back elsewhere");
                    plane.sockets.revoke(|found| *found == owner);
                }
                // A store that is away takes nothing back: terminals go on.
                Err(failure) => warn!(error = &failure as &dyn std::error::Error, "a credential is not checked"),
            }
        }
    }
}

async fn is_good(plane: &Arc<Plane>, owner: &Owner) -> Result<bool, StoreError> {
    let holder = match &owner.proof {
        // The token is good until its end, when the socket ends too; what its user is here may end before.
        Proof::Issuer(_) => return is_member(plane, &owner.who).await,
        Proof::Token(hash) => plane.store.token(hash.clone()).await?,
        Proof::Browser(hash) => {
            let login = plane.store.browser_session(hash.clone(), clock::now()).await?;
            login.map(|login| login.holder).and_then(LoginHolder::member).map(Holder::User)
        }
    };
    Ok(match (holder, &owner.who) {
        (Some(Holder::Host(host)), Who::Host(known)) => host == *known,
        (Some(Holder::User(holder)), Who::Member { .. }) => is_still(plane, &holder, &owner.who).await?,
        _ => false,
    })
}

/// Whether somebody is the member that they were. Asked in nobody's name: of some callers there is no token, now or ever.
async fn is_member(plane: &Arc<Plane>, who: &Who) -> Result<bool, StoreError> {
    let Who::Member { org, user, role, .. } = who else { return Ok(false) };
    let found = plane.store.member(*org, *user).await?;
    Ok(found.is_some_and(|now| now.role == *role))
}

/// Whether somebody is what they were. A login may be used in another organisation than the one it was made in.
async fn is_still(plane: &Arc<Plane>, holder: &UserHolder, who: &Who) -> Result<bool, StoreError> {
    let Who::Member { org, user, role, .. } = who else { return Ok(false) };
    if holder.user != *user {
        return Ok(false);
    }
    if holder.org == *org { Ok(holder.role == *role) } else { is_member(plane, who).await }
}
