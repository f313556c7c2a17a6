//! What an organisation allows of its sessions' sandboxes. It only ever narrows what a host's profiles give, and a session narrows that again.

use serde::{Deserialize, Serialize};

use super::{DEFAULT_PROFILE, Limits, NetworkMode, SandboxRequest};

/// Profiles that a policy names: more than any host has.
pub const POLICY_PROFILES_MAX: usize = 64;

/// Part of an organisation's settings; what is absent narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SandboxPolicy {
    /// Only these profiles of the hosts. A session that names none has `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<String>>,
    /// The most open network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// Directories of the host that a session may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts: Option<MountPolicy>,
    /// The most that a session may use, whatever its profile gives.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// How a session may have directories of the host. The order is from closed to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MountPolicy {
    /// Not at all.
    None,
    /// To read.
    ReadOnly,
    /// To write as well, where the host allows that.
    Writable,
}

/// What a policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// The field of the request, such as `sandbox.network`.
    pub field: String,
    /// What is allowed, as a sentence about the organisation.
    pub reason: String,
}

impl SandboxPolicy {
    /// A stored policy. One that cannot be read was written by a newer release, or by hand: it allows nothing, since nobody knows what it would.
    #[must_use]
    pub fn from_stored(stored: serde_json::Value) -> Self {
        // A list would be read as the fields in their order.
        let objects = stored.is_object() && stored.get("limits").is_none_or(serde_json::Value::is_object);
        let read = if objects { serde_json::from_value(stored).ok() } else { None };
        read.unwrap_or_else(|| Self { profiles: Some(Vec::new()), ..Self::default() })
    }

    /// Whether it narrows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first thing in a request that is not allowed.
    #[must_use]
    pub fn fault(&self, request: &SandboxRequest) -> Option<PolicyFault> {
        self.profile_fault(request)
            .or_else(|| self.network_fault(request))
            .or_else(|| self.mount_fault(request))
            .or_else(|| self.limit_fault(request))
    }

    fn profile_fault(&self, request: &SandboxRequest) -> Option<PolicyFault> {
        let (profiles, name) = (self.profiles.as_ref()?, request.profile.as_deref().unwrap_or(DEFAULT_PROFILE));
        let allowed = match profiles.as_slice() {
            [] => "allows no profile at all".to_owned(),
            some => format!("allows {}", some.join(", ")),
        };
        let reason = || format!("your organisation does not allow the profile `{name}`; it {allowed}");
        (!profiles.iter().any(|one| one == name)).then(|| fault("sandbox.profile", reason()))
    }

    fn network_fault(&self, request: &SandboxRequest) -> Option<PolicyFault> {
        let (most, asked) = (self.network?, request.network?);
        let reason = || format!("your organisation allows at most `{}`", most.as_str());
        (asked > most).then(|| fault("sandbox.network", reason()))
    }

    fn mount_fault(&self, request: &SandboxRequest) -> Option<PolicyFault> {
        let most = self.mounts?;
        let needed = |writable| if writable { MountPolicy::Writable } else { MountPolicy::ReadOnly };
        let (index, mount) = request.mounts.iter().enumerate().find(|(_, mount)| needed(mount.writable) > most)?;
        Some(match most {
            MountPolicy::None => fault(
                &format!("sandbox.mounts[{index}]"),
                "your organisation allows no directories of hosts".to_owned(),
            ),
            _ => fault(
                &format!("sandbox.mounts[{index}].writable"),
                format!("your organisation allows `{}` to be read only", mount.source),
            ),
        })
    }

    fn limit_fault(&self, request: &SandboxRequest) -> Option<PolicyFault> {
        let (name, _, most) = request.limits.beyond(&self.limits)?;
        Some(fault(&format!("sandbox.limits.{name}"), format!("your organisation allows at most {most}")))
    }
}

fn fault(field: &str, reason: String) -> PolicyFault {
    PolicyFault { field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::MountRequest;
    use super::*;

    fn field(policy: &SandboxPolicy, request: &SandboxRequest) -> Option<String> {
        policy.fault(request).map(|fault| fault.field)
    }

    #[test]
    fn each_part_narrows_its_field_alone() {
        let mount = |writable| MountRequest { source: "/srv".to_owned(), target: None, writable };
        let asked = SandboxRequest {
            profile: Some("strict".to_owned()),
            network: Some(NetworkMode::Filtered),
            mounts: vec![mount(false), mount(true)],
            limits: Limits { pids: Some(100), ..Limits::default() },
        };
        let (none, nothing) = (SandboxPolicy::default(), SandboxRequest::default());
        assert_eq!(none.fault(&asked), None);
        let profiles = |names: &[&str]| SandboxPolicy {
            profiles: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..SandboxPolicy::default()
        };
        let network = |network| SandboxPolicy { network: Some(network), ..SandboxPolicy::default() };
        let mounts = |mounts| SandboxPolicy { mounts: Some(mounts), ..SandboxPolicy::default() };
        let pids = |pids| SandboxPolicy {
            limits: Limits { pids: Some(pids), ..Limits::default() },
            ..SandboxPolicy::default()
        };
        let cases = [
            (profiles(&["dev"]), Some("sandbox.profile")),
            (profiles(&["dev", "strict"]), None),
            (network(NetworkMode::Off), Some("sandbox.network")),
            (network(NetworkMode::Filtered), None),
            (mounts(MountPolicy::None), Some("sandbox.mounts[0]")),
            (mounts(MountPolicy::ReadOnly), Some("sandbox.mounts[1].writable")),
            (mounts(MountPolicy::Writable), None),
            (pids(99), Some("sandbox.limits.pids")),
            (pids(100), None),
        ];
        for (policy, expected) in cases {
            assert_eq!(field(&policy, &asked).as_deref(), expected, "{policy:?}");
        }
        // What is not asked for is the profile's, which hosts narrow; but a session without a profile has one.
        assert_eq!(field(&profiles(&["strict"]), &nothing).as_deref(), Some("sandbox.profile"));
        for policy in [network(NetworkMode::Off), mounts(MountPolicy::None), pids(8)] {
            assert_eq!(policy.fault(&nothing), None);
        }
    }

    #[test]
    fn what_cannot_be_read_allows_nothing() {
        for stored in
            [serde_json::json!({ "netwrok": "off" }), serde_json::json!([]), serde_json::json!({ "network": 1 })]
        {
            let policy = SandboxPolicy::from_stored(stored);
            assert!(policy.fault(&SandboxRequest::default()).unwrap().reason.contains("no profile at all"));
        }
        assert!(SandboxPolicy::from_stored(serde_json::json!({})).is_empty());
    }
}
