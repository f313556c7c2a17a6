//! What operators watch: how many spawns live and how they are isolated, how spawns ended, what the egress gateways decided.
//!
//! What is now is read from the store and the fleet when somebody asks, so that it cannot drift from them; what was is counted since the process
//! began. Nothing names a session, a person or an organisation.

use std::collections::HashMap;

use agentapi_shared::ExitReason;
use agentapi_shared::egress::EgressVerdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::plane::Plane;
use crate::store::StoreError;
use crate::store::records::{SessionChange, SpawnRecord};

/// How a spawn is isolated, in labels. Profiles and words are the operator's, so there are few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Isolation {
    state: &'static str,
    isolation: String,
    profile: String,
    network: &'static str,
    /// What is missing of the whole, with commas; nothing is nothing.
    degraded: String,
}

impl Isolation {
    fn of(spawn: &SpawnRecord) -> Self {
        let state = spawn.state.as_str();
        match &spawn.posture {
            Some(posture) => Self {
                state,
                isolation: posture.isolation.clone(),
                profile: posture.profile.clone(),
                network: posture.network.as_str(),
                degraded: posture.degraded.join(","),
            },
            // Its host has not said so yet.
            None => Self {
                state,
                isolation: "unknown".to_owned(),
                profile: String::new(),
                network: "unknown",
                degraded: String::new(),
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    spawns: Family<Isolation, Gauge>,
    hosts: Gauge,
    ended: Family<Reason, Counter>,
    egress: Family<Verdict, Counter>,
    /// One answer is made at a time.
    asked: Mutex<()>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("agentapi");
        let (spawns, hosts) = (Family::default(), Gauge::default());
        let (ended, egress) = (Family::default(), Family::default());
        registry.register("spawns", "Spawns that live, by state and isolation", spawns.clone());
        registry.register("hosts_connected", "Hosts that are connected to this control plane", hosts.clone());
        registry.register("spawns_ended", "Spawns that ended, by reason", ended.clone());
        registry.register("egress_decisions", "Decisions of egress gateways that were stored", egress.clone());
        Self { registry, spawns, hosts, ended, egress, asked: Mutex::default() }
    }
}

impl Metrics {
    /// Counts what a change of a session that was written ended.
    pub(crate) fn count_end(&self, reason: Option<ExitReason>) {
        if let Some(reason) = reason {
            // The word that records and answers have.
            let word = serde_json::to_value(reason).ok().and_then(|word| word.as_str().map(str::to_owned));
            self.ended.get_or_create(&Reason { reason: word.unwrap_or_default() }).inc();
        }
    }

    /// Counts a decision that was stored.
    pub(crate) fn count_egress(&self, verdict: EgressVerdict) {
        self.egress.get_or_create(&Verdict { verdict: verdict.as_str() }).inc();
    }

    /// All of it, as the text format of OpenMetrics 1.0 has it.
    pub async fn text(&self, plane: &Plane) -> Result<String, StoreError> {
        let _one_at_a_time = self.asked.lock().await;
        let hosts = plane.fleet.connected();
        let mut living: HashMap<Isolation, i64> = HashMap::new();
        for host in hosts.iter().copied().map(Some).chain([None]) {
            for record in plane.store.unsettled(host).await? {
                if let Some(spawn) = record.newest().filter(|spawn| !spawn.state.is_ended()) {
                    *living.entry(Isolation::of(spawn)).or_default() += 1;
                }
            }
        }
        self.spawns.clear();
        for (isolation, count) in living {
            self.spawns.get_or_create(&isolation).set(count);
        }
        self.hosts.set(i64::try_from(hosts.len()).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        Ok(text)
    }
}

/// How a change ends a spawn, if it does.
pub(crate) fn end(change: &SessionChange) -> Option<ExitReason> {
    let spawn = change.spawn.as_ref().filter(|spawn| spawn.state.is_ended())?;
    Some(spawn.exit.as_ref()?.reason)
}
