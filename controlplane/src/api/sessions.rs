//! `/api/v1/sessions`.

use std::time::Duration;

use agentapi_shared::api::{
    CreateSession, InputWritten, LIMIT_DEFAULT, LIMIT_MAX, Page, Problem, ResizeSession, RestartSession,
    SCROLLBACK_ROWS_MAX, STOP_GRACE_MS, STOP_GRACE_MS_MAX, ScreenFormat, ScreenResponse, SendInput, Session,
    UpdateSession,
};
use agentapi_shared::{SessionId, SpawnState, WindowSize};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::extract::{self, Body, Params};
use super::{Api, ApiError};
use crate::domain::policy::{Action, Principal};
use crate::domain::sessions::{self, CreateOutcome};
use crate::domain::validate;
use crate::relay::output;
use crate::store::records::{IdempotencyKey, Replay, SessionFilter, SessionRecord, StopRequest};

/// `?wait=running` answers at the latest after this long, with whatever the state is then.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// An `Idempotency-Key` is never longer.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

fn session_id(text: &str) -> Result<SessionId, ApiError> {
    extract::id(text, "session_not_found", "session")
}

/// Start a session.
#[utoipa::path(
    post, path = "/api/v1/sessions", operation_id = "createSession", tag = "sessions",
    params(
        ("wait" = Option<String>, Query, description = "`running`: answer when it runs or ended, at the latest after 30 s"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body have one effect and one answer"),
    ),
    request_body = CreateSession,
    responses((status = 201, body = Session), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    mut params: Params,
    body: Body<CreateSession>,
) -> Result<Response, ApiError> {
    let wait = params.read("wait", "running", |text| (text == "running").then_some(())).is_some();
    params.finish()?;
    let key = idempotency_key(&headers, "POST /sessions".to_owned(), &body.hash)?;
    let record = match sessions::create(&api.plane, &principal, body.value, key.clone()).await? {
        CreateOutcome::Replayed { status, body } => return Ok(json_text(status, body)),
        CreateOutcome::Made(record) => *record,
    };
    let record = if wait { wait_for_start(&api, &principal, record).await? } else { record };
    let answer = serde_json::to_string(&api.plane.present(&record)).unwrap_or_default();
    if let Some(key) = key {
        api.plane.store.finish_idempotent(principal.tenant(), key, 201, answer.clone()).await?;
    }
    Ok(json_text(201, answer))
}

/// Waits until a session runs or ended; bounded.
async fn wait_for_start(
    api: &Api,
    principal: &Principal,
    mut record: SessionRecord,
) -> Result<SessionRecord, ApiError> {
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let events = &api.plane.events;
    let mut changes = events.watch();
    let mut seen = 0;
    loop {
        // Every change of a session is an event; the store is asked only when one was about this session.
        let (told, newest) = events.told_since(seen, record.id);
        seen = newest;
        if told {
            record = sessions::get(&api.plane, principal, record.id).await?;
        }
        if !matches!(record.state(), SpawnState::Pending | SpawnState::Starting) {
            return Ok(record);
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(record),
        }
    }
}

fn idempotency_key(headers: &HeaderMap, route: String, hash: &str) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        return Err(validate::fault("Idempotency-Key", message).into());
    }
    Ok(Some(IdempotencyKey { route, key: key.to_owned(), request_hash: hash.to_owned() }))
}

