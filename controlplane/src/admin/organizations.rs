//! Which organisations there are: whose, how much they may have and have. No tenant's data.

use agentapi_shared::api::Quotas;
use clap::Args;

use super::{AdminError, clean, table};
use crate::store::Store;
use crate::store::records::{OrganizationOverview, Owner};

/// See [`super::AdminVerb::ListOrganizations`].
#[derive(Debug, Clone, Args)]
pub struct ListOrganizations {
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn list(store: &dyn Store, wanted: &ListOrganizations) -> Result<String, AdminError> {
    let found = store.overview().await.map_err(AdminError::Store)?;
    if wanted.json {
        return serde_json::to_string(&serde_json::json!({ "data": found })).map_err(AdminError::Json);
    }
    let head = ["ID", "NAME", "OWNERS", "MEMBERS", "HOSTS", "RUNNING", "TODAY"].map(str::to_owned);
    let rows = std::iter::once(head.to_vec()).chain(found.iter().map(row)).collect::<Vec<_>>();
    Ok(table(&rows))
}

fn row(organization: &OrganizationOverview) -> Vec<String> {
    let OrganizationOverview { id, name, owners, members, hosts, sessions_running, sessions_today, .. } = organization;
    let Quotas { sessions_max, sessions_per_day_max, .. } = organization.quotas;
    let of = |has: u64, most: Option<u32>| most.map_or_else(|| has.to_string(), |most| format!("{has}/{most}"));
    let owners: Vec<String> = owners.iter().map(called).collect();
    vec![
        id.to_string(),
        clean(name),
        if owners.is_empty() { "nobody".to_owned() } else { owners.join(", ") },
        members.to_string(),
        hosts.to_string(),
        of(*sessions_running, sessions_max),
        of(*sessions_today, sessions_per_day_max),
    ]
}

fn called(owner: &Owner) -> String {
    let name = owner.email.as_ref().or(owner.name.as_ref());
    let name = name.map_or_else(|| owner.id.to_string(), |name| clean(name));
    if owner.disabled { format!("{name} (shut out)") } else { name }
}
