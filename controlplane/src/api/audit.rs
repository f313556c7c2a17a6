//! `/api/v1/audit`.

use std::sync::Arc;

use agentapi_shared::api::{AuditKey, AuditRecord, LIMIT_DEFAULT, LIMIT_MAX, Page, Problem};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::warn;

use super::extract::Params;
use super::{Api, ApiError};
use crate::domain::policy::{self, Action, Principal};
use crate::domain::trail::{self, Export};
use crate::plane::Plane;
use crate::store::records::{AuditFilter, AuditPosition, SealedRecord};

/// An actor's or action's name in a filter is never longer.
const WORD_CHARS_MAX: usize = 128;

/// List records of the audit trail.
///
/// A record is listed once it has its number, which is within a second. A page looks at a limited number of records, so one with filters may be
/// short, or empty, and still have a `next_cursor`.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "listAudit", tag = "audit",
    params(
        ("actor" = Option<String>, Query, description = "Only of this user, host, job or database role"),
        ("action" = Option<String>, Query, description = "Only this action, such as `session.create`"),
        ("session" = Option<uuid::Uuid>, Query, description = "Only about this session"),
        ("host" = Option<uuid::Uuid>, Query, description = "Only about this host"),
        ("from" = Option<String>, Query, description = "Only ones that happened then or later (RFC 3339)"),
        ("until" = Option<String>, Query, description = "Only ones that happened before (RFC 3339)"),
        ("order" = Option<String>, Query, description = "`newest` first if absent, or `oldest` first"),
        ("limit" = Option<u32>, Query, description = "Items of a page: 50 if absent, at most 200"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<AuditRecord>), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    mut params: Params,
) -> Result<Json<Page<AuditRecord>>, ApiError> {
    let word = |text: &str| (text.chars().count() <= WORD_CHARS_MAX).then(|| text.to_owned());
    let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let oldest_first = params.read("order", "newest or oldest", |text| match text {
        "newest" => Some(false),
        "oldest" => Some(true),
        _ => None,
    });
    let cursor = params.read("cursor", "the `next_cursor` of a page", read_cursor);
    let position = match (oldest_first, cursor) {
        (Some(true), cursor) => AuditPosition::After(cursor.unwrap_or(0)),
        (_, cursor) => AuditPosition::Before(cursor.unwrap_or(u64::MAX)),
    };
    let filter = AuditFilter {
        actor: params.read("actor", "at most 128 characters", word),
        action: params.read("action", "at most 128 characters", word),
        session: params.read("session", "the id of a session", |text| text.parse().ok()),
        host: params.read("host", "the id of a host", |text| text.parse().ok()),
        from: params.read("from", "a time such as 2026-01-31T12:00:00Z", time),
        until: params.read("until", "a time such as 2026-01-31T12:00:00Z", time),
        position,
        limit: params.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT),
    };
    params.finish()?;
    let page = trail::list(&api.plane, &principal, filter).await?;
    let data = page.records.into_iter().filter_map(present).collect();
    Ok(Json(Page { data, next_cursor: page.next.map(|number| URL_SAFE_NO_PAD.encode(number.to_string())) }))
}

fn present(record: SealedRecord) -> Option<AuditRecord> {
    let raw = |text: String| RawValue::from_string(text).ok();
    let Some(entry) = raw(record.entry) else {
        // It was JSON when it was written, or the database refused it.
        warn!(audit.id = %record.id, "the text of an audit record is no JSON");
        return None;
    };
    Some(AuditRecord {
        number: record.seal.number,
        hash: record.seal.hash.to_string(),
        entry,
        personal: record.personal.and_then(raw),
    })
}

fn read_cursor(text: &str) -> Option<u64> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?.parse().ok()
}

/// Hand out the audit trail for `agentapi audit verify`.
///
/// NDJSON: a signed manifest (organisation, time, numbers, chain values, newest checkpoints), then one line for each record, oldest first, with its exact
/// text. It goes up to the last record that has a number when it begins; a stream that breaks off is short of what its manifest says.
#[utoipa::path(
    get, path = "/api/v1/audit/export", operation_id = "exportAudit", tag = "audit",
    params(("after" = Option<u64>, Query, description = "Only what comes after this number; everything if absent")),
    responses((status = 200, content_type = "application/x-ndjson", body = String), (status = "4XX", body = Problem)),
)]
pub(super) async fn export(
    State(api): State<Api>,
    principal: Principal,
    mut params: Params,
) -> Result<Response, ApiError> {
    let after = params.number("after", 0, u64::MAX).unwrap_or(0);
    params.finish()?;
    let export = trail::export(&api.plane, &principal, after).await?;
    let body = Body::from_stream(stream::try_unfold((api.plane, export), next));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"audit.ndjson\"")),
    ];
    Ok((headers, body).into_response())
}

/// The export went wrong after its answer had begun: the connection breaks, which its reader sees.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokenOff;

type Reading = (Arc<Plane>, Export);

async fn next((plane, mut export): Reading) -> Result<Option<(Bytes, Reading)>, BrokenOff> {
    match export.next(&*plane.store).await {
        Ok(lines) => Ok(lines.map(|lines| (Bytes::from(lines), (plane, export)))),
        Err(failure) => {
            warn!(error = &failure as &dyn std::error::Error, "an export of the audit trail broke off");
            Err(BrokenOff)
        }
    }
}

/// Show the public key that exports and checkpoints of the audit trail are signed with.
#[utoipa::path(
    get, path = "/api/v1/audit/key", operation_id = "getAuditKey", tag = "audit",
    responses((status = 200, body = AuditKey), (status = "4XX", body = Problem)),
)]
pub(super) async fn key(
    State(api): State<Api>,
    principal: Principal,
    params: Params,
) -> Result<Json<AuditKey>, ApiError> {
    params.finish()?;
    policy::check(&principal, Action::AuditRead)?;
    let none = || ApiError::new(StatusCode::NOT_FOUND, "no_audit_key", "this server signs no checkpoints");
    let key = api.plane.trail.checkpoints().ok_or_else(none)?.public();
    Ok(Json(AuditKey { key_id: key.id(), public_key: key.to_string() }))
}
