//! Jobs of the platform's operator, and the first sight of a login.

use agentapi_shared::UserId;
use agentapi_shared::audit::PLATFORM;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AsService, Filter, Function, Query, rows};
use crate::store::postgrest::audit::SealRow;
use crate::store::postgrest::client::Name;
use crate::store::records::{Erased, LastOwner, OrganizationOverview, PersonRecord, Sight, Who};
use crate::store::{Scope, StoreError};

#[derive(Deserialize)]
struct SequenceRow {
    seq: u64,
}

impl AsService<'_> {
    pub(in crate::store::postgrest) async fn overview(&self) -> Result<Vec<OrganizationOverview>, StoreError> {
        const OVERVIEW: Function = Function::unrecorded("job_organizations");
        self.call(OVERVIEW, json!({})).await
    }

    pub(in crate::store::postgrest) async fn people(&self, who: &Who) -> Result<Vec<PersonRecord>, StoreError> {
        const PEOPLE: Function = Function::unrecorded("job_people");
        let arguments = match who {
            Who::User(user) => json!({ "p_user": user, "p_email": null }),
            Who::Email(email) => json!({ "p_user": null, "p_email": email }),
        };
        self.call(PEOPLE, arguments).await
    }

    pub(in crate::store::postgrest) async fn disable_user(
        &self,
        user: UserId,
        last_owner: LastOwner,
        audit: Value,
    ) -> Result<u64, StoreError> {
        const DISABLE: Function = Function::once("job_disable_user");
        let force = last_owner == LastOwner::Goes;
        self.call(DISABLE, json!({ "p_user": user, "p_disabled": true, "p_force": force, "p_audit": audit })).await
    }

    pub(in crate::store::postgrest) async fn enable_user(&self, user: UserId, audit: Value) -> Result<(), StoreError> {
        const ENABLE: Function = Function::once("job_disable_user");
        let arguments = json!({ "p_user": user, "p_disabled": false, "p_force": false, "p_audit": audit });
        self.call::<u64>(ENABLE, arguments).await.map(drop)
    }

    pub(in crate::store::postgrest) async fn erase_person(
        &self,
        user: UserId,
        last_owner: LastOwner,
        audit: Value,
    ) -> Result<Erased, StoreError> {
        const ERASE: Function = Function::once("job_erase_person");
        let force = last_owner == LastOwner::Goes;
        self.call(ERASE, json!({ "p_user": user, "p_force": force, "p_audit": audit })).await
    }

    /// The newest number of the platform's chain.
    pub(in crate::store::postgrest) async fn platform_head(&self) -> Result<u64, StoreError> {
        let query = Query::of("audit_seals", "seq").only(&Filter::eq("org_id", &PLATFORM)).page("", "seq.desc", 1);
        match self.first::<SequenceRow>(&query).await {
            Ok(row) => Ok(row.seq),
            Err(StoreError::NotFound) => Ok(0),
            Err(other) => Err(other),
        }
    }

    pub(in crate::store::postgrest) async fn platform_records(&self, page: &Query) -> Result<Vec<SealRow>, StoreError> {
        self.client.rows(Name::Service, &page.clone().only(&Filter::eq("org_id", &PLATFORM))).await
    }

    pub(in crate::store::postgrest) async fn see_session(&self, sight: &Sight) -> Result<bool, StoreError> {
        const SEE: Function = Function::same("job_see_session");
        let Sight { hash, tenant, audit } = sight;
        let record = audit.argument(tenant.org, &Scope::Tenant(tenant.clone()));
        let arguments = json!({
            "p_hash": hash, "p_org": tenant.org, "p_user": tenant.user, "p_at": rows::time(audit.at), "p_audit": record,
        });
        self.call(SEE, arguments).await
    }
}
