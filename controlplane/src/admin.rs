//! What the platform's operator does on the machine of the control plane, with the store and beside a server or without one: makes owners, sets
//! quotas, shuts people out, reads the platform's own trail.
//!
//! Whoever may run it has the database anyway. It speaks to the store's traits, so it is the same in a Supabase project. A server that runs learns
//! of it from the store, within half a minute.

mod organizations;
mod people;
mod trail;

use std::path::PathBuf;

use agentapi_shared::api::Quotas;
use agentapi_shared::{ApiKeyId, OrgId, UserId};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tracing::warn;

use crate::audit::{CheckpointError, Checkpoints, seal_all};
use crate::capability::Role;
use crate::config::Config;
use crate::domain::{DomainError, audit, validate};
use crate::identity::api_key::ApiKey;
use crate::identity::mint::MintError;
use crate::identity::project::ProjectKeys;
use crate::server::{make_private, minter};
use crate::store::records::{Founding, Identity, NewApiKey, TenantContext};
use crate::store::{Store, StoreError};
use crate::stores::{Stores, StoresError};

pub use organizations::ListOrganizations;
pub use people::{EnableUser, Ending, PersonArgs};
pub use trail::{PlatformAudit, PlatformAuditVerb};

/// Who vouches for people that are made here.
const ISSUER: &str = "local";

/// Things that an operator does.
#[derive(Debug, Clone, Subcommand)]
pub enum AdminVerb {
    /// Make an organisation with an owner, and print a key of theirs, this once.
    CreateOwner(CreateOwner),
    /// Set how much an organisation may have; what is left out has no limit.
    SetQuotas(SetQuotas),
    /// Show the organisations: whose they are, how much they may have, and have.
    ListOrganizations(ListOrganizations),
    /// Shut somebody out: logins, keys, open terminals and sessions end.
    DisableUser(Ending),
    /// Let somebody in again.
    EnableUser(EnableUser),
    /// Shut somebody out for good, and remove their name, mail and IP addresses; the audit trail still verifies.
    ErasePerson(Ending),
    /// Show the platform's own audit trail: refusals of unknown callers, and operators' acts.
    Audit(PlatformAudit),
}

