//! Table `logins`, where an issuer is behind a login.

use time::OffsetDateTime;

use super::Postgrest;
use crate::store::records::{NewLogin, RefreshTaken, Sealed, UserHolder};
use crate::store::{Answer, LoginStore};

impl LoginStore for Postgrest {
    fn begin_login(&self, login: NewLogin) -> Answer<'_, Option<UserHolder>> {
        Box::pin(async move { Ok(self.as_service().begin_login(&login).await?.map(UserHolder::from)) })
    }

    fn take_refresh(&self, login: String, now: OffsetDateTime, until: OffsetDateTime) -> Answer<'_, RefreshTaken> {
        Box::pin(async move { self.as_service().take_refresh(&login, now, until).await })
    }

    fn put_refresh(&self, login: String, until: OffsetDateTime, refresh: Option<Sealed>) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().put_refresh(&login, until, refresh.as_ref()).await })
    }
}
