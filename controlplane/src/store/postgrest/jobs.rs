//! What the control plane does in its own name, or because a host said so, with the key of the service role: row level security does not hold it.
//!
//! Each function of the schema that is named `job_*` is one method here, and there is no other way to the service role: no request of a caller
//! may lead to a method that gives or changes what is a tenant's, unless it names the tenant.

mod logins;
mod operator;
mod organizations;

use agentapi_shared::api::KeyScope;
use agentapi_shared::egress::EgressDecision;
use agentapi_shared::{ApiKeyId, EventId, HostId, OrgId, SessionId, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::audit::HeadRow;
use super::client::{Client, Function, Name};
use super::egress::{self, EgressOfSession};
use super::filter::{Filter, Query};
use super::rows::{self, HostRow, SESSION_COLUMNS, SessionRow};
use crate::capability::Role;
use crate::store::StoreError;
use crate::store::records::{EgressFilter, HostRecord};

/// Requests with the key of the service role.
#[derive(Debug)]
pub(super) struct AsService<'a> {
    client: &'a Client,
}

/// Whose a credential is.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum HolderRow {
    User(UserRow),
    Host { host_id: HostId },
}

/// A member.
#[derive(Debug, Deserialize)]
pub(super) struct UserRow {
    pub(super) user_id: UserId,
    pub(super) org_id: OrgId,
    pub(super) name: Option<String>,
    pub(super) organization: String,
    pub(super) role: Role,
    /// Of an API key, as what follows.
    pub(super) key_id: Option<ApiKeyId>,
    #[serde(default)]
    pub(super) scopes: Vec<KeyScope>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) key_expires_at: Option<OffsetDateTime>,
}

/// Whose a login is.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum LoginHolderRow {
    User(UserRow),
    Newcomer { user_id: UserId, name: String },
}

/// A login of a browser.
#[derive(Debug, Deserialize)]
pub(super) struct LoginRow {
    #[serde(flatten)]
    pub(super) holder: LoginHolderRow,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) expires_at: OffsetDateTime,
    pub(super) made_by_key: Option<ApiKeyId>,
}

#[derive(Deserialize)]
struct OrgRow {
    org_id: OrgId,
}

#[derive(Deserialize)]
struct OutboxRow {
    outbox_seq: u64,
}

