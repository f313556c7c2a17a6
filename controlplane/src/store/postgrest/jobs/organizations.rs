//! Quotas, logins, hosts that enrol, and sessions whose time is over, in the control plane's own name.

use agentapi_shared::api::{InvitedTo, Quotas};
use agentapi_shared::{HostId, OrgId, SessionId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::AsService;
use crate::store::StoreError;
use crate::store::postgrest::client::Function;
use crate::store::postgrest::filter::{Filter, Query};
use crate::store::postgrest::rows;
use crate::store::records::{Expiry, Identity, Overdue, Rotation};

#[derive(Debug, Deserialize)]
struct LoggedIn {
    id: UserId,
    disabled_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HostOrg {
    org_id: Option<OrgId>,
}

#[derive(Debug, Deserialize)]
struct ExpiryRow {
    due: Vec<DueRow>,
    #[serde(with = "time::serde::rfc3339::option")]
    next: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
struct DueRow {
    id: SessionId,
    why: Why,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    Idle,
    Age,
    Retention,
}

impl AsService<'_> {
    pub(in crate::store::postgrest) async fn set_quotas(
        &self,
        org: OrgId,
        quotas: Quotas,
        audit: Value,
    ) -> Result<(), StoreError> {
        const SET: Function = Function::same("job_set_quotas");
        let arguments = json!({
            "p_org": org, "p_sessions_max": quotas.sessions_max, "p_sessions_per_day_max": quotas.sessions_per_day_max,
            "p_viewers_max": quotas.viewers_max, "p_audit": audit,
        });
        self.call(SET, arguments).await
    }

    pub(in crate::store::postgrest) async fn log_in(&self, identity: &Identity) -> Result<Option<UserId>, StoreError> {
        const LOGIN: Function = Function::same("job_login");
        let arguments = json!({
            "p_user": identity.user, "p_kind": "person", "p_issuer": identity.issuer, "p_subject": identity.subject,
            "p_name": identity.name, "p_email": identity.email, "p_email_verified": identity.email_verified,
        });
        let found: LoggedIn = self.call(LOGIN, arguments).await?;
        Ok(found.disabled_at.is_none().then_some(found.id))
    }

    pub(in crate::store::postgrest) async fn invited_to(
        &self,
        org: OrgId,
        token_hash: &str,
    ) -> Result<Option<InvitedTo>, StoreError> {
        const INVITATION: Function = Function::unrecorded("job_invitation");
        self.call(INVITATION, json!({ "p_org": org, "p_token_hash": token_hash })).await
    }

    pub(in crate::store::postgrest) async fn redeem_host_enrolment(
        &self,
        token_hash: &str,
        host: HostId,
        credential_hash: &str,
        at: OffsetDateTime,
    ) -> Result<Option<OrgId>, StoreError> {
        const REDEEM: Function = Function::once("job_redeem_host_enrolment");
        let arguments = json!({
            "p_hash": token_hash, "p_host": host, "p_credential": credential_hash, "p_at": rows::time(at),
        });
        self.call(REDEEM, arguments).await
    }

    /// Whose a host is.
    pub(in crate::store::postgrest) async fn org_of_host(&self, host: HostId) -> Result<Option<OrgId>, StoreError> {
        let query = Query::of("hosts", "org_id").only(&Filter::eq("id", &host));
        self.first::<HostOrg>(&query).await.map(|row| row.org_id)
    }

    pub(in crate::store::postgrest) async fn rotate_host_credential(
        &self,
        host: HostId,
        rotation: &Rotation,
        audit: Value,
    ) -> Result<(), StoreError> {
        const ROTATE: Function = Function::once("job_rotate_host_credential");
        let arguments = json!({ "p_host": host, "p_credential": rotation.new, "p_shown": rotation.shown,
            "p_others_end_at": rows::time(rotation.others_end_at), "p_audit": audit });
        self.call(ROTATE, arguments).await
    }

    pub(in crate::store::postgrest) async fn confirm_host_credential(
        &self,
        credential_hash: &str,
        others_end_at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        const CONFIRM: Function = Function::same("job_confirm_host_credential");
        let arguments = json!({ "p_credential": credential_hash, "p_others_end_at": rows::time(others_end_at) });
        self.call(CONFIRM, arguments).await
    }

    pub(in crate::store::postgrest) async fn expiry(&self, now: OffsetDateTime) -> Result<Expiry, StoreError> {
        const EXPIRY: Function = Function::same("job_expiry");
        let found: ExpiryRow = self.call(EXPIRY, json!({ "p_now": rows::time(now) })).await?;
        let due = found.due.into_iter().map(|row| {
            let why = match row.why {
                Why::Idle => Overdue::Idle,
                Why::Age => Overdue::Age,
                Why::Retention => Overdue::Retention,
            };
            (row.id, why)
        });
        Ok(Expiry { due: due.collect(), next: found.next })
    }
}
