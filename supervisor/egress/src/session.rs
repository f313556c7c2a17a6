//! One session as the gateway sees it: its policy, its caps, its listeners, and the way out of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use agentapi_shared::SessionId;
use agentapi_shared::egress::{EgressMode, EgressPolicy, EgressVerdict};
use agentapi_shared::runtime::TaskGroup;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::decisions::Record;
use crate::dial::{Dialler, LOOKUPS_MAX};
use crate::gateway::Shared;
use crate::lanes::Lane;
use crate::meter::{Meter, Rare};
use crate::names::Name;
use crate::refusal::Refusal;
use crate::ruling::{self, Destination};

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) spawn: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) dialler: Dialler,
    /// Where all of it runs.
    pub(crate) lane: Lane,
    policy: RwLock<Arc<EgressPolicy>>,
    /// Everything of it.
    tasks: TaskGroup,
    /// The part that accepts.
    accepting: Mutex<TaskGroup>,
}

/// A connection to where somebody inside wanted.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) stream: TcpStream,
    /// The name asked for; none if it was an address, which only `observe` connects to.
    pub(crate) name: Option<Name>,
    pub(crate) port: u16,
    pub(crate) record: Record,
}

impl Session {
    pub(crate) fn new(
        (id, spawn): (SessionId, u32),
        policy: EgressPolicy,
        shared: Arc<Shared>,
        tasks: &TaskGroup,
        lane: Lane,
    ) -> Self {
        let tasks = tasks.child();
        Self {
            id,
            spawn,
            meter: Arc::new(Meter::new(policy.limits)),
            dialler: Dialler {
                guard: shared.guard.clone(),
                descriptors: shared.descriptors,
                lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            },
            shared,
            lane,
            policy: RwLock::new(Arc::new(policy)),
            accepting: Mutex::new(tasks.child()),
            tasks,
        }
    }

    /// The policy of this moment.
    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New connections go by this one; those that are open stay as they were decided, within the new caps.
    pub(crate) fn set_policy(&self, policy: EgressPolicy) {
        self.meter.set_limits(policy.limits);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    pub(crate) fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    /// The group for new accepting tasks.
    pub(crate) fn accepting(&self) -> TaskGroup {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the listeners; what is open goes on.
    pub(crate) fn stop_accepting(&self) {
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        accepting.shutdown();
        *accepting = self.tasks.child();
    }

    /// Ends everything.
    pub(crate) fn end(&self) {
        self.tasks.shutdown();
    }

    /// Begins a record of this session.
    pub(crate) fn record(&self, host: &str, port: u16) -> Record {
        Record::begin(&self.shared.decisions, self.id, self.spawn, host, port)
    }

    /// Ends a record with a refusal. Of those for caps and of malformed requests only so many are kept.
    pub(crate) fn refuse(&self, mut record: Record, refusal: &Refusal) {
        let kind = match refusal {
            Refusal::ConnectionsMax | Refusal::ConnectionsPerMinute | Refusal::BytesMax => Some(Rare::Cap),
            Refusal::Request(_) => Some(Rare::Malformed),
            _ => None,
        };
        if kind.is_some_and(|kind| !self.meter.records_refusal(kind)) {
            record.forget();
            return;
        }
        record.refuse(refusal);
    }

    /// Decides and connects, for a request that was counted. A refusal is recorded here; of what is connected the caller has the record.
    pub(crate) async fn open(
        &self,
        host: &str,
        port: u16,
        check: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Outgoing, Refusal> {
        let mut record = self.record(host, port);
        match self.try_open(&mut record, host, port, check).await {
            Ok((stream, name)) => Ok(Outgoing { stream, name, port, record }),
            Err(refusal) => {
                self.refuse(record, &refusal);
                Err(refusal)
            }
        }
    }

    async fn try_open(
        &self,
        record: &mut Record,
        host: &str,
        port: u16,
        check: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(TcpStream, Option<Name>), Refusal> {
        let policy = self.policy();
        let mut ruling = ruling::rule(&policy, host, port)?;
        match check() {
            Err(refusal) if policy.mode == EgressMode::Observe && refusal.is_of_rules() => {
                ruling.rule = if ruling.observed { ruling.rule } else { refusal.word() };
                ruling.observed = true;
            }
            other => other?,
        }
        let (stream, address): (TcpStream, SocketAddr) = self.dialler.dial(&ruling.destination, port).await?;
        record.connected_to(address);
        let verdict = if ruling.observed { EgressVerdict::WouldDeny } else { EgressVerdict::Allowed };
        record.decide(verdict, ruling.rule);
        let name = match ruling.destination {
            Destination::Name(name) => Some(name),
            Destination::Address(_) => None,
        };
        Ok((stream, name))
    }

    /// Whether rules only say what they would have refused.
    pub(crate) fn observes(&self) -> bool {
        self.policy().mode == EgressMode::Observe
    }
}
