//! The agents on this host: which are there, what to run, what to write into a session's HOME first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agentapi_shared::agent::{self, AgentManifest};
use agentapi_shared::api::CUSTOM_AGENT;
use agentapi_shared::link::AgentFacts;
use nix::unistd::{Gid, Uid, fchown};

use crate::config::Exposure;
use crate::plan::program_dirs;

/// Why an agent cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// Nobody knows it.
    #[error("agent `{0}` is unknown on this host")]
    Unknown(String),
    /// A program is missing.
    #[error("`{program}` is not installed on this host: {install}")]
    Missing { program: String, install: String },
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
    let own = manifest.command.first().map(|program| (program, &manifest.install));
    for (program, install) in own.into_iter().chain(&manifest.requires) {
        if find(program, exposure).is_none() {
            return Err(AgentError::Missing { program: program.clone(), install: install.clone() });
        }
    }
    Ok(AgentCommand { argv: manifest.command.iter().chain(args).cloned().collect(), manifest: Some(manifest) })
}

/// Where a program lies on the host, in the directories that sessions see.
fn find(program: &str, exposure: &Exposure) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    program_dirs(exposure).into_iter().map(|dir| dir.join(program)).find(executable)
}

/// What the control plane is told of the agents here.
pub(crate) fn facts(exposure: &Exposure) -> Vec<AgentFacts> {
    let all = agent::manifests().unwrap_or_default();
    let fact = |manifest: AgentManifest| {
        let programs = manifest.command.first().into_iter().chain(manifest.requires.keys());
        let installed = programs.clone().all(|program| find(program, exposure).is_some());
        AgentFacts { name: manifest.name, installed, version: None, install: Some(manifest.install) }
    };
    all.into_iter().map(fact).collect()
}

/// Writes the manifest's files into a HOME that does not have them yet. They belong to whoever owns HOME.
pub(crate) fn write_files(
    manifest: &AgentManifest,
    home: &Path,
    home_inside: &str,
    workspace_inside: &str,
) -> io::Result<()> {
    let owner = fs::metadata(home)?;
    let (uid, gid) = (Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())));
    for file in &manifest.files {
        let path = home.join(&file.path);
        let mut parents: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| *dir != home).collect();
        parents.reverse();
        for dir in parents {
            if !dir.exists() {
                fs::create_dir(dir)?;
                fchown(File::open(dir)?, uid, gid)?;
            }
        }
        let text = file.content.replace("{{workspace}}", workspace_inside).replace("{{home}}", home_inside);
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
