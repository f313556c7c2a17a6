//! `agentapi org`, `member`, `invite` and `key`.

use agentapi_shared::UserId;
use agentapi_shared::api::{
    AcceptInvitation, ApiKey, CreateApiKey, CreateInvitation, CreateOrganization, Invitation, InvitationLink,
    InvitedTo, Member, NewApiKey, Organization, OrganizationSettings, Page, SetMemberRole, UpdateOrganization,
};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::{GlobalArgs, InviteCommand, KeyCommand, Limit, MemberCommand, OrgCommand, OrgUpdateArgs, described};
use crate::client::Client;
use crate::config::{self, Environment};
use crate::failure::{ExitKind, Failure};
use crate::output::{self, age, clean};

/// A token is some dozen characters; a file with more is another one.
const TOKEN_BYTES_MAX: u64 = 4096;

fn client(global: &GlobalArgs, env: &Environment) -> anyhow::Result<Client> {
    Ok(Client::new(config::server(global, env)?)?)
}

/// Runs a command about organisations.
pub(crate) async fn org(command: &OrgCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = client(global, env)?;
    match command {
        OrgCommand::List => {
            let found: Vec<Organization> = client.list("organizations").await?;
            if global.json {
                return output::json(&Page { data: found, next_cursor: None });
            }
            let row = |org: &Organization| {
                let current = if org.current { "current" } else { "" };
                vec![org.id.to_string(), org.name.clone(), org.role.clone(), current.to_owned()]
            };
            output::table(&["ID", "NAME", "YOUR ROLE", ""], &found.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        OrgCommand::Show(of) => {
            let id = match of.org {
                Some(id) => id,
                None => current(&client).await?.id,
            };
            show(&client.read(&format!("organizations/{id}")).await?, global.json)
        }
        OrgCommand::Create { name } => {
            let body = CreateOrganization { name: name.clone() };
            show(&client.post("organizations", &body).await?, global.json)
        }
        OrgCommand::Update(args) => update(&client, args, global.json).await,
    }
}

/// The organisation that the key is of.
async fn current(client: &Client) -> anyhow::Result<Organization> {
    let found: Vec<Organization> = client.list("organizations").await?;
    let none = || Failure::new(ExitKind::Failure, "this key is in no organisation");
    Ok(found.into_iter().find(|org| org.current).ok_or_else(none)?)
}

async fn update(client: &Client, args: &OrgUpdateArgs, json: bool) -> anyhow::Result<()> {
    let before: Organization = match args.org.org {
        Some(id) => client.read(&format!("organizations/{id}")).await?,
        None => current(client).await?,
    };
    let settings = settings(args, &before.settings)?;
    let body = UpdateOrganization {
        name: args.name.clone(),
        // Written over what was read just now, and over nothing newer.
        revision: settings.is_some().then_some(before.revision),
        settings,
    };
    show(&client.patch(&format!("organizations/{}", before.id), &body).await?, json)
}

/// The settings with what is to change; none if nothing is.
fn settings(args: &OrgUpdateArgs, before: &OrganizationSettings) -> anyhow::Result<Option<OrganizationSettings>> {
    let mut wanted = before.clone();
    if let Some(Limit(idle)) = args.idle {
        wanted.session_idle_seconds_max = idle;
    }
    if let Some(Limit(age)) = args.age {
        wanted.session_age_seconds_max = age;
    }
    if let Some(Limit(days)) = args.retention_days {
        wanted.session_retention_days = days.map(u32::try_from).transpose()?;
    }
    match args.agents.as_slice() {
        [] => {}
        [any] if any == "any" => wanted.agents = None,
        agents => wanted.agents = Some(agents.to_vec()),
    }
    wanted.sandbox = args.sandbox.applied(before.sandbox.as_ref());
    Ok((wanted != *before).then_some(wanted))
}

fn show(org: &Organization, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(org);
    }
    let time = |seconds: Option<u64>| match seconds.map(i64::try_from) {
        Some(Ok(seconds)) => age(time::Duration::seconds(seconds)),
        _ => "no limit".to_owned(),
    };
    let count = |limit: Option<u32>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let settings = &org.settings;
    let days = match settings.session_retention_days {
        None => "for ever".to_owned(),
        Some(1) => "1 day".to_owned(),
        Some(days) => format!("{days} days"),
    };
    let agents = settings.agents.as_ref().map_or_else(|| "all".to_owned(), |agents| agents.join(", "));
    for (name, value) in [
        ("id", org.id.to_string()),
        ("name", clean(&org.name)),
        ("your role", clean(&org.role)),
        ("idle at most", time(settings.session_idle_seconds_max)),
        ("runs at most", time(settings.session_age_seconds_max)),
        ("kept after the end", days),
        ("agents", clean(&agents)),
        ("sandboxes", clean(&described(settings.sandbox.as_ref()))),
        ("sessions at once", count(org.quotas.sessions_max)),
        ("sessions a day", count(org.quotas.sessions_per_day_max)),
        ("terminals at once", count(org.quotas.viewers_max)),
    ] {
        output::line(&format!("{name:<22}{value}"));
    }
    Ok(())
}

/// Runs a command about members.
pub(crate) async fn member(command: &MemberCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = client(global, env)?;
    match command {
        MemberCommand::List => {
            let found: Vec<Member> = client.list("members").await?;
            if global.json {
                return output::json(&Page { data: found, next_cursor: None });
            }
            let row = |member: &Member| {
                let role = if member.disabled { format!("{} (shut out)", member.role) } else { member.role.clone() };
                vec![member.user_id.to_string(), or_dash(member.name.as_ref()), or_dash(member.email.as_ref()), role]
            };
            output::table(&["ID", "NAME", "EMAIL", "ROLE"], &found.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        MemberCommand::Role { member, role } => {
            let id = find(&client, member).await?;
            let body = SetMemberRole { role: role.as_str().to_owned() };
            client.patch_only(&format!("members/{id}"), &body).await?;
            done(global.json, &json!({ "user_id": id, "role": role.as_str() }), "done")
        }
        MemberCommand::Remove { member } => {
            let id = find(&client, member).await?;
            client.remove(&format!("members/{id}")).await?;
            done(global.json, &json!({ "user_id": id }), "removed")
        }
    }
}

/// A member by id or mail address.
async fn find(client: &Client, word: &str) -> anyhow::Result<UserId> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let found: Vec<Member> = client.list("members").await?;
    let is = |member: &&Member| member.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(word));
    let all: Vec<UserId> = found.iter().filter(is).map(|member| member.user_id).collect();
    match all.as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::new(ExitKind::NotFound, format!("no member has the id or address {}", clean(word))).into()),
        _ => Err(Failure::new(ExitKind::Usage, "several members have this address: name one by id").into()),
    }
}

