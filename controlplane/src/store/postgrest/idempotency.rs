//! Table `idempotency_keys`. A key belongs to one caller and one route and is kept for a day.

use time::OffsetDateTime;

use super::Postgrest;
use crate::store::records::{IdempotencyKey, Replay, TenantContext};
use crate::store::{Answer, IdempotencyStore};

impl IdempotencyStore for Postgrest {
    fn begin_idempotent(&self, tenant: TenantContext, key: IdempotencyKey, at: OffsetDateTime) -> Answer<'_, Replay> {
        Box::pin(async move { self.as_caller(&tenant)?.begin_idempotent(&key, at).await.map(Replay::from) })
    }

    fn finish_idempotent(
        &self,
        tenant: TenantContext,
        key: IdempotencyKey,
        status: u16,
        body: String,
    ) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.finish_idempotent(&key, status, &body).await })
    }

    fn release_idempotent(&self, tenant: TenantContext, key: IdempotencyKey) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.release_idempotent(&key).await })
    }
}