fn json_text(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// List sessions, newest first.
#[utoipa::path(
    get, path = "/api/v1/sessions", operation_id = "listSessions", tag = "sessions",
    params(
        ("state" = Option<String>, Query, description = "Only in this state"),
        ("agent" = Option<String>, Query, description = "Only of this agent"),
        ("host" = Option<String>, Query, description = "Only on the host with this id"),
        ("label" = Option<Vec<String>>, Query, description = "Only with this label, `key:value`; repeatable"),
        ("limit" = Option<u32>, Query, description = "Items of a page: 50 if absent, at most 200"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<Session>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    mut params: Params,
) -> Result<Json<Page<Session>>, ApiError> {
    let states = SpawnState::ALL.map(SpawnState::as_str).join(", ");
    let state = params.read("state", &format!("one of {states}"), SpawnState::parse);
    let agent = params.text("agent");
    let host = params.read("host", "the id of a host", |text| text.parse().ok());
    let mut labels = Vec::new();
    for label in params.all("label") {
        match label.split_once(':') {
            Some((key, value)) => labels.push((key.to_owned(), value.to_owned())),
            None => params.fault("label", "expected key:value"),
        }
    }
    let limit = params.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let before = params.read("cursor", "the `next_cursor` of a page", read_cursor);
    params.finish()?;
    let filter = SessionFilter { state, agent, host, labels, before, limit };
    let (data, next) = sessions::list(&api.plane, &principal, filter).await?;
    Ok(Json(Page { data, next_cursor: next.map(|id| URL_SAFE_NO_PAD.encode(id.to_string())) }))
}

fn read_cursor(text: &str) -> Option<SessionId> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?.parse().ok()
}

/// Show a session.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", operation_id = "getSession", tag = "sessions",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Session), (status = "4XX", body = Problem)),
)]
pub(super) async fn get(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Session>, ApiError> {
    params.finish()?;
    let record = sessions::get(&api.plane, &principal, session_id(&id)?).await?;
    Ok(Json(api.plane.present(&record)))
}

/// Change name, labels, and who sees it.
#[utoipa::path(
    patch, path = "/api/v1/sessions/{id}", operation_id = "updateSession", tag = "sessions",
    params(("id" = uuid::Uuid, Path)),
    request_body = UpdateSession,
    responses((status = 200, body = Session), (status = "4XX", body = Problem)),
)]
pub(super) async fn update(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
    body: Body<UpdateSession>,
) -> Result<Json<Session>, ApiError> {
    params.finish()?;
    let record = sessions::update(&api.plane, &principal, session_id(&id)?, body.value).await?;
    Ok(Json(api.plane.present(&record)))
}

/// Stop a session; with `purge` also remove it.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}", operation_id = "deleteSession", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path),
        ("force" = Option<bool>, Query, description = "Kill at once"),
        ("purge" = Option<bool>, Query, description = "Remove record, output and an `empty` workspace once it is over"),
        ("grace_ms" = Option<u64>, Query, description = "Time between asking and killing: 5000 if absent"),
    ),
    responses((status = 202, body = Session), (status = "4XX", body = Problem)),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    let force = params.flag("force");
    let purge = params.flag("purge");
    let grace_ms = params.number("grace_ms", 0, STOP_GRACE_MS_MAX).unwrap_or(STOP_GRACE_MS);
    params.finish()?;
    let request = StopRequest { grace_ms, force };
    let record = sessions::stop(&api.plane, &principal, session_id(&id)?, request, purge).await?;
    Ok((StatusCode::ACCEPTED, Json(api.plane.present(&record))))
}

/// Start a new spawn in the same session.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/restart", operation_id = "restartSession", tag = "sessions",
    params(("id" = uuid::Uuid, Path)),
    request_body = RestartSession,
    responses((status = 202, body = Session), (status = "4XX", body = Problem)),
)]
pub(super) async fn restart(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
    body: Body<RestartSession>,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    params.finish()?;
    let record = sessions::restart(&api.plane, &principal, session_id(&id)?, body.value).await?;
    Ok((StatusCode::ACCEPTED, Json(api.plane.present(&record))))
}

