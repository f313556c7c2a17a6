//! Saying that everything runs: once a host is connected, with a login link.

use std::time::Duration;

use agentapi_shared::api::ServerEvent;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::plans::is_in_project;
use super::{UpPlan, Voice};
use crate::client::Client;
use crate::config;
use crate::failure::Failure;
use crate::output;

/// The supervisor connects within milliseconds; after this long something is wrong, which its log tells and `up` need not wait for.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(15);

/// What the process that waits for a background `up` is told, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Announcement {
    /// It runs.
    Ready {
        /// The url.
        ready: String,
        /// Good for one login. None in a Supabase project, where nobody is an admin by themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login_url: Option<String>,
    },
    /// It does not.
    Failed {
        /// The exit code.
        code: u8,
        /// Why.
        failed: String,
    },
}

/// Waits until sessions can be started, and says so.
pub(super) async fn announce(plan: &UpPlan, ready: Option<String>, voice: &Voice) -> anyhow::Result<()> {
    if is_in_project() {
        let ready = ready.context("the control plane did not say where it listens")?;
        return tell(voice, &Announcement::Ready { ready, login_url: None });
    }
    let client = Client::new(config::local_server(plan.data.root())?)?;
    match tokio::time::timeout(CONNECT_SECONDS_MAX, host_connected(&client)).await {
        Ok(connected) => connected?,
        Err(_) => output::note(&format!(
            "warning: the supervisor has not connected yet; its log is {}",
            plan.data.log("supervisor").display()
        )),
    }
    let url = client.server().url.as_str().trim_end_matches('/').to_owned();
    tell(voice, &Announcement::Ready { ready: url, login_url: Some(client.login_code().await?.url) })
}

fn tell(voice: &Voice, announcement: &Announcement) -> anyhow::Result<()> {
    match voice {
        Voice::Background => {
            // The login link is for the process that waits, and not for the log.
            output::line(&serde_json::to_string(announcement)?);
            voice.say("ready");
        }
        Voice::Terminal { json } => show(announcement, *json)?,
    }
    Ok(())
}

/// Prints that it is ready, for people or for scripts.
pub(super) fn show(announcement: &Announcement, json: bool) -> anyhow::Result<()> {
    if json {
        output::line(&serde_json::to_string(announcement)?);
    } else if let Announcement::Ready { ready, login_url } = announcement {
        output::line(&format!("ready: {ready}"));
        match login_url {
            Some(login_url) => output::line(&format!("log in: {login_url}")),
            None => output::line("its records are in a Supabase project: log in as one of its people"),
        }
    }
    Ok(())
}

/// Level-triggered: asks for the state after subscribing to its changes.
async fn host_connected(client: &Client) -> Result<(), Failure> {
    let mut events = client.events().await?;
    if client.hosts().await?.iter().any(|host| host.connected) {
        return Ok(());
    }
    while let Some(event) = events.next().await? {
        if matches!(event, ServerEvent::Host { host } if host.connected) {
            break;
        }
    }
    Ok(())
}
