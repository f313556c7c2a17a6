//! Shutting people out, letting them in again, and erasing what is personal of them.

use std::io::{IsTerminal as _, Write as _};

use agentapi_shared::UserId;
use clap::Args;
use serde_json::json;

use super::{AdminError, clean};
use crate::domain::audit;
use crate::store::records::{LastOwner, PersonRecord, Who};
use crate::store::{Store, StoreError};

/// Who is meant.
#[derive(Debug, Clone, Args)]
#[group(id = "person", required = true, multiple = false)]
pub struct PersonArgs {
    /// Their mail address.
    #[arg(long)]
    pub email: Option<String>,
    /// Their id.
    #[arg(long, value_name = "ID")]
    pub user: Option<UserId>,
}

/// What ends somebody's access.
#[derive(Debug, Clone, Args)]
pub struct Ending {
    /// Who.
    #[command(flatten)]
    pub person: PersonArgs,
    /// Also if an organisation is left without an owner who may do anything.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// See [`super::AdminVerb::EnableUser`].
#[derive(Debug, Clone, Args)]
pub struct EnableUser {
    /// Who.
    #[command(flatten)]
    pub person: PersonArgs,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn disable(store: &dyn Store, wanted: &Ending) -> Result<String, AdminError> {
    let person = find(store, &wanted.person).await?;
    let name = called(&person);
    confirm(wanted, &format!("{name} loses all access, and their sessions are stopped."))?;
    let entry = audit::of_platform("user.disable", json!({ "user": person.id, "force": wanted.force }));
    let done = store.disable_user(person.id, last_owner(wanted), entry).await;
    let sessions = done.map_err(|error| refused(error, &person))?;
    if wanted.json {
        return Ok(json!({ "user_id": person.id, "disabled": true, "sessions_stopped": sessions }).to_string());
    }
    Ok(format!("{name} is shut out; sessions that are stopped: {sessions}. What they have open ends within a minute."))
}

pub(super) async fn enable(store: &dyn Store, wanted: &EnableUser) -> Result<String, AdminError> {
    let person = find(store, &wanted.person).await?;
    let entry = audit::of_platform("user.enable", json!({ "user": person.id }));
    store.enable_user(person.id, entry).await.map_err(|error| refused(error, &person))?;
    if wanted.json {
        return Ok(json!({ "user_id": person.id, "disabled": false }).to_string());
    }
    Ok(format!("{} may log in again; their keys that did not end are good again", called(&person)))
}

pub(super) async fn erase(store: &dyn Store, wanted: &Ending) -> Result<String, AdminError> {
    let person = find(store, &wanted.person).await?;
    let name = called(&person);
    let warning = "loses all access for good, their sessions are stopped, and their name, mail and IP addresses are removed. This cannot be undone.";
    confirm(wanted, &format!("{name} {warning}"))?;
    let entry = audit::of_platform("user.erase", json!({ "user": person.id, "force": wanted.force }));
    let done = store.erase_person(person.id, last_owner(wanted), entry).await;
    let erased = done.map_err(|error| refused(error, &person))?;
    if wanted.json {
        let answer = json!({
            "user_id": person.id, "erased": true, "records_concerned": erased.records, "sessions_stopped": erased.sessions,
        });
        return Ok(answer.to_string());
    }
    Ok(format!(
        "erased {}: {} audit records lost what was personal, and hold; sessions that are stopped: {}. What they have open ends within a minute.",
        person.id, erased.records, erased.sessions
    ))
}

fn last_owner(wanted: &Ending) -> LastOwner {
    if wanted.force { LastOwner::Goes } else { LastOwner::Stays }
}

async fn find(store: &dyn Store, args: &PersonArgs) -> Result<PersonRecord, AdminError> {
    let (who, said) = match (&args.user, &args.email) {
        (Some(user), _) => (Who::User(*user), user.to_string()),
        (None, email) => {
            let email = email.clone().unwrap_or_default();
            (Who::Email(email.clone()), email)
        }
    };
    let mut found = store.people(who).await.map_err(AdminError::Store)?;
    let person = found.pop().ok_or(AdminError::NoPerson(said.clone()))?;
    if found.is_empty() {
        return Ok(person);
    }
    let all = found.iter().chain([&person]).map(|person| format!("{} of {}", person.id, clean(&person.issuer)));
    Err(AdminError::SeveralPeople { said, ids: all.collect::<Vec<_>>().join(", ") })
}

fn called(person: &PersonRecord) -> String {
    let name = person.email.as_ref().or(person.name.as_ref()).map_or_else(|| "somebody".to_owned(), |name| clean(name));
    format!("{name} ({})", person.id)
}

fn refused(error: StoreError, person: &PersonRecord) -> AdminError {
    match error {
        StoreError::Refused(word) if word == "last_owner" => {
            let alone = person.organizations.iter().filter(|organization| organization.alone);
            let names = alone.map(|organization| format!("{} ({})", clean(&organization.name), organization.id));
            AdminError::LastOwner(names.collect::<Vec<_>>().join(", "))
        }
        StoreError::Refused(word) if word == "erased" => AdminError::Erased(person.id),
        other => AdminError::Store(other),
    }
}

/// Asks whoever sits before it; a script has to say that it means it.
fn confirm(wanted: &Ending, what: &str) -> Result<(), AdminError> {
    if wanted.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(AdminError::NotConfirmed);
    }
    let mut answer = String::new();
    let asked = write!(std::io::stderr(), "{what}\nContinue? [y/N] ")
        .and_then(|()| std::io::stderr().flush())
        .and_then(|()| std::io::stdin().read_line(&mut answer));
    match asked {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        _ => Err(AdminError::NotConfirmed),
    }
}
