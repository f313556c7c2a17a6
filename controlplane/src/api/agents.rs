//! `/api/v1/agents`.

use agentapi_shared::api::{Agent, AgentInstallation, Page, Problem};
use axum::Json;
use axum::extract::State;

use super::extract::Params;
use super::{Api, ApiError};
use crate::domain::policy::{self, Action, Principal};

/// List the agents that sessions can run, and where each is installed.
#[utoipa::path(
    get, path = "/api/v1/agents", operation_id = "listAgents", tag = "agents",
    responses((status = 200, body = Page<Agent>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<Page<Agent>>, ApiError> {
    params.finish()?;
    policy::check(&principal, Action::HostView)?;
    let hosts = api.plane.store.hosts(principal.tenant()).await?;
    let installed_on = |name: &str| {
        let found = hosts.iter().filter_map(|host| {
            let facts = host.facts.as_ref()?.agents.iter().find(|agent| agent.name == name && agent.installed)?;
            Some(AgentInstallation { host_id: host.id, version: facts.version.clone() })
        });
        found.collect()
    };
    let data = api.plane.agents.iter().map(|agent| Agent {
        name: agent.name.clone(),
        title: agent.title.clone(),
        command: agent.command.clone(),
        installed_on: installed_on(&agent.name),
        install: Some(agent.install.clone()),
    });
    Ok(Json(Page { data: data.collect(), next_cursor: None }))
}
