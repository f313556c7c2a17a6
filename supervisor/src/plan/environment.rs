//! What an agent finds in its environment, and where its programs are looked up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::PlanInput;
use super::root::{RUNTIME_DIR, SYSTEM_DIRS};
use crate::config::Exposure;
use crate::host::Isolation;

/// The whole environment: nothing of the daemon's own. Later ones win: ours, the gateway's, the agent's, the session's.
pub(super) fn environment(input: &PlanInput<'_>, home: &str) -> Vec<(String, String)> {
    let mut env: BTreeMap<&str, String> = BTreeMap::from([
        ("HOME", home.to_owned()),
        ("USER", "agent".to_owned()),
        ("LOGNAME", "agent".to_owned()),
        ("SHELL", "/bin/bash".to_owned()),
        ("PATH", search_path(input.exposure, home)),
        ("TERM", "xterm-256color".to_owned()),
        ("COLORTERM", "truecolor".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ]);
    if input.isolation != Isolation::None {
        env.insert("XDG_RUNTIME_DIR", RUNTIME_DIR.to_owned());
    }
    for (name, value) in input.egress_env {
        env.insert(name, value.clone());
    }
    for (name, value) in input.agent_env.iter().chain(input.session_env) {
        env.insert(name, value.clone());
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where programs are looked up: the operator's directories, the session's own, the system's.
fn search_path(exposure: &Exposure, home: &str) -> String {
    let dirs = agent_dirs(exposure).into_iter().map(|dir| dir.display().to_string());
    dirs.chain([format!("{home}/.local/bin")]).chain(SYSTEM_PATH.map(str::to_owned)).collect::<Vec<_>>().join(":")
}

const SYSTEM_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

fn agent_dirs(exposure: &Exposure) -> Vec<PathBuf> {
    exposure.agent_paths.iter().filter(|dir| dir.is_absolute()).cloned().collect()
}

/// Whether sessions see the file at this path, to which every link has been followed.
pub(crate) fn visible(path: &Path, exposure: &Exposure) -> bool {
    let system = SYSTEM_DIRS.iter().any(|dir| path.starts_with(dir));
    system || exposure.read_only_paths.iter().any(|dir| dir.canonicalize().is_ok_and(|dir| path.starts_with(dir)))
}

/// The directories of the host in which a session's programs are found.
pub(crate) fn program_dirs(exposure: &Exposure) -> Vec<PathBuf> {
    agent_dirs(exposure).into_iter().chain(SYSTEM_PATH.map(PathBuf::from)).collect()
}
