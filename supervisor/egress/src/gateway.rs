//! What the gateway serves: the sessions, and what all of them share. The supervisor's requests change it, and nothing else does.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentapi_shared::SessionId;
use agentapi_shared::egress::{EgressPolicy, LISTENERS_MAX, Lasting, ListenerRole, RULES_MAX};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use tokio::sync::watch;
use tracing::info;

use crate::decisions::Decisions;
use crate::descriptors::Descriptors;
use crate::guard::Guard;
use crate::lanes::Lanes;
use crate::listen::{self, ListenError, Server};
use crate::session::Session;
use crate::splice::Pipes;

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) guard: Guard,
    pub(crate) pipes: Pipes,
    pub(crate) tls: rustls::ClientConfig,
    pub(crate) descriptors: Descriptors,
    open: watch::Sender<usize>,
}

/// Why a session is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Descriptors and roles do not fit.
    #[error("{roles} listeners are described and {descriptors} came")]
    Count { roles: usize, descriptors: usize },
    /// A session that is new needs a listener, and there is a limit.
    #[error("a session has 1 to {LISTENERS_MAX} listeners, not {0}")]
    Listeners(usize),
    /// Too many rules.
    #[error("a policy has at most {RULES_MAX} rules, not {0}")]
    Rules(usize),
    /// One of the listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It ends.
    #[error("this gateway retires")]
    Retired,
}

impl ServeError {
    /// Whether asking again, or another gateway, can help.
    pub(crate) fn lasting(&self) -> Lasting {
        match self {
            Self::Retired | Self::Listen(ListenError::Watch(_)) => Lasting::Transient,
            Self::Count { .. } | Self::Listeners(_) | Self::Rules(_) | Self::Listen(_) => Lasting::Permanent,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<SessionId, Arc<Session>>,
    retired: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    table: Mutex<Table>,
    tasks: TaskGroup,
    lanes: Lanes,
}

impl Shared {
    pub(crate) fn new(guard: Guard, tls: rustls::ClientConfig, descriptors: Descriptors) -> Self {
        Self {
            decisions: Arc::default(),
            guard,
            pipes: Pipes::default(),
            tls,
            descriptors,
            open: watch::Sender::new(0),
        }
    }

    /// Counts one open connection until the drop.
    pub(crate) fn count(self: &Arc<Self>) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(Arc::clone(self))
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

impl Gateway {
    pub(crate) fn new(shared: Shared, lanes: Lanes) -> Self {
        Self { shared: Arc::new(shared), table: Mutex::default(), tasks: TaskGroup::new(), lanes }
    }

    pub(crate) fn decisions(&self) -> &Arc<Decisions> {
        &self.shared.decisions
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every session that is served.
    pub(crate) fn sessions(&self) -> Vec<(SessionId, u32)> {
        self.lock().sessions.values().map(|session| (session.id, session.spawn)).collect()
    }

    /// Serves a session, or one that is served already by this policy and these listeners.
    pub(crate) fn serve(
        &self,
        id: SessionId,
        spawn: u32,
        policy: EgressPolicy,
        roles: Vec<ListenerRole>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ServeError> {
        if roles.len() != descriptors.len() {
            return Err(ServeError::Count { roles: roles.len(), descriptors: descriptors.len() });
        }
        let rules = policy.allow.len() + policy.deny.len();
        if rules > RULES_MAX {
            return Err(ServeError::Rules(rules));
        }
        let mut table = self.lock();
        if table.retired {
            return Err(ServeError::Retired);
        }
        let known = table.sessions.get(&id).filter(|session| session.spawn == spawn).cloned();
        if roles.len() > LISTENERS_MAX || (roles.is_empty() && known.is_none()) {
            return Err(ServeError::Listeners(roles.len()));
        }
        let lane = known.as_ref().map_or_else(|| self.lanes.emptiest(), |session| session.lane.clone());
        let _all_of_it = lane.enter();
        let servers = roles
            .into_iter()
            .zip(descriptors)
            .map(|(role, descriptor)| Server::new(role, descriptor, &self.shared))
            .collect::<Result<Vec<_>, _>>()?;
        let session = match known {
            Some(session) => {
                session.set_policy(policy);
                if !servers.is_empty() {
                    session.stop_accepting();
                }
                session
            }
            None => Arc::new(Session::new((id, spawn), policy, Arc::clone(&self.shared), &self.tasks, lane.clone())),
        };
        if let Some(older) = table.sessions.insert(id, Arc::clone(&session))
            && older.spawn != spawn
        {
            older.end();
        }
        drop(table);
        let accepting = session.accepting();
        for server in servers {
            accepting.spawn(
                "listener",
                OnEnd::Continue,
                listen::serve(Arc::clone(&session), server, accepting.cancelled()),
            );
        }
        info!(session.id = %id, spawn, "session served");
        Ok(())
    }

    /// A spawn is over.
    pub(crate) fn release(&self, id: SessionId, spawn: u32) {
        let mut table = self.lock();
        if table.sessions.get(&id).is_some_and(|session| session.spawn == spawn)
            && let Some(session) = table.sessions.remove(&id)
        {
            session.end();
            info!(session.id = %id, spawn, "session released");
        }
    }

    /// Closes every listener. What is open goes on.
    pub(crate) fn retire(&self) {
        let mut table = self.lock();
        table.retired = true;
        for session in table.sessions.values() {
            session.stop_accepting();
        }
        info!("retired; what is open goes on to its end");
    }

    /// Waits until nothing is open.
    pub(crate) async fn idle(&self) {
        let mut open = self.shared.open.subscribe();
        // The sender lives as long as we do.
        let _idle = open.wait_for(|open| *open == 0).await.is_ok();
    }
}
