//! From what a session asks for to the [`Sandbox`] it gets: the profile, tightened by its organisation and by the request, on the ground that
//! this host is. A request
//! never opens anything, and whatever is refused is named by its field before anything starts.

mod mounts;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use agentapi_shared::agent::AgentManifest;
use agentapi_shared::api::{DEFAULT_PROFILE, Limits, NetworkMode, PolicyFault, Posture, SandboxPolicy, SandboxRequest};
use agentapi_shared::egress::{EgressMode, EgressPolicy, ListenerRole, MESSAGE_BYTES_MAX, RULES_MAX};

use crate::files::Storage;
use crate::gateway;
use crate::host::{Ground, Isolation};
use crate::posture::{self, Missing, NotAllowed};
use crate::private::Private;
use crate::profiles::Profile;
use crate::sandbox::{Listener, Sandbox};
use crate::settings::{KeyError, Settings};

/// Why a session is not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// Nobody knows the profile.
    #[error("sandbox.profile: this host has no profile `{name}`; it has {known}")]
    Profile { name: String, known: String },
    /// A more open network than the profile's.
    #[error(
        "sandbox.network: `{asked}` is more open than profile `{profile}` allows (`{most}`): ask for that or less, or for another profile"
    )]
    Network { asked: &'static str, profile: String, most: &'static str },
    /// More than the profile gives.
    #[error(
        "sandbox.limits.{name}: {asked} is more than profile `{profile}` allows ({most}): ask for that or less, or for another profile"
    )]
    Limit { name: &'static str, asked: u64, profile: String, most: u64 },
    /// Its organisation does not allow it.
    #[error("{field}: {reason}")]
    Policy { field: String, reason: String },
    /// A limit was asked for, or set by the organisation, that would not be kept.
    #[error("sandbox.limits.{name}: this host cannot keep such a limit: see `agentapi-supervisor doctor` on it")]
    Unkept { name: &'static str },
    /// Its files are on a disk that cannot be used here.
    #[error(
        "sandbox.limits.disk_bytes: this session's files are on a disk of their own, and this host could not have such disks when its supervisor was started: mend what `agentapi-supervisor doctor` names on it, and restart the supervisor"
    )]
    Disk,
    /// A directory.
    #[error("{field}: {reason}")]
    Mount { field: String, reason: String },
    /// A layer is missing.
    #[error(transparent)]
    Degraded(#[from] NotAllowed),
    /// A key that the operator promised.
    #[error(
        "the key of model provider `{name}` cannot be had: mend its `key_file` in the supervisor's settings on this host"
    )]
    Key { name: String, source: KeyError },
    /// More rules than the gateway takes; profile, agent and host each give some.
    #[error(
        "egress: {rules} rules, or their length, are more than the gateway takes ({RULES_MAX} rules in {MESSAGE_BYTES_MAX} bytes): shorten the lists of the profile, the agent or the host"
    )]
    Egress { rules: usize },
    /// Something was asked of a sandbox that does not exist.
    #[error(
        "{field}: this host isolates nothing (--unsafe-no-jail), so there is nothing to set: leave the field out, or use another host"
    )]
    NoSandbox { field: &'static str },
}

/// What is known of a session beside what it asks of its sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// What its organisation allows.
    pub(crate) policy: &'a SandboxPolicy,
    /// Its agent; none for a command of the user's.
    pub(crate) manifest: Option<&'a AgentManifest>,
    /// Directories that every session of this host sees.
    pub(crate) read_only_paths: &'a [PathBuf],
    /// What no session may be given.
    pub(crate) private: &'a Private,
    /// What it has for its files already.
    pub(crate) storage: Storage,
}

/// What a session gets.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// For the plan.
    pub(crate) sandbox: Sandbox,
    /// For the gateway; nothing is reachable unless the network is filtered.
    pub(crate) egress: EgressPolicy,
    /// For people.
    pub(crate) posture: Posture,
}

