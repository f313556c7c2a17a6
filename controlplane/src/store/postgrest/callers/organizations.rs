//! Organisations, members, keys and hosts, in the name of a caller.

use agentapi_shared::api::{KeyScope, OrganizationSettings, Quotas};
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::AsCaller;
use crate::capability::Role;
use crate::store::StoreError;
use crate::store::postgrest::client::Function;
use crate::store::postgrest::filter::{Filter, Query};
use crate::store::postgrest::{PAGE_ROWS, all_rows, rows};
use crate::store::records::{
    ApiKeyRecord, Founding, FoundingTerms, InvitationRecord, MadeByKey, MemberRecord, NewApiKey, NewEnrolment,
    NewInvitation, OrganizationChange, OrganizationRecord,
};

#[derive(Debug, Deserialize)]
struct MembershipRow {
    role: Role,
    organizations: OrganizationRow,
}

#[derive(Debug, Deserialize)]
struct OrganizationRow {
    id: OrgId,
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    settings: Value,
    sessions_max: Option<u32>,
    sessions_per_day_max: Option<u32>,
    viewers_max: Option<u32>,
    revision: u64,
}

impl From<MembershipRow> for (OrganizationRecord, Role) {
    fn from(row: MembershipRow) -> Self {
        let of = row.organizations;
        let record = OrganizationRecord {
            id: of.id,
            name: of.name,
            created_at: of.created_at,
            settings: OrganizationSettings::from_stored(of.settings),
            quotas: Quotas {
                sessions_max: of.sessions_max,
                sessions_per_day_max: of.sessions_per_day_max,
                viewers_max: of.viewers_max,
            },
            revision: of.revision,
        };
        (record, row.role)
    }
}

#[derive(Debug, Deserialize)]
struct MemberRow {
    user_id: UserId,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    users: PersonRow,
}

#[derive(Debug, Deserialize)]
struct PersonRow {
    name: Option<String>,
    email: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
struct InvitationRow {
    id: InvitationId,
    email: String,
    role: Role,
    created_by: UserId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    accepted_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
struct ApiKeyRow {
    id: ApiKeyId,
    user_id: UserId,
    name: String,
    prefix: String,
    scopes: Vec<KeyScope>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    made_by_key: Option<ApiKeyId>,
}

impl AsCaller<'_> {
    pub(in crate::store::postgrest) async fn organizations(
        &self,
        user: UserId,
    ) -> Result<Vec<(OrganizationRecord, Role)>, StoreError> {
        const COLUMNS: &str =
            "role,organizations(id,name,created_at,settings,sessions_max,sessions_per_day_max,viewers_max,revision)";
        let found: Vec<MembershipRow> = all_rows(|after: Option<&MembershipRow>| {
            let query = Query::of("memberships", COLUMNS)
                .only(&Filter::eq("user_id", &user))
                .only_if(after.map(|row| Filter::gt("org_id", &row.organizations.id)))
                .page("", "org_id.asc", PAGE_ROWS);
            async move { self.client.rows(self.name(), &query).await }
        })
        .await?;
        Ok(found.into_iter().map(Into::into).collect())
    }

