//! What one running control plane consists of, and how a change is told to everyone who watches.

use std::sync::{Arc, Weak};

use agentapi_shared::agent::AgentManifest;
use agentapi_shared::api::{Host, ServerEvent, Session};
use agentapi_shared::runtime::TaskGroup;
use tokio::sync::watch;

use crate::audit::Trail;
use crate::domain::{hosts, rules};
use crate::events::{Audience, Events};
use crate::fleet::Fleet;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::relay::Hubs;
use crate::sights::Sights;
use crate::sockets::Sockets;
use crate::store::Store;
use crate::store::records::{HostRecord, SessionFacts, SessionRecord};

/// The parts, each of which owns its own state.
#[derive(Debug)]
pub struct Plane {
    /// What outlives the process.
    pub store: Arc<dyn Store>,
    /// Connected hosts.
    pub fleet: Fleet,
    /// The event stream.
    pub events: Events,
    /// Watched sessions.
    pub hubs: Hubs,
    /// Live sockets by credential.
    pub sockets: Sockets,
    /// What is taken in the store for each viewer.
    pub leases: Leases,
    /// Logins at issuers that were seen.
    pub sights: Sights,
    /// Somebody changed what an organisation wants of its sessions.
    pub settings_changed: watch::Sender<()>,
    /// More credentials ended than those whose sockets were ended with them.
    pub credentials_changed: watch::Sender<()>,
    /// What operators watch.
    pub metrics: Metrics,
    /// The audit trail.
    pub trail: Trail,
    /// The agents of this release.
    pub agents: Vec<AgentManifest>,
    /// Tasks of connections, links and jobs.
    pub tasks: TaskGroup,
}

impl Plane {
    /// A control plane without connections.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, agents: Vec<AgentManifest>, tasks: TaskGroup) -> Arc<Self> {
        let trail = Trail::start(store.clone(), &tasks);
        Arc::new_cyclic(|plane: &Weak<Self>| Self {
            store,
            trail,
            fleet: Fleet::new(plane.clone()),
            events: Events::new(),
            hubs: Hubs::default(),
            sockets: Sockets::default(),
            leases: Leases::default(),
            sights: Sights::default(),
            settings_changed: watch::Sender::new(()),
            credentials_changed: watch::Sender::new(()),
            metrics: Metrics::default(),
            agents,
            tasks,
        })
    }

    /// A session as callers see it.
    #[must_use]
    pub fn present(&self, record: &SessionRecord) -> Session {
        let manifest = self.agents.iter().find(|agent| agent.name == record.agent);
        rules::present(record, self.reachable(record), manifest.map(|agent| agent.command.as_slice()))
    }

    /// A host as callers see it.
    #[must_use]
    pub fn present_host(&self, record: HostRecord) -> Host {
        let connected = self.fleet.link(record.id).is_some();
        hosts::present(record, connected)
    }

    /// Whether the host that holds a session is connected; true for one that is placed nowhere.
    #[must_use]
    pub fn reachable(&self, record: &SessionRecord) -> bool {
        record.host.is_none_or(|host| self.fleet.link(host).is_some())
    }

    /// Tells event subscribers and viewers how a session is now.
    pub fn publish(&self, record: &SessionRecord) {
        // Whoever said that the host has it, a reply or a report: from now on the host keeps the environment.
        if record.newest().is_some_and(|spawn| spawn.accepted || spawn.state.is_ended()) {
            self.fleet.drop_environment(record.id);
        }
        let session = Box::new(self.present(record));
        let event = ServerEvent::Session { session };
        self.events.publish_session(record.org, record.id, record.revision, Audience::Sees(record.into()), &event);
        self.hubs.session_changed(record, self.reachable(record));
    }

    /// Tells everyone that a session is gone.
    pub fn publish_purged(&self, record: &SessionRecord) {
        let event = ServerEvent::SessionPurged { id: record.id };
        self.events.publish_session(record.org, record.id, u64::MAX, Audience::Sees(record.into()), &event);
        self.hubs.session_purged(record.id);
    }

    /// Tells those who saw a session before, and do not now.
    pub fn publish_hidden(&self, record: &SessionRecord, before: SessionFacts) {
        let now = SessionFacts::from(record);
        if before != now {
            let (event, audience) = (ServerEvent::SessionHidden { id: record.id }, Audience::Lost { before, now });
            self.events.publish_session(record.org, record.id, record.revision, audience, &event);
        }
    }

    /// Tells event subscribers how a host is now.
    pub fn publish_host(&self, record: HostRecord) {
        let org = record.org;
        let host = Box::new(self.present_host(record));
        self.events.publish(org, &ServerEvent::Host { host });
    }
}
