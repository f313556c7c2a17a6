//! What operators watch: how many spawns live and how they are isolated, how spawns ended, what the egress gateways decided.
//!
//! What is now is read from the store and the fleet when somebody asks, so that it cannot drift from them; what was is counted since the process
//! began. Nothing names a session, a person or an organisation.

use std::collections::{HashMap, HashSet};

use agentapi_shared::ExitReason;
use agentapi_shared::api::{DEGRADED_WORDS, Posture, is_profile_name};
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

/// Isolations that are told apart, since the process began: each is a series of a collector for ever, and hosts are not all to be trusted.
/// Overflow: those that come later are told as `other`.
const ISOLATIONS_MAX: usize = 64;

/// What a host said that nobody here knows, or that is one too many.
const OTHER: &str = "other";

/// How a spawn is isolated, in labels.
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
    /// `known`: those that were told before, without their state.
    fn of(spawn: &SpawnRecord, known: &mut HashSet<Told>) -> Self {
        let state = spawn.state.as_str();
        match &spawn.posture {
            Some(posture) => {
                let Told { isolation, profile, degraded } = Told::of(posture).or_other(known);
                Self { state, isolation, profile, network: posture.network.as_str(), degraded }
            }
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

/// What a host says of an isolation, as far as it is known or well formed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Told {
    isolation: String,
    profile: String,
    degraded: String,
}

impl Told {
    fn of(posture: &Posture) -> Self {
        let is_known = ["root", "user", "none"].contains(&posture.isolation.as_str());
        let isolation = if is_known { &posture.isolation } else { OTHER };
        let profile = if is_profile_name(&posture.profile) { &posture.profile } else { OTHER };
        let said = |word: &&str| posture.degraded.iter().any(|said| said == word);
        let mut degraded: Vec<&str> = DEGRADED_WORDS.into_iter().filter(said).collect();
        if posture.degraded.iter().any(|said| !DEGRADED_WORDS.contains(&said.as_str())) {
            degraded.push(OTHER);
        }
        Self { isolation: isolation.to_owned(), profile: profile.to_owned(), degraded: degraded.join(",") }
    }

    /// The same, if it was told before or there is room for one more.
    fn or_other(self, known: &mut HashSet<Self>) -> Self {
        if known.contains(&self) {
            return self;
        }
        if known.len() < ISOLATIONS_MAX {
            known.insert(self.clone());
            return self;
        }
        Self { isolation: OTHER.to_owned(), profile: OTHER.to_owned(), degraded: OTHER.to_owned() }
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
    /// One answer is made at a time, with what was told in those before.
    told: Mutex<HashSet<Told>>,
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
        Self { registry, spawns, hosts, ended, egress, told: Mutex::default() }
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
        let mut told = self.told.lock().await;
        let hosts = plane.fleet.connected();
        let mut living: HashMap<Isolation, i64> = HashMap::new();
        for host in hosts.iter().copied().map(Some).chain([None]) {
            for record in plane.store.unsettled(host).await? {
                if let Some(spawn) = record.newest().filter(|spawn| !spawn.state.is_ended()) {
                    *living.entry(Isolation::of(spawn, &mut told)).or_default() += 1;
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

#[cfg(test)]
mod tests {
    use agentapi_shared::api::{Limits, NetworkMode};

    use super::*;

    fn told(isolation: &str, profile: &str, degraded: &[&str]) -> [String; 3] {
        let degraded = degraded.iter().map(|word| (*word).to_owned()).collect();
        let (isolation, profile) = (isolation.to_owned(), profile.to_owned());
        let posture = Posture { isolation, profile, network: NetworkMode::Off, limits: Limits::default(), degraded };
        let Told { isolation, profile, degraded } = Told::of(&posture);
        [isolation, profile, degraded]
    }

    #[test]
    fn what_a_host_says_is_told_as_far_as_it_is_known() {
        assert_eq!(
            told("user", "strict", &["one-uid", "landlock-abi-2"]),
            ["user", "strict", "landlock-abi-2,one-uid"]
        );
        assert_eq!(told("root", "ours_2", &[]), ["root", "ours_2", ""]);
        let long = "x".repeat(1_000_000);
        let odd = told(&long, "a\"} 1\n", &["no-cgroup", &long, "no-cgroup", "rm -rf"]);
        assert_eq!(odd, ["other", "other", "no-cgroup,other"]);
        assert_eq!(told("root", &long, &[])[1], "other");
    }

    #[test]
    fn a_host_makes_so_many_series_and_no_more() {
        let mut known = HashSet::new();
        let one = |profile: String| Told { isolation: "root".to_owned(), profile, degraded: String::new() };
        let told: HashSet<Told> = (0..1000).map(|number| one(format!("p{number}")).or_other(&mut known)).collect();
        assert_eq!(told.len(), ISOLATIONS_MAX + 1);
        // Those that were there first stay what they are.
        assert_eq!(one("p0".to_owned()).or_other(&mut known).profile, "p0");
        assert_eq!(one("p999".to_owned()).or_other(&mut known).profile, "other");
    }
}