/// See [`AdminVerb::CreateOwner`].
#[derive(Debug, Clone, Args)]
pub struct CreateOwner {
    /// Their mail address. Taken as theirs: invitations to it are.
    #[arg(long)]
    pub email: String,
    /// Name of the organisation.
    #[arg(long, value_name = "NAME")]
    pub org: String,
    /// Their own name; the mail address if absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// See [`AdminVerb::SetQuotas`].
#[derive(Debug, Clone, Args)]
pub struct SetQuotas {
    /// Id of the organisation.
    #[arg(long, value_name = "ID")]
    pub org: OrgId,
    /// Sessions that live at once.
    #[arg(long, value_name = "N")]
    pub sessions_max: Option<u32>,
    /// Sessions made on one day, in UTC.
    #[arg(long, value_name = "N")]
    pub sessions_per_day_max: Option<u32>,
    /// Terminals attached at once.
    #[arg(long, value_name = "N", visible_alias = "viewers")]
    pub viewers_max: Option<u32>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The data directory.
    #[error("cannot use the data directory")]
    DataDir(#[source] std::io::Error),
    /// The keys of our tokens.
    #[error("cannot make tokens")]
    Mint(#[from] MintError),
    /// There is no store.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// Whoever has this address was shut out.
    #[error("{0} was shut out")]
    ShutOut(String),
    /// There is no such organisation.
    #[error("no organisation has the id {0}")]
    NoOrganization(OrgId),
    /// Nobody is that.
    #[error("nobody here is {0}")]
    NoPerson(String),
    /// Several issuers vouch for somebody with this address.
    #[error("{said} is the address of several: {ids}; name one with --user")]
    SeveralPeople {
        /// The address.
        said: String,
        /// Who they are.
        ids: String,
    },
    /// Organisations would be left alone.
    #[error(
        "nobody else owns {0}: have them make somebody else an owner first (`agentapi member role`), or say --force, and nobody manages it any more"
    )]
    LastOwner(String),
    /// Nothing is left of them.
    #[error("{0} was erased, and does not come back")]
    Erased(UserId),
    /// Nobody said yes.
    #[error("nothing was done: say --yes")]
    NotConfirmed,
    /// The key that exports are signed with.
    #[error("cannot sign")]
    Checkpoints(#[from] CheckpointError),
    /// The trail.
    #[error("cannot hand out the trail")]
    Trail(#[source] DomainError),
    /// Where it is written to.
    #[error("cannot write {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The answer.
    #[error("cannot write the answer")]
    Json(#[source] serde_json::Error),
    /// The store.
    #[error("the store did not do it")]
    Store(#[source] StoreError),
}

/// Does it; gives what is printed, if there is anything to say.
pub async fn run(config: &Config, project: Option<ProjectKeys>, verb: AdminVerb) -> Result<Option<String>, AdminError> {
    make_private(&config.data_dir).map_err(AdminError::DataDir)?;
    let store = Stores::open(&config.data_dir, project, minter(config)?).await?.store();
    // A server that runs seals what it writes itself, and only then looks.
    if matches!(verb, AdminVerb::Audit(_)) {
        seal_all(&*store).await.map_err(AdminError::Store)?;
    }
    let said = act(config, &*store, verb).await?;
    if let Err(failure) = seal_all(&*store).await {
        warn!(error = &failure as &dyn std::error::Error, "done, and its record is not sealed yet; the server does it");
    }
    Ok(said)
}

async fn act(config: &Config, store: &dyn Store, verb: AdminVerb) -> Result<Option<String>, AdminError> {
    match verb {
        AdminVerb::CreateOwner(wanted) => create_owner(store, wanted).await.map(Some),
        AdminVerb::SetQuotas(wanted) => set_quotas(store, &wanted).await.map(Some),
        AdminVerb::ListOrganizations(wanted) => organizations::list(store, &wanted).await.map(Some),
        AdminVerb::DisableUser(wanted) => people::disable(store, &wanted).await.map(Some),
        AdminVerb::EnableUser(wanted) => people::enable(store, &wanted).await.map(Some),
        AdminVerb::ErasePerson(wanted) => people::erase(store, &wanted).await.map(Some),
        AdminVerb::Audit(PlatformAudit { verb: Some(PlatformAuditVerb::Export { after, output }), .. }) => {
            let dir = config.audit_checkpoint_dir.as_deref().unwrap_or(&config.data_dir);
            let checkpoints = Checkpoints::open(&config.data_dir, dir)?;
            trail::export(store, &checkpoints, after, output.as_deref()).await
        }
        AdminVerb::Audit(wanted) => trail::list(store, &wanted).await.map(Some),
    }
}

/// Columns as wide as what is in them; the last one ends where it ends.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What others wrote must not drive the terminal of whoever looks.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn create_owner(store: &dyn Store, wanted: CreateOwner) -> Result<String, AdminError> {
    validate::email_address(&wanted.email).map_err(|fault| invalid(&fault))?;
    validate::organization_name("org", &wanted.org).map_err(|fault| invalid(&fault))?;
    let email = wanted.email.to_lowercase();
    let identity = Identity {
        user: UserId::generate(),
        issuer: ISSUER.to_owned(),
        // Whoever is made twice is one person.
        subject: email.clone(),
        name: Some(wanted.name.unwrap_or_else(|| email.clone())),
        email: Some(email.clone()),
        email_verified: true,
    };
    let user = store.log_in(identity).await.map_err(AdminError::Store)?;
    let user = user.ok_or_else(|| AdminError::ShutOut(email.clone()))?;
    let (org, id, key) = (OrgId::generate(), ApiKeyId::generate(), ApiKey::generate());
    let tenant = TenantContext { org, user, role: Role::Owner, token: None };
    let entry = |action, detail: Value| audit::of_operator(action, detail);
    let made = entry("organization.create", json!({ "organization": org }));
    let founded = store.create_organization(tenant.clone(), org, wanted.org.clone(), Founding::Operator, made).await;
    founded.map_err(AdminError::Store)?;
    let new = NewApiKey {
        id,
        name: "first".to_owned(),
        prefix: key.shown().to_owned(),
        hash: key.hash(),
        scopes: Vec::new(),
        expires_at: None,
        made_by: None,
    };
    let made = entry("api_key.create", json!({ "api_key": id }));
    store.create_api_key(tenant, new, made).await.map_err(AdminError::Store)?;
    if wanted.json {
        let answer = json!({
            "user_id": user, "email": email, "organization_id": org, "organization": wanted.org, "api_key_id": id,
            "key": key.expose(),
        });
        return Ok(answer.to_string());
    }
    let lines = [
        format!("owner         {email} ({user})"),
        format!("organisation  {} ({org})", wanted.org),
        format!("API key       {}", key.expose()),
        "Keep the key: it is not shown again.".to_owned(),
    ];
    Ok(lines.join("\n"))
}

async fn set_quotas(store: &dyn Store, wanted: &SetQuotas) -> Result<String, AdminError> {
    let &SetQuotas { sessions_max, sessions_per_day_max, viewers_max, .. } = wanted;
    let quotas = Quotas { sessions_max, sessions_per_day_max, viewers_max };
    let entry = audit::of_operator("organization.quotas", json!(quotas));
    store.set_quotas(wanted.org, quotas, entry).await.map_err(|error| match error {
        StoreError::NotFound => AdminError::NoOrganization(wanted.org),
        other => AdminError::Store(other),
    })?;
    if wanted.json {
        return Ok(json!({ "organization_id": wanted.org, "quotas": quotas }).to_string());
    }
    let words = |limit: Option<u32>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    Ok(format!(
        "sessions at once: {}; sessions a day: {}; terminals at once: {}",
        words(sessions_max),
        words(sessions_per_day_max),
        words(viewers_max)
    ))
}

fn invalid(fault: &DomainError) -> AdminError {
    let DomainError::Invalid(errors) = fault else { return AdminError::Invalid(fault.to_string()) };
    let faults: Vec<String> = errors.iter().map(|error| format!("--{}: {}", error.field, error.message)).collect();
    AdminError::Invalid(faults.join("; "))
}

#[cfg(test)]
mod tests {
    use agentapi_shared::EventId;

    use super::*;
    use crate::auth::Secret;
    use crate::store::records::Holder;
    use crate::store::sqlite::Sqlite;

    fn owner(email: &str, org: &str) -> CreateOwner {
        CreateOwner { email: email.to_owned(), org: org.to_owned(), name: None, json: true }
    }

    #[tokio::test]
    async fn an_owner_is_made_with_a_key_and_quotas_are_set() {
        let dir = std::env::temp_dir().join(format!("admin-{}", EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        let store = Sqlite::open(&dir.join("controlplane.db")).unwrap();
        let made = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let first = made(create_owner(&store, owner("Ada@example.com", "One")).await.unwrap());
        let second = made(create_owner(&store, owner("ada@Example.com", "Two")).await.unwrap());
        // One person, two organisations.
        assert_eq!(first["user_id"], second["user_id"]);
        assert_ne!(first["organization_id"], second["organization_id"]);
        let hash = Secret::from_text(first["key"].as_str().unwrap().to_owned()).hash();
        let found = crate::store::CredentialStore::token(&store, hash).await.unwrap();
        let Some(Holder::User(holder)) = found else { panic!("{found:?}") };
        assert_eq!((holder.role, holder.organization.as_str()), (Role::Owner, "One"));
        let org = holder.org;
        let quotas =
            SetQuotas { org, sessions_max: Some(3), sessions_per_day_max: None, viewers_max: Some(7), json: false };
        let set = set_quotas(&store, &quotas).await.unwrap();
        assert_eq!(set, "sessions at once: 3; sessions a day: no limit; terminals at once: 7");
        let unknown = SetQuotas { org: OrgId::generate(), ..quotas };
        assert!(matches!(set_quotas(&store, &unknown).await, Err(AdminError::NoOrganization(_))));
        for (email, org, flag) in [("ada", "One", "--email"), ("ada@example.com", "", "--org")] {
            let refused = create_owner(&store, owner(email, org)).await.unwrap_err().to_string();
            assert!(refused.starts_with(flag), "{refused}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
