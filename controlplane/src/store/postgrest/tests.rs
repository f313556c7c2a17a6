//! The store on a real Postgres behind a real PostgREST: the contract of every store, and what is its own.

mod differential;
mod failures;
mod injection;
mod minted;
mod policies;
mod real;
mod starts;
mod upkeep;

use std::sync::Arc;

use crate::store::contract::{self, Subject};
use real::Real;

#[tokio::test]
async fn the_contract_holds() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let [ours, theirs] = [real.owner().await?, real.member().await?];
    let colleague = real.person(ours.org, agentapi_shared::UserId::generate(), crate::capability::Role::Member).await?;
    contract::run(&Subject { store: Arc::new(real.store.clone()), ours, theirs, colleague }).await;
    Ok(())
}
