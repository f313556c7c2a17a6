//! `GET /api/v1/events`: server-sent events of everything the caller may see.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::OrgId;
use agentapi_shared::api::{Problem, ServerEvent};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::extract::Params;
use super::{Api, ApiError};
use crate::domain::policy::{self, Action, Actor, Decision, Principal};
use crate::events::Start;
use crate::plane::Plane;
use crate::sockets::LiveSocket;

/// A comment is sent this often while nothing happens, so that a dead path is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

struct Subscription {
    plane: Arc<Plane>,
    org: OrgId,
    actor: Actor,
    seq: u64,
    hello: Option<Bytes>,
    changed: watch::Receiver<u64>,
    shutdown: CancellationToken,
    socket: LiveSocket,
}

/// Follow sessions and hosts as server-sent events.
///
/// The first event is `hello` with `resumed` or `gap`; `event` is the tag of the data. Reconnect with `Last-Event-ID`.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "streamEvents", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen")),
    responses((status = 200, body = ServerEvent, content_type = "text/event-stream"), (status = "4XX", body = Problem)),
)]
pub(super) async fn stream(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    policy::check(&principal, Action::SessionList)?;
    policy::check(&principal, Action::HostView)?;
    let events = &api.plane.events;
    // Watched before the place is found, so that nothing falls between.
    let changed = events.watch();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let (seq, resume) = match events.start(last) {
        Start::Resumed(seq) => (seq, "resumed"),
        Start::Gap(seq) => (seq, "gap"),
    };
    let hello = ServerEvent::Hello { resume: resume.to_owned() };
    let data = serde_json::to_string(&hello).unwrap_or_default();
    let socket = api.plane.sockets.enter(principal.socket_owner(), principal.expires_at());
    let subscription = Subscription {
        org: principal.holder.org,
        actor: principal.actor(),
        seq,
        hello: Some(format!("event: hello\nid: {}\ndata: {data}\n\n", events.id_of(seq)).into()),
        changed,
        shutdown: api.plane.tasks.cancelled(),
        socket,
        plane: api.plane,
    };
    let body = Body::from_stream(stream::unfold(subscription, next));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

type Item = Result<Bytes, std::convert::Infallible>;

async fn next(mut subscription: Subscription) -> Option<(Item, Subscription)> {
    if let Some(hello) = subscription.hello.take() {
        return Some((Ok(hello), subscription));
    }
    loop {
        // One that is too slow is ended; it comes back with its last id and is told whether it missed something.
        match subscription.plane.events.after(subscription.seq).ok()? {
            Some(event) => {
                subscription.seq = event.seq;
                let actor = subscription.actor;
                let sees = |facts| policy::decide(actor, Action::SessionView, Some(facts)) == Decision::Allowed;
                if event.is_for(subscription.org, sees) {
                    let id = subscription.plane.events.id_of(event.seq);
                    let text = format!("event: {}\nid: {id}\ndata: {}\n\n", event.name, event.data);
                    return Some((Ok(text.into()), subscription));
                }
            }
            None => tokio::select! {
                changed = subscription.changed.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => return Some((Ok(Bytes::from_static(b": \n\n")), subscription)),
                _lapse = subscription.socket.lapsed() => return None,
                () = subscription.shutdown.cancelled() => return None,
            },
        }
    }
}
