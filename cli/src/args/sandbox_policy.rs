//! What an organisation allows of sandboxes, on the command line of `agentapi org update`.

use agentapi_shared::api::{MountPolicy, NetworkMode, SandboxPolicy};
use clap::Args;

use super::session::{bytes, cpu_percent, network};
use crate::output;

/// Each says the most; `any` takes the limit away, and what is left out stays.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sandboxes of what is started from now on")]
pub(crate) struct PolicyArgs {
    /// A profile that may be used, of those alone that are named; repeatable; any: all may
    #[arg(long = "sandbox-profile", value_name = "NAME")]
    pub(crate) profiles: Vec<String>,
    /// The most open network
    #[arg(long = "sandbox-network", value_name = "off|filtered|any", value_parser = most_open)]
    pub(crate) network: Option<Most<NetworkMode>>,
    /// Directories of hosts
    #[arg(long = "sandbox-mounts", value_name = "none|read-only|any", value_parser = mounts)]
    pub(crate) mounts: Option<Most<MountPolicy>>,
    /// Memory and swap, such as 4G
    #[arg(long = "sandbox-memory", value_name = "SIZE|any", value_parser = memory)]
    pub(crate) memory: Option<Most<u64>>,
    /// Processors, such as 2
    #[arg(long = "sandbox-cpus", value_name = "NUMBER|any", value_parser = cpus)]
    pub(crate) cpus: Option<Most<u32>>,
    /// Processes and threads
    #[arg(long = "sandbox-pids", value_name = "NUMBER|any", value_parser = pids)]
    pub(crate) pids: Option<Most<u32>>,
    /// Private workspace and HOME together, such as 10G
    #[arg(long = "sandbox-disk", value_name = "SIZE|any", value_parser = memory)]
    pub(crate) disk: Option<Most<u64>>,
}

/// A limit, or the word that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most<T>(pub(crate) Option<T>);

impl PolicyArgs {
    /// A policy with these changes; none if it limits nothing.
    pub(crate) fn applied(&self, before: Option<&SandboxPolicy>) -> Option<SandboxPolicy> {
        fn put<T: Copy>(field: &mut Option<T>, change: Option<Most<T>>) {
            if let Some(Most(value)) = change {
                *field = value;
            }
        }
        let mut policy = before.cloned().unwrap_or_default();
        match self.profiles.as_slice() {
            [] => {}
            [any] if any == "any" => policy.profiles = None,
            profiles => policy.profiles = Some(profiles.to_vec()),
        }
        put(&mut policy.network, self.network);
        put(&mut policy.mounts, self.mounts);
        put(&mut policy.limits.memory_bytes, self.memory);
        put(&mut policy.limits.cpu_percent, self.cpus);
        put(&mut policy.limits.pids, self.pids);
        put(&mut policy.limits.disk_bytes, self.disk);
        (!policy.is_empty()).then_some(policy)
    }
}

/// A policy in one line, for people.
pub(crate) fn described(policy: Option<&SandboxPolicy>) -> String {
    let Some(policy) = policy else { return "as the hosts allow".to_owned() };
    let profiles = policy.profiles.as_ref().map(|profiles| format!("profiles {}", profiles.join(", ")));
    let network = policy.network.map(|network| format!("network {}", network.as_str()));
    let mounts = policy.mounts.map(|mounts| match mounts {
        MountPolicy::None => "no directories".to_owned(),
        MountPolicy::ReadOnly => "directories read-only".to_owned(),
        MountPolicy::Writable => "directories".to_owned(),
    });
    let limits = output::limits(&policy.limits);
    let parts: Vec<String> = profiles.into_iter().chain(network).chain(mounts).chain(limits).collect();
    format!("at most {}", parts.join("; "))
}

fn most<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Most<T>, String> {
    if text == "any" { Ok(Most(None)) } else { read(text).map(|value| Most(Some(value))) }
}

fn most_open(text: &str) -> Result<Most<NetworkMode>, String> {
    most(text, network)
}

fn mounts(text: &str) -> Result<Most<MountPolicy>, String> {
    most(text, |text| match text {
        "none" => Ok(MountPolicy::None),
        "read-only" => Ok(MountPolicy::ReadOnly),
        _ => Err("expected none, read-only or any".to_owned()),
    })
}

fn memory(text: &str) -> Result<Most<u64>, String> {
    most(text, bytes)
}

fn cpus(text: &str) -> Result<Most<u32>, String> {
    most(text, cpu_percent)
}

fn pids(text: &str) -> Result<Most<u32>, String> {
    most(text, |text| text.parse().map_err(|_| "expected a number, or any".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays_and_any_removes() {
        let before = SandboxPolicy { network: Some(NetworkMode::Off), ..SandboxPolicy::default() };
        assert_eq!(PolicyArgs::default().applied(Some(&before)), Some(before.clone()));
        assert_eq!(PolicyArgs::default().applied(None), None);
        let more = PolicyArgs {
            memory: Some(memory("1G").unwrap()),
            profiles: vec!["strict".into()],
            ..PolicyArgs::default()
        };
        let made = more.applied(Some(&before)).unwrap();
        assert_eq!((made.network, made.limits.memory_bytes), (before.network, Some(1 << 30)));
        assert_eq!(described(Some(&made)), "at most profiles strict; network off; memory 1024 MiB");
        let none = PolicyArgs {
            network: Some(most_open("any").unwrap()),
            memory: Some(memory("any").unwrap()),
            profiles: vec!["any".into()],
            ..PolicyArgs::default()
        };
        assert_eq!(none.applied(Some(&made)), None);
        for nonsense in [most_open("open").is_err(), mounts("rw").is_err(), pids("many").is_err()] {
            assert!(nonsense);
        }
    }
}
