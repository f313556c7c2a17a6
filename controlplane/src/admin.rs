//! What the platform's operator does on the machine of the control plane, with the store and without a server: makes owners, sets quotas.
//!
//! Whoever may run it has the database anyway. It speaks to the store's traits, so it is the same in a Supabase project.

use agentapi_shared::api::Quotas;
use agentapi_shared::{ApiKeyId, OrgId, UserId};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::capability::Role;
use crate::config::Config;
use crate::domain::{DomainError, audit, validate};
use crate::identity::api_key::ApiKey;
use crate::identity::mint::MintError;
use crate::identity::project::ProjectKeys;
use crate::server::{make_private, minter};
use crate::store::records::{Identity, NewApiKey, TenantContext};
use crate::store::{Store, StoreError};
use crate::stores::{Stores, StoresError};

/// Who vouches for people that are made here.
const ISSUER: &str = "local";

/// Things that an operator does.
#[derive(Debug, Clone, Subcommand)]
pub enum AdminVerb {
    /// Make an organisation with an owner, and print a key of theirs, this once.
    CreateOwner(CreateOwner),
    /// Set how much an organisation may have; what is left out has no limit.
    SetQuotas(SetQuotas),
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
    /// The store.
    #[error("the store did not do it")]
    Store(#[source] StoreError),
}

/// Does it; gives what is printed.
pub async fn run(config: &Config, project: Option<ProjectKeys>, verb: AdminVerb) -> Result<String, AdminError> {
    make_private(&config.data_dir).map_err(AdminError::DataDir)?;
    let store = Stores::open(&config.data_dir, project, minter(config)?).await?.store();
    match verb {
        AdminVerb::CreateOwner(wanted) => create_owner(&*store, wanted).await,
        AdminVerb::SetQuotas(wanted) => set_quotas(&*store, &wanted).await,
    }
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
    store.create_organization(tenant.clone(), org, wanted.org.clone(), made).await.map_err(AdminError::Store)?;
    let new = NewApiKey {
        id,
        name: "first".to_owned(),
        prefix: key.shown().to_owned(),
        hash: key.hash(),
        scopes: Vec::new(),
        expires_at: None,
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
