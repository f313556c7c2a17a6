//! Table `logins`, where an issuer is behind a login.

use agentapi_shared::UserId;
use time::OffsetDateTime;

use super::Postgrest;
use crate::store::records::{AuditEntry, LoginHolder, NewLogin, RefreshTaken, Sealed};
use crate::store::{Answer, LoginStore};

impl LoginStore for Postgrest {
    fn begin_login(&self, login: NewLogin) -> Answer<'_, Option<LoginHolder>> {
        Box::pin(async move { Ok(self.as_service().begin_login(&login).await?.map(LoginHolder::from)) })
    }

    fn end_newcomer_login(&self, _user: UserId, login: String, _audit: AuditEntry) -> Answer<'_, ()> {
        // The record is the database's own, as that of the login.
        Box::pin(async move { self.as_service().end_newcomer_login(&login).await })
    }

    fn take_refresh(&self, login: String, now: OffsetDateTime, until: OffsetDateTime) -> Answer<'_, RefreshTaken> {
        Box::pin(async move { self.as_service().take_refresh(&login, now, until).await })
    }

    fn put_refresh(&self, login: String, until: OffsetDateTime, refresh: Option<Sealed>) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().put_refresh(&login, until, refresh.as_ref()).await })
    }
}
