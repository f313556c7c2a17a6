//! `agentapi host` and `agentapi agent`.

use agentapi_shared::api::{Agent, CreateHostEnrolment, Host, HostEnrolment, Page};
use time::OffsetDateTime;

use crate::args::{AgentCommand, GlobalArgs, HostCommand};
use crate::client::Client;
use crate::config::{self, Environment};
use crate::organization;
use crate::output::{self, age};

/// Runs a command about hosts.
pub(crate) async fn host(command: &HostCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = Client::new(config::server(global, env)?)?;
    match command {
        HostCommand::List => list(&client, global.json).await,
        HostCommand::Enrol { name, expires } => {
            let body =
                CreateHostEnrolment { name: name.clone(), expires_in_seconds: expires.and_then(|limit| limit.0) };
            let made: HostEnrolment = client.post("host-enrolments", &body).await?;
            if global.json {
                return output::json(&made);
            }
            output::note("Give this token to `agentapi-supervisor enrol`; it is not shown again.");
            output::line(&output::clean(&made.token));
            Ok(())
        }
        HostCommand::Revoke { host } => {
            client.remove(&format!("hosts/{host}")).await?;
            organization::done(global.json, &serde_json::json!({ "id": host }), "revoked")
        }
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let hosts = client.hosts().await?;
    if json {
        return output::json(&Page { data: hosts, next_cursor: None });
    }
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Vec<String>> = hosts.iter().map(|host| host_row(host, now)).collect();
    output::table(&["ID", "NAME", "HOSTNAME", "OF", "STATE", "SESSIONS", "ISOLATION", "VERSION"], &rows);
    Ok(())
}

fn host_row(host: &Host, now: OffsetDateTime) -> Vec<String> {
    let state = match (host.connected, host.last_seen_at) {
        (true, _) => "connected".to_owned(),
        (false, Some(at)) => format!("unreachable for {}", age(now - at)),
        (false, None) => "never seen".to_owned(),
    };
    let facts = host.facts.as_ref();
    vec![
        host.id.to_string(),
        host.name.clone().unwrap_or_else(|| "-".to_owned()),
        facts.map_or("-", |facts| &facts.hostname).to_owned(),
        if host.shared { "everybody" } else { "you" }.to_owned(),
        state,
        host.sessions_running.to_string(),
        facts.map_or("-", |facts| &facts.isolation).to_owned(),
        host.version.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Runs a command about agents.
pub(crate) async fn agent(command: &AgentCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let AgentCommand::List = command;
    let agents = Client::new(config::server(global, env)?)?.agents().await?;
    if global.json {
        return output::json(&Page { data: agents, next_cursor: None });
    }
    let rows: Vec<Vec<String>> = agents.iter().map(agent_row).collect();
    output::table(&["NAME", "TITLE", "HOSTS", "VERSION", "INSTALL"], &rows);
    Ok(())
}

fn agent_row(agent: &Agent) -> Vec<String> {
    let mut versions: Vec<&str> = agent.installed_on.iter().filter_map(|found| found.version.as_deref()).collect();
    versions.sort_unstable();
    versions.dedup();
    let missing = agent.installed_on.is_empty();
    vec![
        agent.name.clone(),
        agent.title.clone(),
        agent.installed_on.len().to_string(),
        if versions.is_empty() { "-".to_owned() } else { versions.join(", ") },
        // What is there needs no command.
        agent.install.clone().filter(|_| missing).unwrap_or_else(|| "-".to_owned()),
    ]
}