/// See the module.
pub(crate) fn settle(
    settings: &Settings,
    ground: &Ground,
    request: &SandboxRequest,
    subject: Subject<'_>,
) -> Result<Settled, SettleError> {
    let name = request.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    if let Some(PolicyFault { field, reason }) = subject.policy.fault(request) {
        return Err(SettleError::Policy { field, reason });
    }
    let profile = &*narrowed(profile(settings, name)?, subject.policy);
    if matches!(subject.storage, Storage::Disk { .. }) && !ground.keeps("disk_bytes") {
        return Err(SettleError::Disk);
    }
    if ground.isolation == Isolation::None {
        return unjailed(settings, name, profile, request, subject.policy);
    }
    let network = network(name, profile, request)?;
    let mut wanted = limits(name, profile, &request.limits)?;
    // Its disk was made once, and profiles may have changed since.
    match subject.storage {
        Storage::New => {}
        Storage::Directories => wanted.disk_bytes = None,
        Storage::Disk { bytes } => wanted.disk_bytes = Some(bytes),
    }
    let limits = ground.kept(&wanted);
    let demanded = request.limits.or(subject.policy.limits);
    for ((limit, _, asked), (_, _, kept)) in demanded.named().into_iter().zip(limits.named()) {
        if asked.is_some() && kept.is_none() {
            return Err(SettleError::Unkept { name: limit });
        }
    }
    let mounts = mounts::settle(settings, ground, profile, request, subject)?;
    let mut missing = posture::require(missing(ground, &wanted), &settings.allow_degraded)?;
    if subject.storage == Storage::Directories {
        // Allowed when it began, or before there were disks: its files are where they are.
        missing.insert(Missing::DiskQuota);
    }
    let (listeners, roles) = listeners(settings, network)?;
    let sandbox = Sandbox {
        profile: name.to_owned(),
        debuggers: profile.debuggers,
        network,
        listeners,
        mounts,
        limits,
        degraded: posture::words(&missing),
    };
    let posture = sandbox.posture(ground.isolation);
    let egress = egress(settings, profile, subject.manifest);
    fits_gateway(&egress, &roles)?;
    Ok(Settled { sandbox, egress, posture })
}

/// What a spawn with a filtered network may reach, by settings that may have changed since it began; an error if it would not be started today.
pub(crate) fn renew(
    settings: &Settings,
    name: &str,
    manifest: Option<&AgentManifest>,
    roles: &[ListenerRole],
) -> Result<EgressPolicy, SettleError> {
    let profile = profile(settings, name)?;
    network(name, profile, &SandboxRequest { network: Some(NetworkMode::Filtered), ..SandboxRequest::default() })?;
    let policy = egress(settings, profile, manifest);
    fits_gateway(&policy, roles)?;
    Ok(policy)
}

/// Nothing may be reached, whatever the settings only observe.
pub(crate) fn closed(settings: &Settings) -> EgressPolicy {
    let limits = settings.egress.limits;
    EgressPolicy { mode: EgressMode::Enforce, allow: Vec::new(), deny: Vec::new(), limits }
}

fn profile<'a>(settings: &'a Settings, name: &str) -> Result<&'a Profile, SettleError> {
    settings.profiles.get(name).ok_or_else(|| SettleError::Profile {
        name: name.to_owned(),
        known: settings.profiles.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}

/// A profile with no more than an organisation allows.
fn narrowed<'a>(profile: &'a Profile, policy: &SandboxPolicy) -> Cow<'a, Profile> {
    if policy.is_empty() {
        return Cow::Borrowed(profile);
    }
    let network = policy.network.map_or(profile.network, |most| most.min(profile.network));
    Cow::Owned(Profile { network, limits: profile.limits.least(policy.limits), ..profile.clone() })
}

