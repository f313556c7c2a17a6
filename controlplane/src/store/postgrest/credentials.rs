//! Tables `api_keys`, `host_credentials`, `logins` and `login_codes`. Only hashes of secrets come here.

use agentapi_shared::{OrgId, UserId};
use time::OffsetDateTime;

use super::Postgrest;
use super::jobs::{HolderRow, LoginHolderRow, UserRow};
use crate::store::records::{
    AuditEntry, BrowserSession, Holder, KeyFacts, LoginHolder, NewLoginCode, NewcomerHolder, Sight, TenantContext,
    TokenHolder, UserHolder,
};
use crate::store::{Answer, CredentialStore, Scope};

impl From<UserRow> for UserHolder {
    fn from(row: UserRow) -> Self {
        Self {
            user: row.user_id,
            org: row.org_id,
            name: row.name.unwrap_or_default(),
            organization: row.organization,
            role: row.role,
            key: row.key_id.map(|id| KeyFacts { id, scopes: row.scopes, expires_at: row.key_expires_at }),
            token: None,
        }
    }
}

impl From<LoginHolderRow> for LoginHolder {
    fn from(row: LoginHolderRow) -> Self {
        match row {
            LoginHolderRow::User(user) => Self::Member(user.into()),
            LoginHolderRow::Newcomer { user_id, name } => Self::Newcomer(NewcomerHolder { user: user_id, name }),
        }
    }
}

impl CredentialStore for Postgrest {
    fn register_token(&self, hash: String, holder: TokenHolder, at: OffsetDateTime) -> Answer<'_, ()> {
        Box::pin(async move {
            match holder {
                TokenHolder::User { org, user } => self.as_service().register_token(&hash, org, user, at).await,
                TokenHolder::Host(host) => self.as_service().register_host_token(&hash, host, at).await,
            }
        })
    }

    fn token(&self, hash: String) -> Answer<'_, Option<Holder>> {
        Box::pin(async move {
            let asked = match self.client.known.get(&hash) {
                Ok(holder) => return Ok(Some(holder)),
                Err(asked) => asked,
            };
            let found = self.as_service().token(&hash).await?.map(|found| match found {
                HolderRow::User(user) => Holder::User(user.into()),
                HolderRow::Host { host_id } => Holder::Host(host_id),
            });
            if let Some(holder) = &found {
                self.client.known.learn(asked, hash, holder.clone());
            }
            Ok(found)
        })
    }

    fn member(&self, org: OrgId, user: UserId) -> Answer<'_, Option<UserHolder>> {
        Box::pin(async move { Ok(self.as_service().member(org, user).await?.map(UserHolder::from)) })
    }

    fn create_login_code(&self, tenant: TenantContext, new: NewLoginCode, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move {
            let audit = audit.argument(tenant.org, &Scope::Tenant(tenant.clone()));
            self.as_caller(&tenant)?.create_login_code(&new, audit).await
        })
    }

    fn redeem_login_code(
        &self,
        code_hash: String,
        cookie_hash: String,
        expires_at: OffsetDateTime,
        audit: AuditEntry,
    ) -> Answer<'_, Option<UserHolder>> {
        Box::pin(async move {
            // The record is the database's own: whose the code is was not known before.
            let found = self.as_service().redeem_login_code(&code_hash, &cookie_hash, audit.at, expires_at).await?;
            Ok(found.map(UserHolder::from))
        })
    }

    fn browser_session(&self, hash: String, now: OffsetDateTime) -> Answer<'_, Option<BrowserSession>> {
        Box::pin(async move {
            let found = self.as_service().browser_session(&hash, now).await?;
            Ok(found.map(|row| BrowserSession {
                holder: row.holder.into(),
                expires_at: row.expires_at,
                made_by: row.made_by_key,
            }))
        })
    }

    fn see_session(&self, sight: Sight) -> Answer<'_, bool> {
        Box::pin(async move { self.as_service().see_session(&sight).await })
    }

    fn end_browser_session(&self, tenant: TenantContext, hash: String, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move {
            let audit = audit.argument(tenant.org, &Scope::Tenant(tenant.clone()));
            self.as_caller(&tenant)?.end_browser_session(&hash, audit).await
        })
    }
}
