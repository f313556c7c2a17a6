//! Requests at PostgREST: deadlines, bounded answers, and a second try only where it cannot do a thing twice.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tracing::debug;

use super::error::{Again, Failure, Party, Refusal};
use super::filter::Query;
use super::known::{KnownTokens, is_harmless};
use super::proof::Proof;
use crate::store::StoreError;
use crate::store::records::CallerToken;

/// PostgREST is near, or a few network hops away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a request with everything it takes: below the three seconds in which a caller of the API is to know that the store is away.
const DEADLINE: Duration = Duration::from_millis(2500);
/// Tries after the first. What does not come back within them is away, and callers are told when to come again.
const TRIES_AGAIN_MAX: u32 = 3;
/// Before the first of them; doubled for each, and up to as much again by chance, so that those who failed together do not come together.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(40);
/// A page of sessions with all they hold has some megabytes at most. Overflow: the answer is dropped, and the request has failed.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Connections that wait for the next request. Overflow: they are closed.
const IDLE_MAX: usize = 64;

/// The schema of ours that is exposed.
const SCHEMA: &str = "agentapi";
const ACCEPT_PROFILE: HeaderName = HeaderName::from_static("accept-profile");
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");
/// By which functions know that the control plane sent a request.
const PROOF: HeaderName = HeaderName::from_static("x-agentapi-proof");

/// A project: where PostgREST is, and with which headers a request comes to it. Keys may change while it is used.
pub trait Project: Send + Sync + std::fmt::Debug {
    /// Without a slash at the end.
    fn rest_url(&self) -> &Url;
    /// Who vouches for its users; none: nobody logs in with its tokens.
    fn issuer(&self) -> Option<String>;
    /// Of a job of the control plane.
    fn service_headers(&self) -> HeaderMap;
    /// Of a caller.
    fn caller_headers(&self, token: &CallerToken) -> HeaderMap;
}

/// In whose name a request is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    /// With the token that they brought.
    Caller(&'a CallerToken),
    /// With one that was made for them.
    SpokenFor(&'a CallerToken),
    Service,
}

impl Name<'_> {
    fn party(self) -> Party {
        match self {
            Self::Caller(_) => Party::Caller,
            Self::SpokenFor(_) => Party::SpokenFor,
            Self::Service => Party::Service,
        }
    }
}

/// A function of the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    /// Its name, and what of its answer is asked for.
    path: &'static str,
    again: Again,
    /// Whether it asks for the proof.
    proven: bool,
    /// Whether it may leave an audit record.
    records: bool,
}

impl Function {
    /// One that reads.
    pub(super) const fn read(path: &'static str) -> Self {
        Self { path, again: Again::Same, proven: false, records: false }
    }

    /// One of the control plane alone that leaves no record, so that there is nothing to seal after it.
    pub(super) const fn unrecorded(path: &'static str) -> Self {
        Self { path, again: Again::Same, proven: true, records: false }
    }

    /// One whose second run finds the first done.
    pub(super) const fn same(path: &'static str) -> Self {
        Self { path, again: Again::Same, proven: true, records: true }
    }

    /// One that must run once.
    pub(super) const fn once(path: &'static str) -> Self {
        Self { path, again: Again::Other, proven: true, records: true }
    }
}

struct Request {
    method: Method,
    path: String,
    body: Option<String>,
    again: Again,
    proven: bool,
    records: bool,
}

/// A client of one project. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    wire: reqwest::Client,
    project: Arc<dyn Project>,
    proof: Arc<Proof>,
    deadline: Duration,
    pub(super) known: Arc<KnownTokens>,
    /// Counts writes, each of which has its audit record.
    written: Arc<watch::Sender<u64>>,
}