/// The screen of a spawn as text.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/screen", operation_id = "getScreen", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path),
        ("format" = Option<ScreenFormat>, Query, description = "`text` if absent"),
        ("scrollback" = Option<u32>, Query, description = "Rows before the screen, at most 10000"),
        ("spawn" = Option<u32>, Query, description = "The newest if absent"),
        ("after" = Option<String>, Query, description = "`SPAWN:OFFSET`: answers once there is output beyond, or can be none, at the latest after 30 s"),
    ),
    responses((status = 200, body = ScreenResponse), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn screen(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<ScreenResponse>, ApiError> {
    let format = params.read("format", "text or ansi", |text| match text {
        "text" => Some(ScreenFormat::Text),
        "ansi" => Some(ScreenFormat::Ansi),
        _ => None,
    });
    let scrollback = params.number("scrollback", 0, SCROLLBACK_ROWS_MAX).unwrap_or(0);
    let spawn = params.number("spawn", 1, u32::MAX);
    let after = params.position("after");
    params.finish()?;
    let id = session_id(&id)?;
    if let Some(after) = after {
        let record = sessions::get_for(&api.plane, &principal, Action::TerminalView, id).await?;
        let credential = api.plane.sockets.enter(principal.socket_owner(), principal.expires_at());
        output::beyond(&api.plane, &record, after, &credential).await.map_err(|_lapse| ApiError::unauthorized())?;
    }
    let screen = sessions::screen(&api.plane, &principal, id, spawn, format.unwrap_or_default(), scrollback).await?;
    Ok(Json(screen))
}

/// Type into a session.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/input", operation_id = "sendInput", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body are typed once"),
    ),
    request_body = SendInput,
    responses((status = 200, body = InputWritten), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn input(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
    body: Body<SendInput>,
) -> Result<Response, ApiError> {
    params.finish()?;
    let id = session_id(&id)?;
    let bytes = validate::input(&body.value)?;
    let Some(key) = idempotency_key(&headers, format!("POST /sessions/{id}/input"), &body.hash)? else {
        return Ok(Json(sessions::input(&api.plane, &principal, id, bytes).await?).into_response());
    };
    let (store, tenant) = (&api.plane.store, principal.tenant());
    // A session that is not there, or that one may not type into, takes no key.
    sessions::get_for(&api.plane, &principal, Action::TerminalType, id).await?;
    let replay = store.begin_idempotent(tenant.clone(), key.clone(), crate::clock::now()).await?;
    if replay != Replay::Fresh {
        return sessions::replayed(replay).map(|(status, body)| json_text(status, body)).map_err(Into::into);
    }
    match sessions::input(&api.plane, &principal, id, bytes).await {
        Ok(written) => {
            let answer = serde_json::to_string(&written).unwrap_or_default();
            store.finish_idempotent(tenant.clone(), key, 200, answer.clone()).await?;
            Ok(json_text(200, answer))
        }
        Err(failure) => {
            // Without an answer it may have been typed: then the key stays taken, and a repetition types nothing.
            if !matches!(failure, crate::domain::DomainError::HostTimeout | crate::domain::DomainError::HostUnreachable)
            {
                store.release_idempotent(tenant, key).await?;
            }
            Err(failure.into())
        }
    }
}

/// Set the size of a session's terminal.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/resize", operation_id = "resizeSession", tag = "sessions",
    params(("id" = uuid::Uuid, Path)),
    request_body = ResizeSession,
    responses((status = 200, body = Session), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn resize(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    params: Params,
    body: Body<ResizeSession>,
) -> Result<Json<Session>, ApiError> {
    params.finish()?;
    let narrow = |wide: u64| u16::try_from(wide).unwrap_or(u16::MAX);
    let size = WindowSize::new(narrow(body.value.cols), narrow(body.value.rows)).map_err(|invalid| {
        let cols_fit = WindowSize::new(narrow(body.value.cols), 24).is_ok();
        validate::fault(if cols_fit { "rows" } else { "cols" }, invalid.to_string())
    })?;
    let record = sessions::resize(&api.plane, &principal, session_id(&id)?, size).await?;
    Ok(Json(api.plane.present(&record)))
}
