//! `GET /api/v1/sessions/{id}/terminal`: a viewer's WebSocket. Who it is and what it may do is settled before the upgrade.

use agentapi_shared::api::Problem;
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::viewer::{Catchup, SUBPROTOCOL, ViewerMode};
use agentapi_shared::{SessionId, ViewerId};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::json;
use tokio::time::Instant;

use super::extract::{self, Params};
use super::upgrade::Upgrade;
use super::{Api, ApiError};
use crate::domain::policy::Principal;
use crate::domain::{DomainError, sessions, viewers};
use crate::relay::{self, Attach, From, ViewerSocket};
use crate::request;

/// Open the terminal of a session (WebSocket, subprotocol `agentapi.terminal.v1`).
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/terminal", operation_id = "openTerminal", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path),
        ("mode" = Option<String>, Query, description = "`rw` if absent, or `ro`"),
        ("from" = Option<String>, Query, description = "`SPAWN:OFFSET`: go on from there"),
        ("catchup" = Option<String>, Query, description = "`screen` if absent, or `bytes`"),
        ("replaces" = Option<uuid::Uuid>, Query, description = "`id` of a connection of yours that broke: this one takes its place"),
    ),
    responses((status = 101), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn attach(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let id: SessionId = extract::id(&id, "session_not_found", "session")?;
    let mode = params.read("mode", "rw or ro", |text| match text {
        "rw" => Some(ViewerMode::Rw),
        "ro" => Some(ViewerMode::Ro),
        _ => None,
    });
    let catchup = params.read("catchup", "screen or bytes", |text| match text {
        "screen" => Some(Catchup::Screen),
        "bytes" => Some(Catchup::Bytes),
        _ => None,
    });
    let from = params.read("from", "SPAWN:OFFSET, two numbers", read_from).unwrap_or(From::Fresh);
    let replaces = params.read("replaces", "the `id` of a connection", |text| text.parse::<ViewerId>().ok());
    params.finish()?;
    let mode = mode.unwrap_or(ViewerMode::Rw);
    let record = sessions::get_for(&api.plane, &principal, relay::action_of(mode), id).await?;
    if !api.plane.reachable(&record) {
        return Err(DomainError::HostUnreachable.into());
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::check(&mut parts, SUBPROTOCOL)?;
    let lease = viewers::attach(&api.plane, &principal, id, mode, replaces).await?;
    let viewer = lease.id();
    let attach = Attach {
        mode,
        catchup: catchup.unwrap_or_default(),
        from,
        socket: api.plane.sockets.enter(principal.socket_owner(), principal.expires_at()),
        principal: principal.clone(),
        lease,
    };
    let (answer, pending) = upgrade.accept();
    let plane = api.plane.clone();
    let view = async move {
        let opened = Instant::now();
        let reason = match pending.connection().await {
            Some((stream, read)) => {
                let socket = ViewerSocket::new(stream, read).await;
                relay::run(plane.clone(), record, attach, socket).await
            }
            None => "never opened",
        };
        let detail = json!({ "mode": mode, "seconds": opened.elapsed().as_secs(), "reason": reason });
        viewers::detached(&plane, &principal, id, viewer, detail);
    };
    // What is recorded of it names the request that opened it.
    api.plane.tasks.spawn("viewer", OnEnd::Continue, request::scope(request::current(), view));
    Ok(answer)
}

fn read_from(text: &str) -> Option<From> {
    let (spawn, offset) = text.split_once(':')?;
    let spawn = spawn.parse().ok().filter(|spawn| *spawn > 0)?;
    Some(From::At(spawn, offset.parse().ok()?))
}
