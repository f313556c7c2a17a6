//! The agents on this host: which are there, what to run, what to write into a session's HOME first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agentapi_shared::agent::{self, AgentFile, AgentManifest};
use agentapi_shared::api::CUSTOM_AGENT;
use agentapi_shared::link::AgentFacts;
use nix::unistd::{Gid, Uid, fchown};
use rand::RngExt;

use crate::config::Exposure;
use crate::plan::{program_dirs, visible};
use crate::versions::Versions;

/// Ports given to sessions: as many, from this one on. They end below the range that the kernel gives to outgoing connections.
const PORT_FIRST: u16 = 16_384;
const PORTS: u16 = 16_384;
/// A port that somebody else has is followed by this many others before the last is given anyway.
const PORT_ATTEMPTS: u16 = 16;
const _: () = assert!(PORT_FIRST as u32 + PORTS as u32 <= 32_768);

/// Why an agent cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// Nobody knows it.
    #[error("agent `{0}` is unknown on this host")]
    Unknown(String),
    /// A program is missing.
    #[error("`{program}` is not installed on this host. Install it there with: {install}")]
    Missing { program: String, install: String },
    /// A program is there, and no session sees it.
    #[error(
        "`{program}` lies at {path} on this host, where sessions do not see it: start the host with --read-only-path for the directory of its installation"
    )]
    Hidden { program: String, path: String },
    /// The embedded manifests cannot be read.
    #[error(transparent)]
    Manifest(#[from] agent::ManifestError),
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct AgentCommand {
    pub(crate) argv: Vec<String>,
    pub(crate) manifest: Option<AgentManifest>,
}

impl AgentCommand {
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.manifest.as_ref().map(|manifest| manifest.env.clone()).unwrap_or_default()
    }
}

/// What `agent` runs with `args`, if it is there.
pub(crate) fn command(
    agent: &str,
    command: &[String],
    args: &[String],
    exposure: &Exposure,
) -> Result<AgentCommand, AgentError> {
    if agent == CUSTOM_AGENT {
        return Ok(AgentCommand { argv: command.to_vec(), manifest: None });
    }
    let manifest = agent::manifests()?
        .into_iter()
        .find(|known| known.name == agent)
        .ok_or_else(|| AgentError::Unknown(agent.to_owned()))?;
    for (program, install) in programs(&manifest) {
        match find(program, exposure) {
            Found::Seen(_) => {}
            Found::Hidden(path) => {
                return Err(AgentError::Hidden { program: program.clone(), path: path.display().to_string() });
            }
            Found::Nowhere => return Err(AgentError::Missing { program: program.clone(), install: install.clone() }),
        }
    }
    Ok(AgentCommand { argv: manifest.command.iter().chain(args).cloned().collect(), manifest: Some(manifest) })
}

/// What is known of an agent; nothing, if it is a command of the user's.
pub(crate) fn manifest(agent: &str) -> Option<AgentManifest> {
    agent::manifests().ok()?.into_iter().find(|known| known.name == agent)
}

/// The programs that an agent needs, its own first, with the command that installs each.
fn programs(manifest: &AgentManifest) -> impl Iterator<Item = (&String, &String)> {
    manifest.command.first().map(|program| (program, &manifest.install)).into_iter().chain(&manifest.requires)
}

/// Where a program was found.
enum Found {
    /// The file itself, every link followed, where sessions see it.
    Seen(PathBuf),
    /// The same, where they do not.
    Hidden(PathBuf),
    Nowhere,
}

/// Looks for a program the way a session does, along its PATH.
fn find(program: &str, exposure: &Exposure) -> Found {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let found = program_dirs(exposure).into_iter().filter_map(|dir| dir.join(program).canonicalize().ok());
    let mut hidden = None;
    for path in found.filter(executable) {
        if visible(&path, exposure) {
            return Found::Seen(path);
        }
        hidden.get_or_insert(path);
    }
    hidden.map_or(Found::Nowhere, Found::Hidden)
}

/// The file of an agent whose programs are all there.
pub(crate) fn installed(manifest: &AgentManifest, exposure: &Exposure) -> Option<PathBuf> {
    let mut all = programs(manifest).map(|(program, _)| match find(program, exposure) {
        Found::Seen(path) => Some(path),
        Found::Hidden(_) | Found::Nowhere => None,
    });
    let own = all.next().flatten()?;
    all.all(|other| other.is_some()).then_some(own)
}

/// What the control plane is told of the agents here.
pub(crate) fn facts(exposure: &Exposure, versions: &Versions) -> Vec<AgentFacts> {
    let all = agent::manifests().unwrap_or_default();
    let fact = |manifest: AgentManifest| {
        let own = installed(&manifest, exposure);
        let version = own.as_ref().and_then(|path| versions.known(path).flatten());
        AgentFacts { name: manifest.name, installed: own.is_some(), version, install: Some(manifest.install) }
    };
    all.into_iter().map(fact).collect()
}

