//! `GET /api/v1/sessions/{id}/terminal`: a viewer's WebSocket. Who it is and what it may do is settled before the upgrade.

use std::sync::Arc;

use agentapi_shared::api::Problem;
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::viewer::{Catchup, SUBPROTOCOL, ViewerMode};
use agentapi_shared::{SessionId, ViewerId};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::extract::{self, Params};
use super::upgrade::{Pending, Upgrade};
use super::{Api, ApiError};
use crate::domain::policy::Principal;
use crate::domain::{DomainError, sessions, viewers};
use crate::plane::Plane;
use crate::relay::{self, Attach, From, ViewerSocket};
use crate::request;
use crate::store::records::SessionRecord;

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
    let from = params.position("from").map_or(From::Fresh, |(spawn, offset)| From::At(spawn, offset));
    let replaces = params.read("replaces", "the `id` of a connection", |text| text.parse::<ViewerId>().ok());
    params.finish()?;
    let mode = mode.unwrap_or(ViewerMode::Rw);
    let record = sessions::get_for(&api.plane, &principal, relay::action_of(mode), id).await?;
    if !api.plane.reachable(&record) {
        return Err(DomainError::HostUnreachable.into());
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::check(&mut parts, SUBPROTOCOL)?;
    let (answer, pending) = upgrade.accept();
    let wanted = Wanted { record, mode, catchup: catchup.unwrap_or_default(), from, replaces };
    let (tell, told) = oneshot::channel();
    // In a task of its own from before the store is asked: who goes away meanwhile is attached all the same, and has to be detached. What is
    // recorded of it names the request that opened it.
    let view = view(api.plane.clone(), principal, wanted, pending, tell);
    api.plane.tasks.spawn("viewer", OnEnd::Continue, request::scope(request::current(), view));
    told.await.map_err(|_| DomainError::Busy("the server ends"))??;
    Ok(answer)
}

/// What a viewer asked for.
struct Wanted {
    record: SessionRecord,
    mode: ViewerMode,
    catchup: Catchup,
    from: From,
    replaces: Option<ViewerId>,
}

/// A viewer from its attachment, of which `tell` says how it went, to the record of its end.
async fn view(
    plane: Arc<Plane>,
    principal: Principal,
    wanted: Wanted,
    pending: Pending,
    tell: oneshot::Sender<Result<(), DomainError>>,
) {
    let Wanted { record, mode, catchup, from, replaces } = wanted;
    let session = record.id;
    let lease = match viewers::attach(&plane, &principal, session, mode, replaces).await {
        Ok(lease) => lease,
        Err(refused) => {
            let _gone = tell.send(Err(refused));
            return;
        }
    };
    // Of one that is gone already the connection tells.
    let _gone = tell.send(Ok(()));
    let (opened, viewer) = (Instant::now(), lease.id());
    let socket = plane.sockets.enter(principal.socket_owner(), principal.expires_at());
    let attach = Attach { mode, catchup, from, socket, principal: principal.clone(), lease };
    let reason = match pending.connection().await {
        Some((stream, read)) => {
            let socket = ViewerSocket::new(stream, read).await;
            relay::run(plane.clone(), record, attach, socket).await
        }
        None => "never opened",
    };
    let seconds = opened.elapsed().as_secs();
    let detail = json!({ "mode": mode, "connection": viewer, "seconds": seconds, "reason": reason });
    viewers::detached(&plane, &principal, session, viewer, detail);
}
