//! Connected hosts: which are there, what they are told, and how a session is brought to what is wanted.
//!
//! Level-triggered: a session is *settled* by comparing its record with what is known of its host, whenever either changed. One
//! settling task per session at a time, so a start is never sent twice and a stop never overtakes its start.

mod drive;
pub mod link;
mod outlet;
mod reconcile;
pub mod serve;
mod settle;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use agentapi_shared::link::{Command, CommandResult};
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::{HostId, SessionId};

use crate::domain::DomainError;
use crate::plane::Plane;
use crate::store::records::SessionRecord;

pub use drive::{Drive, drive};
pub use link::{CommandFailure, Link};
pub use outlet::LinkStream;
#[cfg(test)]
pub(crate) use outlet::{Closed, Outgoing, Outlet};

/// A caller waits this long for a host's answer: longer than any screen or input takes, short enough for a person.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Environments that wait for a host. Overflow: further creates with an environment are refused.
const ENVIRONMENTS_MAX: usize = 1000;

/// The variables of a session.
pub type Environment = BTreeMap<String, String>;

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    plane: Weak<Plane>,
    links: Mutex<HashMap<HostId, Arc<Link>>>,
    /// Values are secret and live only here until a host accepted the start.
    environments: Mutex<HashMap<SessionId, Environment>>,
    /// Sessions being settled, and whether something changed since the task looked.
    settling: Mutex<HashMap<SessionId, bool>>,
}

impl Fleet {
    pub(crate) fn new(plane: Weak<Plane>) -> Self {
        Self { plane, links: Mutex::default(), environments: Mutex::default(), settling: Mutex::default() }
    }

    /// The link of a host, while it is connected.
    #[must_use]
    pub fn link(&self, host: HostId) -> Option<Arc<Link>> {
        lock(&self.links).get(&host).filter(|link| !link.is_closed()).cloned()
    }

    /// The hosts that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<HostId> {
        lock(&self.links).values().filter(|link| !link.is_closed()).map(|link| link.host()).collect()
    }

    /// Ends the link of a host, if it has one.
    pub fn close(&self, host: HostId) {
        if let Some(link) = self.link(host) {
            link.close();
        }
    }

    /// Has a host do something for a session, and waits for its answer.
    pub async fn command(&self, record: &SessionRecord, command: Command) -> Result<CommandResult, DomainError> {
        let link = record.host.and_then(|host| self.link(host)).ok_or(DomainError::HostUnreachable)?;
        link.command(record.id, command, COMMAND_DEADLINE).await.map_err(|failure| match failure {
            CommandFailure::Refused(error) => DomainError::Host(error),
            CommandFailure::Gone => DomainError::HostUnreachable,
            CommandFailure::Deadline => DomainError::HostTimeout,
            CommandFailure::Busy => DomainError::Busy("the host has too many commands at work"),
        })
    }

    /// Keeps an environment until a host accepted the start.
    pub fn keep_environment(&self, id: SessionId, env: Environment) -> Result<(), DomainError> {
        if env.is_empty() {
            return Ok(());
        }
        let mut environments = lock(&self.environments);
        if environments.len() >= ENVIRONMENTS_MAX {
            return Err(DomainError::Busy("too many sessions with an environment wait for a host"));
        }
        environments.insert(id, env);
        Ok(())
    }

    /// Forgets an environment.
    pub fn drop_environment(&self, id: SessionId) {
        lock(&self.environments).remove(&id);
    }

    fn environment(&self, id: SessionId) -> Option<Environment> {
        lock(&self.environments).get(&id).cloned()
    }

    /// Has a session brought to what is wanted, soon.
    pub fn settle_soon(&self, record: &SessionRecord) {
        let Some(plane) = self.plane.upgrade() else { return };
        let id = record.id;
        // One look at the map: two callers at once must not start two tasks.
        match lock(&self.settling).entry(id) {
            Entry::Occupied(mut again) => {
                again.insert(true);
                return;
            }
            Entry::Vacant(free) => free.insert(false),
        };
        let (tasks, record) = (plane.tasks.clone(), record.clone());
        tasks.spawn("settle", OnEnd::Continue, async move { settle::run(&plane, record).await });
    }

    /// Whether the settling task has to look again; if not, it is over.
    fn settle_again(&self, id: SessionId) -> bool {
        let mut settling = lock(&self.settling);
        match settling.get_mut(&id) {
            Some(again) if *again => {
                *again = false;
                true
            }
            _ => {
                settling.remove(&id);
                false
            }
        }
    }

    /// The connected host with the fewest commands and sessions; with one host, that one.
    fn least_loaded(&self, record: &SessionRecord) -> Option<Arc<Link>> {
        let links = lock(&self.links);
        let usable = links.values().filter(|link| link.org().is_none_or(|org| org == record.org));
        usable.min_by_key(|link| (link.placed(), link.host())).cloned()
    }

    fn connect(&self, link: &Arc<Link>) {
        let before = lock(&self.links).insert(link.host(), link.clone());
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, link)) {
            before.close();
        }
    }

    /// Takes a link out, unless another took its place.
    fn disconnect(&self, link: &Arc<Link>) -> bool {
        let mut links = lock(&self.links);
        let current = links.get(&link.host()).is_some_and(|current| Arc::ptr_eq(current, link));
        if current {
            links.remove(&link.host());
        }
        current
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is one map operation; none can leave a map half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