/// What stands for the words in braces in a manifest's files.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    pub(crate) home: &'a str,
    pub(crate) workspace: &'a str,
    pub(crate) slot: u32,
    pub(crate) env: &'a BTreeMap<String, String>,
}

impl Inside<'_> {
    fn fill(&self, text: &str) -> String {
        let text = text.replace("{{workspace}}", self.workspace).replace("{{home}}", self.home);
        let secret = || format!("{:032x}", rand::rng().random::<u128>());
        let text = if text.contains("{{secret}}") { text.replace("{{secret}}", &secret()) } else { text };
        if text.contains("{{port}}") { text.replace("{{port}}", &self.port().to_string()) } else { text }
    }

    /// The port of this session's slot. While sessions share the host's network others may have it; then one of the next.
    fn port(&self) -> u16 {
        let nth = |attempt: u16| {
            let offset = (self.slot + u32::from(attempt)) % u32::from(PORTS);
            PORT_FIRST + u16::try_from(offset).unwrap_or(0)
        };
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        (0..PORT_ATTEMPTS).map(nth).find(free).unwrap_or(nth(PORT_ATTEMPTS))
    }
}

/// Writes the manifest's files into a HOME that does not have them yet. They belong to whoever owns HOME.
pub(crate) fn write_files(manifest: &AgentManifest, home: &Path, inside: &Inside<'_>) -> io::Result<()> {
    let owner = fs::metadata(home)?;
    let (uid, gid) = (Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())));
    let wanted = |file: &&AgentFile| {
        file.unless_env.is_empty() || file.unless_env.iter().any(|name| !inside.env.contains_key(name))
    };
    for file in manifest.files.iter().filter(wanted) {
        let path = home.join(&file.path);
        let mut parents: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| *dir != home).collect();
        parents.reverse();
        for dir in parents {
            if !dir.exists() {
                fs::create_dir(dir)?;
                fchown(File::open(dir)?, uid, gid)?;
            }
        }
        let text = inside.fill(&file.content);
        // Only ever called before the first spawn: nobody but us can have put a link there.
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut created) => {
                created.write_all(text.as_bytes())?;
                fchown(&created, uid, gid)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::SessionId;
    use std::os::unix::fs::symlink;

    fn manifest(name: &str) -> AgentManifest {
        agent::manifests().unwrap().into_iter().find(|manifest| manifest.name == name).unwrap()
    }

    fn temporary() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("agentapi-agents-{}", SessionId::generate()));
        fs::create_dir(&dir).unwrap();
        dir.canonicalize().unwrap()
    }

    #[test]
    fn a_router_gets_a_port_and_a_key_of_its_own_and_a_word_about_what_it_lacks() {
        let given = ["CCR_API_BASE_URL", "CCR_API_KEY", "CCR_MODEL"].map(|name| (name.to_owned(), "x".to_owned()));
        let (none, all) = (BTreeMap::new(), BTreeMap::from(given));
        let mut routers = Vec::new();
        for (slot, env) in [(3, &none), (4, &all)] {
            let home = temporary();
            let inside = Inside { home: "/home/agent", workspace: "/workspace", slot, env };
            write_files(&manifest("ccr"), &home, &inside).unwrap();
            let config = fs::read(home.join(".claude-code-router/config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
            assert_eq!(config["HOST"], "127.0.0.1");
            // Without a provider it would listen on every address, whatever HOST says.
            assert_eq!(config["Providers"].as_array().map(Vec::len), Some(1));
            assert_eq!(home.join(".claude/settings.json").exists(), env.is_empty());
            let claude = fs::read_to_string(home.join(".claude.json")).unwrap();
            assert!(claude.contains("\"/workspace\":{\"hasTrustDialogAccepted\":true}"), "{claude}");
            routers.push((config["PORT"].as_u64().unwrap(), config["APIKEY"].as_str().unwrap().to_owned()));
            fs::remove_dir_all(home).unwrap();
        }
        assert!(routers[0].0 != routers[1].0 && routers.iter().all(|(port, _)| (16_384..32_768).contains(port)));
        assert!(routers[0].1 != routers[1].1 && routers.iter().all(|(_, key)| key.len() == 32));
    }

    #[test]
    fn an_agent_is_there_if_sessions_can_see_all_of_it() {
        let dir = temporary();
        let (bin, elsewhere) = (dir.join("bin"), dir.join("elsewhere"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let exposure =
            Exposure { agent_paths: vec![bin.clone()], read_only_paths: vec![bin.clone()], ..Exposure::default() };
        let droid = manifest("droid");
        let program = elsewhere.join("droid");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(&program, bin.join("droid")).unwrap();
        assert!(matches!(command("droid", &[], &[], &exposure), Err(AgentError::Hidden { .. })));
        assert_eq!(installed(&droid, &exposure), None);
        let exposure = Exposure { read_only_paths: vec![dir.clone()], ..exposure };
        assert_eq!(installed(&droid, &exposure), Some(program));
        let args = ["exec".to_owned()];
        assert_eq!(command("droid", &[], &args, &exposure).unwrap().argv, ["droid", "exec"]);
        fs::remove_dir_all(dir).unwrap();
    }
}
