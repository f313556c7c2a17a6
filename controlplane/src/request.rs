//! The request that is being answered, for the audit trail: which one, from where, and who it turned out to be from.
//!
//! Ambient, as the span of the log is, so that no record can forget it. Tasks that outlive their request take it along with [`scope`].

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use agentapi_shared::EventId;

use crate::store::records::TenantContext;

tokio::task_local! {
    static CURRENT: Arc<Request>;
}

/// See the module.
#[derive(Debug)]
pub struct Request {
    /// Its id, as the caller is told.
    pub id: EventId,
    /// Where it came from.
    pub ip: Option<IpAddr>,
    /// What the client says of itself.
    pub user_agent: Option<String>,
    caller: OnceLock<Caller>,
}

/// Whom a request is from.
#[derive(Debug, Clone)]
pub struct Caller {
    /// In whose name it acts.
    pub tenant: TenantContext,
    /// Their name.
    pub name: String,
    /// Names the credential without giving it away.
    pub credential: String,
    /// How they came: `api` or `web`.
    pub channel: &'static str,
}

impl Request {
    /// One that was just received.
    #[must_use]
    pub fn new(id: EventId, ip: Option<IpAddr>, user_agent: Option<String>) -> Arc<Self> {
        Arc::new(Self { id, ip, user_agent, caller: OnceLock::new() })
    }

    /// Whom it is from, once that is known.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.get()
    }
}

/// The request that this task answers, if it answers one.
#[must_use]
pub fn current() -> Option<Arc<Request>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Says whom the current request is from. The first word counts: a request has one credential.
pub fn identify(caller: Caller) {
    if let Some(request) = current() {
        let _first = request.caller.set(caller);
    }
}

/// Does `work` as part of a request; of none, it is just done.
pub async fn scope<F: Future>(request: Option<Arc<Request>>, work: F) -> F::Output {
    match request {
        Some(request) => CURRENT.scope(request, work).await,
        None => work.await,
    }
}