    pub(in crate::store::postgrest) async fn create_organization(
        &self,
        org: OrgId,
        name: &str,
        by: Founding,
        audit: Value,
    ) -> Result<(), StoreError> {
        const CREATE: Function = Function::once("create_organization");
        let FoundingTerms { founded_max, quotas } = by.terms();
        let arguments = json!({
            "p_org": org, "p_name": name, "p_audit": audit, "p_by": by.as_str(), "p_founded_max": founded_max,
            "p_sessions_max": quotas.sessions_max, "p_sessions_per_day_max": quotas.sessions_per_day_max,
            "p_viewers_max": quotas.viewers_max,
        });
        self.call(CREATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn update_organization(
        &self,
        revision: u64,
        change: &OrganizationChange,
        audit: Value,
    ) -> Result<(), StoreError> {
        const UPDATE: Function = Function::once("update_organization");
        let arguments = json!({
            "p_org": self.org, "p_revision": revision, "p_name": change.name, "p_settings": change.settings, "p_audit": audit,
        });
        self.call(UPDATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn members(&self) -> Result<Vec<MemberRecord>, StoreError> {
        const COLUMNS: &str = "user_id,role,created_at,users!memberships_user_id_fkey(name,email,disabled_at)";
        let found: Vec<MemberRow> = all_rows(|after: Option<&MemberRow>| {
            let query = Query::of("memberships", COLUMNS)
                .only(&Filter::eq("org_id", &self.org))
                .only_if(after.map(|row| Filter::gt("user_id", &row.user_id)))
                .page("", "user_id.asc", PAGE_ROWS);
            async move { self.client.rows(self.name(), &query).await }
        })
        .await?;
        // Whoever is in the organisation sees themselves at least.
        if found.is_empty() {
            return Err(StoreError::NotFound);
        }
        let record = |row: MemberRow| MemberRecord {
            user: row.user_id,
            name: row.users.name,
            email: row.users.email,
            role: row.role,
            disabled: row.users.disabled_at.is_some(),
            created_at: row.created_at,
        };
        Ok(found.into_iter().map(record).collect())
    }

    pub(in crate::store::postgrest) async fn set_member_role(
        &self,
        user: UserId,
        role: Role,
        audit: Value,
    ) -> Result<(), StoreError> {
        const SET: Function = Function::same("set_member_role");
        self.call(SET, json!({ "p_org": self.org, "p_user": user, "p_role": role, "p_audit": audit })).await
    }

    pub(in crate::store::postgrest) async fn remove_member(
        &self,
        user: UserId,
        audit: Value,
    ) -> Result<(), StoreError> {
        const REMOVE: Function = Function::once("remove_member");
        self.call(REMOVE, json!({ "p_org": self.org, "p_user": user, "p_audit": audit })).await
    }

    pub(in crate::store::postgrest) async fn invitations(&self) -> Result<Vec<InvitationRecord>, StoreError> {
        const COLUMNS: &str = "id,email,role,created_by,created_at,expires_at,revoked_at,accepted_at";
        let found: Vec<InvitationRow> = all_rows(|after: Option<&InvitationRow>| {
            let query = Query::of("invitations", COLUMNS)
                .only(&Filter::eq("org_id", &self.org))
                .only_if(after.map(|row| Filter::lt("id", &row.id)))
                .page("", "id.desc", PAGE_ROWS);
            async move { self.client.rows(self.name(), &query).await }
        })
        .await?;
        let record = |row: InvitationRow| InvitationRecord {
            id: row.id,
            email: row.email,
            role: row.role,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            accepted_at: row.accepted_at,
        };
        Ok(found.into_iter().map(record).collect())
    }

    pub(in crate::store::postgrest) async fn create_invitation(
        &self,
        new: &NewInvitation,
        audit: Value,
    ) -> Result<(), StoreError> {
        const CREATE: Function = Function::once("create_invitation");
        let arguments = json!({
            "p_org": self.org, "p_id": new.id, "p_email": new.email, "p_role": new.role, "p_token_hash": new.token_hash,
            "p_expires_at": rows::time(new.expires_at), "p_audit": audit,
        });
        self.call(CREATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn revoke_invitation(
        &self,
        id: InvitationId,
        audit: Value,
    ) -> Result<(), StoreError> {
        const REVOKE: Function = Function::once("revoke_invitation");
        self.call(REVOKE, json!({ "p_org": self.org, "p_id": id, "p_audit": audit })).await
    }

    pub(in crate::store::postgrest) async fn accept_invitation(
        &self,
        org: OrgId,
        token_hash: &str,
        audit: Value,
    ) -> Result<(), StoreError> {
        const ACCEPT: Function = Function::once("accept_invitation");
        let arguments = json!({ "p_org": org, "p_token_hash": token_hash, "p_audit": audit });
        self.call(ACCEPT, arguments).await.map_err(|error| match error {
            StoreError::Refused(word) if word == "exists" => StoreError::Refused("already_member".to_owned()),
            other => other,
        })
    }

    pub(in crate::store::postgrest) async fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        const COLUMNS: &str = "id,user_id,name,prefix,scopes,created_at,expires_at,revoked_at,last_used_at,made_by_key";
        let found: Vec<ApiKeyRow> = all_rows(|after: Option<&ApiKeyRow>| {
            let query = Query::of("api_keys", COLUMNS)
                .only(&Filter::eq("org_id", &self.org))
                .only_if(after.map(|row| Filter::lt("id", &row.id)))
                .page("", "id.desc", PAGE_ROWS);
            async move { self.client.rows(self.name(), &query).await }
        })
        .await?;
        let record = |row: ApiKeyRow| ApiKeyRecord {
            id: row.id,
            user: row.user_id,
            name: row.name,
            prefix: row.prefix,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
            made_by: row.made_by_key,
        };
        Ok(found.into_iter().map(record).collect())
    }

    pub(in crate::store::postgrest) async fn create_api_key(
        &self,
        new: &NewApiKey,
        audit: Value,
    ) -> Result<(), StoreError> {
        const CREATE: Function = Function::once("create_api_key");
        let arguments = json!({
            "p_org": self.org, "p_id": new.id, "p_name": new.name, "p_prefix": new.prefix, "p_hash": new.hash,
            "p_scopes": new.scopes, "p_expires_at": new.expires_at.map(rows::time), "p_audit": audit, "p_made_by": new.made_by,
        });
        self.call(CREATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn revoke_api_key(
        &self,
        id: ApiKeyId,
        made: MadeByKey,
        audit: Value,
    ) -> Result<(), StoreError> {
        const REVOKE: Function = Function::once("revoke_api_key");
        let made = match made {
            MadeByKey::Ends => "end",
            MadeByKey::Stays => "keep",
        };
        self.call(REVOKE, json!({ "p_org": self.org, "p_id": id, "p_audit": audit, "p_made": made })).await
    }

    pub(in crate::store::postgrest) async fn create_host_enrolment(
        &self,
        new: &NewEnrolment,
        audit: Value,
    ) -> Result<(), StoreError> {
        const CREATE: Function = Function::once("create_host_enrolment");
        let arguments = json!({
            "p_org": self.org, "p_hash": new.hash, "p_name": new.name, "p_expires_at": rows::time(new.expires_at),
            "p_audit": audit, "p_made_by": new.made_by,
        });
        self.call(CREATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn revoke_host(&self, host: HostId, audit: Value) -> Result<(), StoreError> {
        const REVOKE: Function = Function::once("revoke_host");
        self.call(REVOKE, json!({ "p_org": self.org, "p_host": host, "p_audit": audit })).await
    }
}