/// Runs a command about invitations.
pub(crate) async fn invite(command: &InviteCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = client(global, env)?;
    match command {
        InviteCommand::Create { email, role, expires } => {
            let body = CreateInvitation {
                email: email.clone(),
                role: role.as_str().to_owned(),
                expires_in_seconds: expires.and_then(|limit| limit.0),
            };
            let made: InvitationLink = client.post("invitations", &body).await?;
            if global.json {
                return output::json(&made);
            }
            output::note("Send this link; it is not shown again.");
            output::line(&clean(&made.url));
            Ok(())
        }
        InviteCommand::List => {
            let found: Vec<Invitation> = client.list("invitations").await?;
            if global.json {
                return output::json(&Page { data: found, next_cursor: None });
            }
            let row = |one: &Invitation| {
                vec![
                    one.id.to_string(),
                    one.email.clone(),
                    one.role.clone(),
                    one.state.clone(),
                    day(Some(one.expires_at)),
                ]
            };
            output::table(&["ID", "EMAIL", "ROLE", "STATE", "EXPIRES"], &found.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        InviteCommand::Revoke { invitation } => {
            client.remove(&format!("invitations/{invitation}")).await?;
            done(global.json, &json!({ "id": invitation }), "revoked")
        }
        InviteCommand::Show { org, token } => {
            let body = AcceptInvitation { organization_id: *org, token: read_token(token)? };
            let shown: InvitedTo = client.post("invitations/lookup", &body).await?;
            if global.json {
                return output::json(&shown);
            }
            output::line(&clean(&format!("{} as {}", shown.organization, shown.role)));
            Ok(())
        }
        InviteCommand::Accept { org, token } => {
            let body = AcceptInvitation { organization_id: *org, token: read_token(token)? };
            // Afterwards it leads nowhere.
            let to: InvitedTo = client.post("invitations/lookup", &body).await?;
            client.post_only("invitations/accept", &body).await?;
            let InvitedTo { organization, role, .. } = to;
            let words = clean(&format!("accepted: you are in {organization} as {role}"));
            done(global.json, &json!({ "organization_id": org, "organization": organization, "role": role }), &words)
        }
    }
}

/// A secret from a file, or from standard input.
fn read_token(path: &std::path::Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::new(ExitKind::Usage, format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// Runs a command about API keys.
pub(crate) async fn key(command: &KeyCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = client(global, env)?;
    match command {
        KeyCommand::Create { name, scopes, expires } => {
            let body = CreateApiKey {
                name: name.clone(),
                scopes: scopes.clone(),
                expires_in_seconds: expires.and_then(|limit| limit.0),
            };
            let made: NewApiKey = client.post("api-keys", &body).await?;
            if global.json {
                return output::json(&made);
            }
            output::note("Keep this key; it is not shown again.");
            output::line(&clean(&made.key));
            Ok(())
        }
        KeyCommand::List => {
            let found: Vec<ApiKey> = client.list("api-keys").await?;
            if global.json {
                return output::json(&Page { data: found, next_cursor: None });
            }
            let now = OffsetDateTime::now_utc();
            let rows: Vec<Vec<String>> = found.iter().map(|key| key_row(key, now)).collect();
            output::table(&["ID", "NAME", "KEY", "SCOPES", "STATE", "LAST USED"], &rows);
            Ok(())
        }
        KeyCommand::Revoke { key, keep_made } => {
            let made = if *keep_made { "stays" } else { "ends" };
            client.revoke_key(*key, made).await?;
            done(global.json, &json!({ "id": key }), "revoked")
        }
    }
}

fn key_row(key: &ApiKey, now: OffsetDateTime) -> Vec<String> {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now => "expired".to_owned(),
        (None, Some(at)) => format!("until {}", day(Some(at))),
        (None, None) => "live".to_owned(),
    };
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    vec![
        key.id.to_string(),
        key.name.clone(),
        if key.prefix.is_empty() { "-".to_owned() } else { format!("{}...", key.prefix) },
        if scopes.is_empty() { "all".to_owned() } else { scopes.join(", ") },
        state,
        key.last_used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(now - at))),
    ]
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn day(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.format(&Rfc3339).ok()).map_or_else(|| "-".to_owned(), |text| text.chars().take(16).collect())
}

/// What is said after something that has no answer of its own.
pub(crate) fn done(json: bool, value: &serde_json::Value, words: &str) -> anyhow::Result<()> {
    if json {
        return output::json(value);
    }
    output::line(words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::OneOrg;

    fn args() -> OrgUpdateArgs {
        OrgUpdateArgs {
            org: OneOrg { org: None },
            name: None,
            idle: None,
            age: None,
            retention_days: None,
            agents: Vec::new(),
            sandbox: crate::args::PolicyArgs::default(),
        }
    }

    #[test]
    fn what_is_left_out_stays_and_none_removes() {
        let before = OrganizationSettings {
            session_idle_seconds_max: Some(60),
            agents: Some(vec!["claude".into()]),
            ..Default::default()
        };
        assert_eq!(settings(&args(), &before).unwrap(), None);
        let longer = OrgUpdateArgs { age: Some(Limit(Some(3600))), ..args() };
        let expected = OrganizationSettings { session_age_seconds_max: Some(3600), ..before.clone() };
        assert_eq!(settings(&longer, &before).unwrap(), Some(expected));
        let none = OrgUpdateArgs { idle: Some(Limit(None)), agents: vec!["any".into()], ..args() };
        assert_eq!(settings(&none, &before).unwrap(), Some(OrganizationSettings::default()));
    }
}
