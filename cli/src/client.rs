//! The REST API as this program uses it: one request, one answer, every error turned into words and an exit code.
//!
//! Nothing is retried here: a command that was not answered may have been carried out.

mod events;
mod problem;

use std::time::Duration;

use agentapi_shared::api::{
    Agent, AuditRecord, CreateSession, Host, InputWritten, LIMIT_MAX, LoginCode, Page, ResizeSession, RestartSession,
    ScreenFormat, ScreenResponse, SendInput, Session,
};
use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{ApiKeyId, SessionId, WindowSize};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Server, is_loopback};
use crate::failure::{ExitKind, Failure};

pub(crate) use events::EventStream;
pub(crate) use problem::refused;

/// Longer than the 30 s that the server itself waits in `?wait=running`.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(60);
/// A host that does not even accept a connection in this time is not there.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(10);
/// A page of a list is the largest answer: 200 sessions with commands of some kilobytes. A screen with its scrollback is below too.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pages read of one list, of 200 items each; nobody reads more in a terminal, and a server that never ends its list ends here.
const PAGES_MAX: usize = 100;

/// A server with our credential.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Server,
}

/// Query of a request; values are encoded when the url is made.
pub(crate) type Query<'a> = Vec<(&'a str, String)>;

impl Client {
    /// A client; connects to nothing yet.
    pub(crate) fn new(server: Server) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_SECONDS_MAX)
            // A redirect could carry the token to somewhere else; the API has none.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&server.url) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Failure::new(ExitKind::Failure, format!("no HTTP client: {error}")))?;
        Ok(Self { http, server })
    }

    /// The server this client talks to.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The url of a path below `/api/v1/`.
    pub(crate) fn url(&self, path: &str, query: &Query<'_>) -> Url {
        let mut url = self.server.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/api/v1/{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// `POST /sessions`.
    pub(crate) async fn create(&self, body: &CreateSession, wait: bool) -> Result<Session, Failure> {
        let query = if wait { vec![("wait", "running".to_owned())] } else { Vec::new() };
        self.ask(Method::POST, "sessions", &query, Some(body)).await
    }

    /// `GET /sessions`, every page of it.
    pub(crate) async fn sessions(&self, query: &Query<'_>) -> Result<Vec<Session>, Failure> {
        self.pages("sessions", query).await
    }

    /// `GET /sessions/{id}`.
    pub(crate) async fn session(&self, id: SessionId) -> Result<Session, Failure> {
        self.get(&format!("sessions/{id}"), &Vec::new()).await
    }

    /// `POST /sessions/{id}/restart`.
    pub(crate) async fn restart(&self, id: SessionId, stop: bool) -> Result<Session, Failure> {
        self.ask(Method::POST, &format!("sessions/{id}/restart"), &Vec::new(), Some(&RestartSession { stop })).await
    }

    /// `DELETE /sessions/{id}`; a session only if something of it is left.
    pub(crate) async fn delete(&self, id: SessionId, query: &Query<'_>) -> Result<Option<Session>, Failure> {
        let answer = self.send::<()>(Method::DELETE, &format!("sessions/{id}"), query, None).await?;
        if answer.status() == http::StatusCode::NO_CONTENT { Ok(None) } else { Ok(Some(decode(answer).await?)) }
    }

    /// `GET /sessions/{id}/screen`; with `after`, once there is output that is not on that one.
    pub(crate) async fn screen(
        &self,
        id: SessionId,
        format: ScreenFormat,
        scrollback: Option<u32>,
        spawn: Option<u32>,
        after: Option<&ScreenResponse>,
    ) -> Result<ScreenResponse, Failure> {
        let word = match format {
            ScreenFormat::Text => "text",
            ScreenFormat::Ansi => "ansi",
        };
        let mut query: Query<'_> = vec![("format", word.to_owned())];
        query.extend(scrollback.map(|rows| ("scrollback", rows.to_string())));
        query.extend(spawn.map(|number| ("spawn", number.to_string())));
        query.extend(after.map(|seen| ("after", format!("{}:{}", seen.spawn, seen.offset))));
        self.get(&format!("sessions/{id}/screen"), &query).await
    }

    /// `GET /sessions/{id}/egress`, the newest of them.
    pub(crate) async fn egress(
        &self,
        id: SessionId,
        verdict: Option<EgressVerdict>,
        count_max: usize,
    ) -> Result<Vec<EgressDecision>, Failure> {
        let mut all: Vec<EgressDecision> = Vec::new();
        let mut cursor = None;
        while all.len() < count_max {
            let limit = (count_max - all.len()).min(LIMIT_MAX as usize);
            let mut query: Query<'_> = vec![("limit", limit.to_string())];
            query.extend(verdict.map(|verdict| ("verdict", verdict.as_str().to_owned())));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page: Page<EgressDecision> = self.get(&format!("sessions/{id}/egress"), &query).await?;
            all.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// `POST /sessions/{id}/input`.
    pub(crate) async fn input(&self, id: SessionId, body: &SendInput) -> Result<InputWritten, Failure> {
        self.ask(Method::POST, &format!("sessions/{id}/input"), &Vec::new(), Some(body)).await
    }

    /// `POST /sessions/{id}/resize`.
    pub(crate) async fn resize(&self, id: SessionId, size: WindowSize) -> Result<(), Failure> {
        let body = ResizeSession { cols: size.cols().into(), rows: size.rows().into() };
        self.send(Method::POST, &format!("sessions/{id}/resize"), &Vec::new(), Some(&body)).await.map(drop)
    }

    /// `GET /hosts`.
    pub(crate) async fn hosts(&self) -> Result<Vec<Host>, Failure> {
        self.pages("hosts", &Vec::new()).await
    }

    /// `GET /agents`.
    pub(crate) async fn agents(&self) -> Result<Vec<Agent>, Failure> {
        self.pages("agents", &Vec::new()).await
    }

    /// `GET /audit`, at most so many.
    pub(crate) async fn audit(&self, query: &Query<'_>, count_max: usize) -> Result<Vec<AuditRecord>, Failure> {
        let mut all: Vec<AuditRecord> = Vec::new();
        let mut cursor = None;
        while all.len() < count_max {
            let mut query = query.clone();
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            // A page may be empty and have more behind it.
            let page: Page<AuditRecord> = self.get("audit", &query).await?;
            all.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        all.truncate(count_max);
        Ok(all)
    }

    /// `GET /audit/export`: a stream without a time limit, read with [`Self::chunk`].
    pub(crate) async fn audit_export(&self, after: u64) -> Result<Response, Failure> {
        self.execute(self.http.get(self.url("audit/export", &vec![("after", after.to_string())]))).await
    }

    /// The next bytes of an answer that is a stream; none at its end.
    pub(crate) async fn chunk(&self, answer: &mut Response) -> Result<Option<Bytes>, Failure> {
        answer.chunk().await.map_err(|error| {
            let words = format!("the connection broke while the server answered: {}", innermost(&error));
            Failure::new(ExitKind::Unreachable, words)
        })
    }

    /// `POST /login-codes`.
    pub(crate) async fn login_code(&self) -> Result<LoginCode, Failure> {
        self.ask::<(), _>(Method::POST, "login-codes", &Vec::new(), None).await
    }

    /// A list, every page of it.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        self.pages(path, &Vec::new()).await
    }

    /// One thing.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.get(path, &Vec::new()).await
    }

    /// A `POST` with an answer.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        self.ask(Method::POST, path, &Vec::new(), Some(body)).await
    }

    /// A `POST` without one.
    pub(crate) async fn post_only<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        self.send(Method::POST, path, &Vec::new(), Some(body)).await.map(drop)
    }

    /// A `PATCH` with an answer.
    pub(crate) async fn patch<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        self.ask(Method::PATCH, path, &Vec::new(), Some(body)).await
    }

    /// A `PATCH` without one.
    pub(crate) async fn patch_only<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        self.send(Method::PATCH, path, &Vec::new(), Some(body)).await.map(drop)
    }

    /// A `DELETE` without an answer.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.send::<()>(Method::DELETE, path, &Vec::new(), None).await.map(drop)
    }

    /// `DELETE /api-keys/{id}`; `made`: what becomes of what was made with it.
    pub(crate) async fn revoke_key(&self, id: ApiKeyId, made: &str) -> Result<(), Failure> {
        let query = vec![("made", made.to_owned())];
        self.send::<()>(Method::DELETE, &format!("api-keys/{id}"), &query, None).await.map(drop)
    }

    /// `GET /events`.
    pub(crate) async fn events(&self) -> Result<EventStream, Failure> {
        let request = self.http.get(self.url("events", &Vec::new())).header("Accept", "text/event-stream");
        let answer = self.execute(request).await?;
        Ok(EventStream::new(answer))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &Query<'_>) -> Result<T, Failure> {
        self.ask::<(), T>(Method::GET, path, query, None).await
    }

    async fn pages<T: DeserializeOwned>(&self, path: &str, query: &Query<'_>) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        let mut cursor = None;
        for _page in 0..PAGES_MAX {
            let mut query = query.clone();
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page: Page<T> = self.get(path, &query).await?;
            all.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(all)
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        body: Option<&B>,
    ) -> Result<T, Failure> {
        decode(self.send(method, path, query, body).await?).await
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        body: Option<&B>,
    ) -> Result<Response, Failure> {
        let mut request = self.http.request(method, self.url(path, query)).timeout(ANSWER_SECONDS_MAX);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.execute(request).await
    }

    async fn execute(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let mut bearer = HeaderValue::try_from(self.server.token.bearer())
            .map_err(|_| Failure::new(ExitKind::Usage, "the token has characters that no token has"))?;
        bearer.set_sensitive(true);
        let answer = request.header(AUTHORIZATION, bearer).send().await.map_err(|error| self.unanswered(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = limited_body(answer).await.unwrap_or_default();
        Err(refused(status, &body))
    }

    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        let url = &self.server.url;
        if error.is_timeout() && !error.is_connect() {
            return Failure::new(ExitKind::TimedOut, format!("{url} did not answer within {ANSWER_SECONDS_MAX:?}"));
        }
        let hint = if is_loopback(url) { ". Does it run? See `agentapi status`" } else { "" };
        Failure::new(ExitKind::Unreachable, format!("cannot reach {url}: {}{hint}", innermost(error)))
    }
}

/// The first cause says what happened ("Connection refused"); the outer ones say that something did.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

async fn decode<T: DeserializeOwned>(answer: Response) -> Result<T, Failure> {
    let body = limited_body(answer).await?;
    serde_json::from_slice(&body).map_err(|error| {
        Failure::new(
            ExitKind::Failure,
            format!("the server's answer is not what this version expects ({error}): is it an AgentAPI control plane of this release?"),
        )
    })
}

async fn limited_body(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(Failure::new(ExitKind::Failure, "the server's answer is too large")),
            Ok(None) => return Ok(body),
            Err(error) => {
                let words = format!("the connection broke while the server answered: {}", innermost(&error));
                return Err(Failure::new(ExitKind::Unreachable, words));
            }
        }
    }
}

#[cfg(test)]
mod tests;