/// Without a jail there is nothing to settle, and nothing that could be asked of it.
fn unjailed(
    settings: &Settings,
    name: &str,
    profile: &Profile,
    request: &SandboxRequest,
    policy: &SandboxPolicy,
) -> Result<Settled, SettleError> {
    let asked = [
        (!policy.is_empty(), "settings.sandbox of the organisation"),
        (request.profile.is_some(), "sandbox.profile"),
        (request.network.is_some_and(|network| network != NetworkMode::Host), "sandbox.network"),
        (!request.mounts.is_empty(), "sandbox.mounts"),
        (!request.limits.is_empty(), "sandbox.limits"),
    ];
    if let Some((_, field)) = asked.into_iter().find(|(asked, _)| *asked) {
        return Err(SettleError::NoSandbox { field });
    }
    let sandbox = Sandbox {
        profile: name.to_owned(),
        debuggers: true,
        network: NetworkMode::Host,
        listeners: Vec::new(),
        mounts: Vec::new(),
        limits: Limits::default(),
        degraded: Vec::new(),
    };
    let posture = sandbox.posture(Isolation::None);
    Ok(Settled { sandbox, egress: egress(settings, profile, None), posture })
}

fn network(name: &str, profile: &Profile, request: &SandboxRequest) -> Result<NetworkMode, SettleError> {
    match request.network {
        Some(asked) if asked > profile.network => {
            let (asked, most) = (asked.as_str(), profile.network.as_str());
            Err(SettleError::Network { asked, profile: name.to_owned(), most })
        }
        Some(asked) => Ok(asked),
        None => Ok(profile.network),
    }
}

/// What is wanted: the request's limits where it has some, else the profile's.
fn limits(name: &str, profile: &Profile, asked: &Limits) -> Result<Limits, SettleError> {
    if let Some((limit, asked, most)) = asked.beyond(&profile.limits) {
        return Err(SettleError::Limit { name: limit, asked, profile: name.to_owned(), most });
    }
    Ok(asked.or(profile.limits))
}

/// What this session would have to do without: of what the host lacks, what it would have used.
pub(crate) fn missing(ground: &Ground, wanted: &Limits) -> BTreeSet<Missing> {
    let used = |missing: &Missing| match missing {
        Missing::DiskQuota => wanted.disk_bytes.is_some(),
        _ => true,
    };
    ground.missing.iter().copied().filter(used).collect()
}

/// The proxy first, then the providers by name; and what the gateway will be told of each, for which their keys have to be there.
fn listeners(settings: &Settings, network: NetworkMode) -> Result<(Vec<Listener>, Vec<ListenerRole>), SettleError> {
    if network != NetworkMode::Filtered {
        return Ok((Vec::new(), Vec::new()));
    }
    let models = settings
        .models
        .iter()
        .map(|(name, model)| model.role(name).map_err(|source| SettleError::Key { name: name.clone(), source }));
    let roles = std::iter::once(Ok(ListenerRole::Proxy)).chain(models).collect::<Result<Vec<_>, _>>()?;
    Ok((gateway::listeners_for(settings.models.keys()), roles))
}

fn egress(settings: &Settings, profile: &Profile, manifest: Option<&AgentManifest>) -> EgressPolicy {
    let own = manifest.iter().flat_map(|manifest| &manifest.egress);
    EgressPolicy {
        mode: settings.egress.mode,
        allow: profile.egress.iter().chain(own).chain(&settings.egress.allow).cloned().collect(),
        deny: settings.egress.deny.clone(),
        limits: settings.egress.limits,
    }
}

/// Of a message to the gateway, what is neither policy nor listeners.
const ENVELOPE_BYTES: usize = 1024;

/// Whether the gateway would take a policy: found out here, where whoever asks for the session is told.
fn fits_gateway(policy: &EgressPolicy, roles: &[ListenerRole]) -> Result<(), SettleError> {
    let rules = policy.allow.len() + policy.deny.len();
    let length = serde_json::to_vec(&(policy, roles)).map_or(usize::MAX, |message| message.len());
    let fits = rules <= RULES_MAX && length <= MESSAGE_BYTES_MAX - ENVELOPE_BYTES;
    if roles.is_empty() || fits { Ok(()) } else { Err(SettleError::Egress { rules }) }
}