impl Client {
    pub(super) fn new(project: Arc<dyn Project>, written: Arc<watch::Sender<u64>>) -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            // Supabase refuses secret keys of what looks like a browser.
            .user_agent(concat!("agentapi-controlplane/", env!("CARGO_PKG_VERSION")));
        // A proxy of the environment has no way to this machine.
        let near =
            project.rest_url().host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
        let wire = if near { builder.no_proxy() } else { builder }.build()?;
        Ok(Self { wire, project, proof: Arc::default(), deadline: DEADLINE, known: Arc::default(), written })
    }

    /// The same with another deadline: a machine that runs many tests at once takes longer.
    #[cfg(test)]
    pub(super) fn patient(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// As if a proof had been registered.
    #[cfg(test)]
    pub(super) fn assume_proof(&self) {
        self.proof.assume();
    }

    /// Where PostgREST is, for messages.
    pub(super) fn url(&self) -> String {
        self.project.rest_url().to_string()
    }

    /// Who vouches for the project's users.
    pub(super) fn issuer(&self) -> Option<String> {
        self.project.issuer()
    }

    /// Has a proof registered, if there is none.
    pub(super) async fn prove(&self) -> Result<(), StoreError> {
        let proven = tokio::time::timeout(self.deadline, self.proof.current(self)).await.unwrap_or(Err(Failure::Late));
        proven.map(drop).map_err(|failure| failure.into_store_error(Party::Service))
    }

    /// Reads rows.
    pub(super) async fn rows<T: DeserializeOwned>(&self, name: Name<'_>, query: &Query) -> Result<Vec<T>, StoreError> {
        let path = query.path_and_query();
        let request =
            Request { method: Method::GET, path, body: None, again: Again::Same, proven: false, records: false };
        self.ask(name, &request).await
    }

    /// Calls a function.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        name: Name<'_>,
        function: Function,
        arguments: Value,
    ) -> Result<T, StoreError> {
        self.call_for(name, function, arguments, function.path.to_owned()).await
    }

    /// Calls a function that gives rows, and takes of them what the query says.
    pub(super) async fn rows_of<T: DeserializeOwned>(
        &self,
        name: Name<'_>,
        function: Function,
        arguments: Value,
        query: &Query,
    ) -> Result<Vec<T>, StoreError> {
        self.call_for(name, function, arguments, query.path_and_query()).await
    }

    async fn call_for<T: DeserializeOwned>(
        &self,
        name: Name<'_>,
        function: Function,
        arguments: Value,
        path: String,
    ) -> Result<T, StoreError> {
        let body = serde_json::to_string(&without_nul(arguments))
            .map_err(|error| Failure::Unwritable(error).into_store_error(name.party()))?;
        let Function { again, proven, records, .. } = function;
        let path = format!("rpc/{path}");
        let request = Request { method: Method::POST, path, body: Some(body), again, proven, records };
        self.ask(name, &request).await
    }

    async fn ask<T: DeserializeOwned>(&self, name: Name<'_>, request: &Request) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(self.deadline, self.persist(name, request)).await;
        if request.records {
            // Also after a failure: what went unanswered may be there.
            self.written.send_modify(|count| *count += 1);
        }
        if request.proven && !request.path.strip_prefix("rpc/").is_some_and(is_harmless) {
            self.known.forget();
        }
        let answer = answer.unwrap_or(Err(Failure::Late)).map_err(|failure| failure.into_store_error(name.party()))?;
        // A function without a result answers with nothing.
        let text: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(text).map_err(|error| Failure::Malformed(error).into_store_error(name.party()))
    }

    async fn persist(&self, name: Name<'_>, request: &Request) -> Result<Vec<u8>, Failure> {
        let (mut tries, mut renewed) = (0, false);
        loop {
            let answer = match if request.proven { self.proof.current(self).await.map(Some) } else { Ok(None) } {
                Ok(proof) => match self.once(name, request, proof.as_ref()).await {
                    Err(Failure::Refused(refusal)) if refusal.is_of_proof() && !renewed => {
                        // Nothing was done, whatever was asked for.
                        renewed = true;
                        self.proof.renew(self, proof.as_ref()).await.map(drop)?;
                        continue;
                    }
                    answer => answer,
                },
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if tries < TRIES_AGAIN_MAX && failure.may_go_again(request.again) => {
                    debug!(error = &failure as &dyn std::error::Error, path = request.path, "asked again");
                    tokio::time::sleep(pause(tries)).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn once(&self, name: Name<'_>, request: &Request, proof: Option<&HeaderValue>) -> Result<Vec<u8>, Failure> {
        let mut headers = match name {
            Name::Caller(token) | Name::SpokenFor(token) => self.project.caller_headers(token),
            Name::Service => self.project.service_headers(),
        };
        let profile = if request.body.is_some() { CONTENT_PROFILE } else { ACCEPT_PROFILE };
        headers.insert(profile, HeaderValue::from_static(SCHEMA));
        if let Some(proof) = proof {
            headers.insert(PROOF, proof.clone());
        }
        let url = format!("{}/{}", self.project.rest_url().as_str().trim_end_matches('/'), request.path);
        let mut asked = self.wire.request(request.method.clone(), url).headers(headers);
        if let Some(body) = &request.body {
            asked = asked.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let answer = asked.send().await.map_err(of_wire)?;
        let status = answer.status();
        let body = read(answer).await?;
        if status.is_success() { Ok(body) } else { Err(Refusal::read(status.as_u16(), &body).into()) }
    }

    /// Makes a proof good. It is no call as others are: they wait for it.
    pub(super) async fn register(&self, arguments: Value) -> Result<(), Failure> {
        let body = Some(serde_json::to_string(&arguments).map_err(Failure::Unwritable)?);
        let path = "rpc/register_proof".to_owned();
        let request = Request { method: Method::POST, path, body, again: Again::Same, proven: false, records: false };
        self.once(Name::Service, &request, None).await.map(drop)
    }
}

/// Reads an answer up to its limit.
async fn read(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(of_wire)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(Failure::TooLarge(ANSWER_BYTES_MAX));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn of_wire(error: reqwest::Error) -> Failure {
    // The address has no place in a log: it may be followed by what was asked for.
    let error = error.without_url();
    if error.is_connect() { Failure::Connect(error) } else { Failure::Lost(error) }
}

fn pause(tries: u32) -> Duration {
    let usual = TRY_AGAIN_AFTER * 2_u32.saturating_pow(tries);
    usual.mul_f64(rand::random_range(1.0..2.0))
}

/// With another character for each U+0000: Postgres has no place for it in text, and what a host says must not stop for one.
fn without_nul(value: Value) -> Value {
    let text = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match value {
        Value::String(found) => Value::String(text(found)),
        Value::Array(values) => Value::Array(values.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (text(name), without_nul(value))).collect())
        }
        other => other,
    }
}
