//! Agent manifests: what is known of each agent CLI, as data. Embedded here, so that every process knows the same agents.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::egress::EgressRule;

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentManifest {
    /// Name in `POST /sessions`.
    pub name: String,
    /// For people.
    pub title: String,
    /// What is run, before the session's `args`. The first word is looked up in the host's agent path.
    pub command: Vec<String>,
    /// Arguments that make the program print its version; the first line of its output is taken.
    #[serde(default)]
    pub version_args: Vec<String>,
    /// Other programs that have to be there, with the command that installs each.
    #[serde(default)]
    pub requires: BTreeMap<String, String>,
    /// The command that installs the agent.
    pub install: String,
    /// Environment; the session's own values win.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Hosts that the agent itself needs, such as `api.example.com` or `*.example.com:8443`.
    #[serde(default, deserialize_with = "crate::egress::rules_from_text")]
    pub egress: Vec<EgressRule>,
    /// Directories of the host that it needs read-only, beside the system's; those that are not there are left out.
    #[serde(default)]
    pub read_only_paths: Vec<String>,
    /// Files written into the session's HOME before its first spawn. Ones that are there stay.
    #[serde(default)]
    pub files: Vec<AgentFile>,
}

/// A file in a session's HOME.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFile {
    /// Relative to HOME.
    pub path: String,
    /// Its text. `{{workspace}}` and `{{home}}` stand for the paths inside the jail, `{{port}}` for a TCP port that no other session of the
    /// host was given, `{{secret}}` for a random word of this session's own.
    pub content: String,
    /// Written only if one of these is missing in the session's environment: for words to people about what they have to give.
    #[serde(default)]
    pub unless_env: Vec<String>,
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("agent manifest {file}")]
pub struct ManifestError {
    file: &'static str,
    source: toml::de::Error,
}

const EMBEDDED: [(&str, &str); 4] = [
    ("claude.toml", include_str!("../agents/claude.toml")),
    ("ccr.toml", include_str!("../agents/ccr.toml")),
    ("codex.toml", include_str!("../agents/codex.toml")),
    ("droid.toml", include_str!("../agents/droid.toml")),
];

/// Every agent of this release, in the order in which people are shown them.
pub fn manifests() -> Result<Vec<AgentManifest>, ManifestError> {
    EMBEDDED
        .into_iter()
        .map(|(file, text)| toml::from_str(text).map_err(|source| ManifestError { file, source }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_sound() {
        let all = manifests().unwrap();
        for agent in &all {
            assert!(!agent.command.is_empty(), "{}", agent.name);
            assert!(!agent.egress.is_empty(), "{}", agent.name);
            assert!(agent.read_only_paths.iter().all(|path| path.starts_with('/')), "{}", agent.name);
            for file in &agent.files {
                let plain =
                    !file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".." || part.is_empty());
                assert!(plain, "{}: {}", agent.name, file.path);
            }
        }
        let mut names: Vec<_> = all.iter().map(|agent| agent.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["ccr", "claude", "codex", "droid"]);
    }
}
