//! What is asked in the name of a caller, with the caller's own token: the database decides.

mod organizations;

use agentapi_shared::egress::EgressDecision;
use agentapi_shared::{OrgId, SessionId};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::audit::SealRow;
use super::client::{Client, Function, Name};
use super::egress::{self, EgressOfSession};
use super::filter::{Filter, Query};
use super::rows::{self, HostRow, ReplayRow, SESSION_COLUMNS, SessionRow};
use crate::store::StoreError;
use crate::store::records::{CallerToken, EgressFilter, IdempotencyKey, NewLoginCode, SessionFilter};

/// Requests that carry a caller's token and never the key of the service role.
#[derive(Debug)]
pub(super) struct AsCaller<'a> {
    client: &'a Client,
    token: CallerToken,
    from: TokenFrom,
    org: OrgId,
}

/// Whose word a caller's token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFrom {
    /// The caller's.
    Caller,
    /// Ours.
    Us,
}

/// What `make_session` gives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CreatedRow {
    Made { sandbox_policy: Option<Value> },
    Replay(ReplayRow),
}

impl<'a> AsCaller<'a> {
    pub(super) fn new(client: &'a Client, token: CallerToken, from: TokenFrom, org: OrgId) -> Self {
        Self { client, token, from, org }
    }

    /// In which organisation.
    pub(super) fn org(&self) -> OrgId {
        self.org
    }

    fn name(&self) -> Name<'_> {
        match self.from {
            TokenFrom::Caller => Name::Caller(&self.token),
            TokenFrom::Us => Name::SpokenFor(&self.token),
        }
    }

    pub(super) async fn call<T: serde::de::DeserializeOwned>(
        &self,
        function: Function,
        arguments: Value,
    ) -> Result<T, StoreError> {
        self.client.call(self.name(), function, arguments).await
    }

    pub(super) async fn create_session(
        &self,
        session: Value,
        key: Option<&IdempotencyKey>,
        audit: Value,
    ) -> Result<CreatedRow, StoreError> {
        const CREATE: Function = Function::once("make_session");
        let key = key.map(rows::key);
        let arguments = json!({ "p_org": self.org, "p_session": session, "p_key": key, "p_audit": audit });
        self.call(CREATE, arguments).await
    }

    pub(super) async fn update_session(
        &self,
        id: SessionId,
        revision: u64,
        change: Value,
        audit: Option<Value>,
    ) -> Result<SessionRow, StoreError> {
        const UPDATE: Function = Function::once("update_session");
        let arguments =
            json!({ "p_org": self.org, "p_id": id, "p_revision": revision, "p_change": change, "p_audit": audit });
        self.call(UPDATE, arguments).await
    }

    pub(super) async fn purge_session(&self, id: SessionId, audit: Value) -> Result<(), StoreError> {
        const PURGE: Function = Function::same("purge_session");
        self.call(PURGE, json!({ "p_org": self.org, "p_id": id, "p_audit": audit })).await
    }

    pub(super) async fn session(&self, id: SessionId) -> Result<SessionRow, StoreError> {
        let row = super::sessions::read(self.client, self.name(), id, None).await?;
        // The caller sees those of each organisation they are in.
        if row.org_id == self.org { Ok(row) } else { Err(StoreError::NotFound) }
    }

    pub(super) async fn sessions_page(&self, filter: &SessionFilter) -> Result<Vec<SessionRow>, StoreError> {
        const PAGE: Function = Function::read("sessions_page");
        let labels: serde_json::Map<String, Value> =
            filter.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let arguments = json!({
            "p_org": self.org, "p_limit": filter.limit, "p_before": filter.before, "p_state": filter.state,
            "p_agent": filter.agent, "p_host": filter.host, "p_labels": labels,
        });
        let query = Query::of("sessions_page", SESSION_COLUMNS).page("", "id.desc", filter.limit).page(
            "spawns",
            "number.desc",
            super::sessions::SPAWNS_MAX,
        );
        self.client.rows_of(self.name(), PAGE, arguments, &query).await
    }

    pub(super) async fn egress(
        &self,
        session: SessionId,
        filter: &EgressFilter,
    ) -> Result<Vec<EgressDecision>, StoreError> {
        let query = egress::page(session, filter).only(&Filter::eq("org_id", &self.org));
        let found: Vec<EgressOfSession> = self.client.rows(self.name(), &query).await?;
        egress::decisions(found, session)
    }

    pub(super) async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        const HOSTS: Function = Function::read("hosts_of");
        super::all_rows(|after: Option<&HostRow>| {
            let after = after.map(|row| Filter::gt("id", &row.id()));
            let query = Query::of("hosts_of", HostRow::COLUMNS).only_if(after).page("", "id.asc", super::PAGE_ROWS);
            async move { self.client.rows_of(self.name(), HOSTS, json!({ "p_org": self.org }), &query).await }
        })
        .await
    }

    pub(super) async fn begin_idempotent(
        &self,
        key: &IdempotencyKey,
        at: OffsetDateTime,
    ) -> Result<ReplayRow, StoreError> {
        const BEGIN: Function = Function::once("begin_idempotent");
        self.call(BEGIN, json!({ "p_org": self.org, "p_key": rows::key(key), "p_at": rows::time(at) })).await
    }

    pub(super) async fn finish_idempotent(
        &self,
        key: &IdempotencyKey,
        status: u16,
        body: &str,
    ) -> Result<(), StoreError> {
        const FINISH: Function = Function::same("finish_idempotent");
        let arguments = json!({ "p_org": self.org, "p_key": rows::key(key), "p_status": status, "p_body": body });
        self.call(FINISH, arguments).await
    }

    pub(super) async fn release_idempotent(&self, key: &IdempotencyKey) -> Result<(), StoreError> {
        // Another request may have taken it after the first release.
        const RELEASE: Function = Function::once("release_idempotent");
        self.call(RELEASE, json!({ "p_org": self.org, "p_key": rows::key(key) })).await
    }

    pub(super) async fn record_audit(&self, audit: Value) -> Result<(), StoreError> {
        const RECORD: Function = Function::same("record_audit");
        self.call(RECORD, json!({ "p_org": self.org, "p_audit": audit })).await
    }

    /// The newest number of the organisation's chain.
    pub(super) async fn audit_head(&self) -> Result<u64, StoreError> {
        #[derive(Deserialize)]
        struct Row {
            seq: u64,
        }
        let query = Query::of("audit_seals", "seq").only(&Filter::eq("org_id", &self.org)).page("", "seq.desc", 1);
        let found: Vec<Row> = self.client.rows(self.name(), &query).await?;
        Ok(found.first().map_or(0, |row| row.seq))
    }

    pub(super) async fn audit_records(&self, page: &Query) -> Result<Vec<SealRow>, StoreError> {
        self.client.rows(self.name(), &page.clone().only(&Filter::eq("org_id", &self.org))).await
    }

    pub(super) async fn create_login_code(&self, new: &NewLoginCode, audit: Value) -> Result<(), StoreError> {
        const CREATE: Function = Function::once("create_login_code");
        let arguments = json!({
            "p_org": self.org, "p_hash": new.hash, "p_expires_at": rows::time(new.expires_at), "p_audit": audit,
            "p_made_by": new.made_by,
        });
        self.call(CREATE, arguments).await
    }

    pub(super) async fn end_browser_session(&self, hash: &str, audit: Value) -> Result<(), StoreError> {
        const END: Function = Function::same("end_browser_session");
        self.call(END, json!({ "p_org": self.org, "p_hash": hash, "p_audit": audit })).await
    }
}