impl<'a> AsService<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        function: Function,
        arguments: Value,
    ) -> Result<T, StoreError> {
        self.client.call(Name::Service, function, arguments).await
    }

    async fn first<T: DeserializeOwned>(&self, query: &Query) -> Result<T, StoreError> {
        self.client.rows(Name::Service, query).await?.pop().ok_or(StoreError::NotFound)
    }

    pub(super) async fn schema_version(&self) -> Result<String, StoreError> {
        const VERSION: Function = Function::read("job_schema_version");
        self.call(VERSION, json!({})).await
    }

    /// A session, if it is on this host; any if there is none.
    pub(super) async fn session(&self, host: Option<HostId>, id: SessionId) -> Result<SessionRow, StoreError> {
        super::sessions::read(self.client, Name::Service, id, host).await
    }

    /// Whose a session is.
    pub(super) async fn org_of(&self, id: SessionId) -> Result<OrgId, StoreError> {
        let query = Query::of("user_sessions", "org_id").only(&Filter::eq("id", &id));
        self.first::<OrgRow>(&query).await.map(|row| row.org_id)
    }

    pub(super) async fn unsettled(&self, host: Option<HostId>) -> Result<Vec<SessionRow>, StoreError> {
        const UNSETTLED: Function = Function::read("job_unsettled");
        super::all_rows(|after: Option<&SessionRow>| {
            let query = Query::of("job_unsettled", SESSION_COLUMNS)
                .only_if(after.map(|row| Filter::gt("id", &row.id)))
                .page("", "id.asc", super::PAGE_ROWS)
                .page("spawns", "number.desc", super::sessions::SPAWNS_MAX);
            async move { self.client.rows_of(Name::Service, UNSETTLED, json!({ "p_host": host }), &query).await }
        })
        .await
    }

    pub(super) async fn update_session(
        &self,
        host: Option<HostId>,
        id: SessionId,
        revision: u64,
        change: Value,
        audit: Option<Value>,
        seen: Option<u64>,
    ) -> Result<SessionRow, StoreError> {
        const UPDATE: Function = Function::once("job_update_session");
        let arguments = json!({
            "p_host": host, "p_id": id, "p_revision": revision, "p_change": change, "p_audit": audit, "p_seen": seen,
        });
        self.call(UPDATE, arguments).await
    }

    pub(super) async fn purge_session(
        &self,
        host: Option<HostId>,
        id: SessionId,
        audit: Value,
    ) -> Result<(), StoreError> {
        const PURGE: Function = Function::same("job_purge_session");
        self.call(PURGE, json!({ "p_host": host, "p_id": id, "p_audit": audit })).await
    }

    pub(super) async fn record_audit(
        &self,
        org: OrgId,
        host: Option<HostId>,
        audit: Value,
        seen: Option<u64>,
    ) -> Result<(), StoreError> {
        const RECORD: Function = Function::same("job_record_audit");
        self.call(RECORD, json!({ "p_org": org, "p_host": host, "p_audit": audit, "p_seen": seen })).await
    }

    pub(super) async fn seal_audit(&self, max: u32) -> Result<u64, StoreError> {
        const SEAL: Function = Function::unrecorded("job_seal_audit");
        self.call(SEAL, json!({ "p_max": max })).await
    }

    pub(super) async fn audit_heads(&self) -> Result<Vec<HeadRow>, StoreError> {
        const HEADS: Function = Function::unrecorded("job_audit_heads");
        super::all_rows(|after: Option<&HeadRow>| {
            let query = Query::of("job_audit_heads", HeadRow::COLUMNS)
                .only_if(after.map(|row| Filter::gt("org_id", &row.org())))
                .page("", "org_id.asc", super::PAGE_ROWS);
            async move { self.client.rows_of(Name::Service, HEADS, json!({}), &query).await }
        })
        .await
    }

    pub(super) async fn end_deleted_users(&self, issuer: &str) -> Result<Vec<SessionId>, StoreError> {
        const END: Function = Function::same("job_end_deleted_users");
        self.call(END, json!({ "p_issuer": issuer })).await
    }

    pub(super) async fn sweep(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        const SWEEP: Function = Function::same("job_sweep");
        self.call(SWEEP, json!({ "p_now": rows::time(now) })).await
    }

    pub(super) async fn record_egress(
        &self,
        host: HostId,
        decision: &EgressDecision,
        seen: Option<u64>,
    ) -> Result<(), StoreError> {
        const RECORD: Function = Function::same("job_record_egress");
        let decision = egress::written(decision);
        self.call(RECORD, json!({ "p_host": host, "p_decision": decision, "p_seen": seen })).await
    }

    pub(super) async fn egress(
        &self,
        host: Option<HostId>,
        session: SessionId,
        filter: &EgressFilter,
    ) -> Result<Vec<EgressDecision>, StoreError> {
        let query = egress::page(session, filter).only_if(host.map(|host| Filter::eq("host_id", &host)));
        let found: Vec<EgressOfSession> = self.client.rows(Name::Service, &query).await?;
        egress::decisions(found, session)
    }

    pub(super) async fn create_host(
        &self,
        host: HostId,
        org: Option<OrgId>,
        name: &str,
        audit: Value,
    ) -> Result<(), StoreError> {
        const CREATE: Function = Function::same("job_create_host");
        self.call(CREATE, json!({ "p_host": host, "p_org": org, "p_name": name, "p_audit": audit })).await
    }

    pub(super) async fn host(&self, host: HostId) -> Result<HostRow, StoreError> {
        const HOST: Function = Function::read("job_host");
        let query = Query::of("job_host", HostRow::COLUMNS);
        let found: Vec<HostRow> = self.client.rows_of(Name::Service, HOST, json!({ "p_host": host }), &query).await?;
        found.into_iter().next().ok_or(StoreError::NotFound)
    }

    pub(super) async fn host_connected(&self, host: &HostRecord, audit: Value) -> Result<(), StoreError> {
        const CONNECTED: Function = Function::same("job_host_connected");
        let arguments = json!({
            "p_host": host.id, "p_version": host.version, "p_facts": host.facts, "p_at": host.last_seen_at.map(rows::time),
            "p_audit": audit,
        });
        self.call(CONNECTED, arguments).await
    }

    pub(super) async fn host_seen(&self, host: HostId, at: OffsetDateTime) -> Result<(), StoreError> {
        const SEEN: Function = Function::same("job_host_seen");
        self.call(SEEN, json!({ "p_host": host, "p_at": rows::time(at) })).await
    }

    pub(super) async fn outbox_seen(&self, host: HostId) -> Result<u64, StoreError> {
        let query = Query::of("hosts", "outbox_seq").only(&Filter::eq("id", &host));
        self.first::<OutboxRow>(&query).await.map(|row| row.outbox_seq)
    }

    pub(super) async fn register_token(
        &self,
        hash: &str,
        org: OrgId,
        user: UserId,
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        const REGISTER: Function = Function::same("job_register_token");
        let arguments = json!({
            "p_hash": hash, "p_id": EventId::generate(), "p_org": org, "p_user": user, "p_name": "registered at start",
            "p_at": rows::time(at),
        });
        self.call(REGISTER, arguments).await
    }

    pub(super) async fn register_host_token(
        &self,
        hash: &str,
        host: HostId,
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        const REGISTER: Function = Function::same("job_register_host_token");
        self.call(REGISTER, json!({ "p_hash": hash, "p_host": host, "p_at": rows::time(at) })).await
    }

    pub(super) async fn token(&self, hash: &str) -> Result<Option<HolderRow>, StoreError> {
        const TOKEN: Function = Function::same("job_token");
        self.call(TOKEN, json!({ "p_hash": hash })).await
    }

    pub(super) async fn member(&self, org: OrgId, user: UserId) -> Result<Option<UserRow>, StoreError> {
        const MEMBER: Function = Function::same("job_member");
        self.call(MEMBER, json!({ "p_org": org, "p_user": user })).await
    }

    pub(super) async fn redeem_login_code(
        &self,
        code: &str,
        cookie: &str,
        at: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<Option<UserRow>, StoreError> {
        const REDEEM: Function = Function::once("job_redeem_login_code");
        let arguments = json!({
            "p_code": code, "p_cookie": cookie, "p_at": rows::time(at), "p_expires_at": rows::time(expires_at),
        });
        self.call(REDEEM, arguments).await
    }

    pub(super) async fn browser_session(
        &self,
        hash: &str,
        now: OffsetDateTime,
    ) -> Result<Option<LoginRow>, StoreError> {
        const SESSION: Function = Function::same("job_browser_session");
        self.call(SESSION, json!({ "p_hash": hash, "p_now": rows::time(now) })).await
    }
}
