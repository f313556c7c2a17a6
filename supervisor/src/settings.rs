//! What the operator of this host allows: `/etc/agentapi/supervisor.toml`. Unknown keys are mistakes, and all mistakes are told at once.

mod model;
mod section;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use agentapi_shared::egress::{EgressLimits, EgressMode, EgressRule, LISTENERS_MAX, RULES_MAX};
use serde::Deserialize;

pub(crate) use self::model::{KeyError, Model};
pub(crate) use self::section::{Mistake, Section};
use crate::posture::Missing;
use crate::profiles::{self, Profile};

/// Where settings are if nobody says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/agentapi/supervisor.toml";
/// What holds where there is no file.
const SHIPPED: &str = include_str!("../../systemd/supervisor.toml");

/// Connections of a session at once: browsers and package managers open dozens.
const CONNECTIONS_MAX: u32 = 256;
/// New connections of a session in a minute: an install of a large dependency tree fits.
const CONNECTIONS_PER_MINUTE: u32 = 1200;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What may be missing.
    pub(crate) allow_degraded: BTreeSet<Missing>,
    /// Directories that sessions may ask for.
    pub(crate) mounts: Vec<AllowedMount>,
    /// Every profile by its name.
    pub(crate) profiles: BTreeMap<String, Profile>,
    /// For every session whose network is filtered.
    pub(crate) egress: EgressSettings,
    /// Model providers by name.
    pub(crate) models: BTreeMap<String, Model>,
}

/// A directory that sessions may ask for, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedMount {
    /// Every link followed.
    pub(crate) path: PathBuf,
    /// How.
    pub(crate) mode: MountMode,
}

/// How a directory may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountMode {
    /// Only for reading.
    Ro,
    /// For writing too.
    Rw,
}

/// `[egress]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EgressSettings {
    /// Whether denials are carried out.
    pub(crate) mode: EgressMode,
    /// Allowed to every session.
    pub(crate) allow: Vec<EgressRule>,
    /// Denied to every session.
    pub(crate) deny: Vec<EgressRule>,
    /// Caps of each session.
    pub(crate) limits: EgressLimits,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file.
    #[error("cannot read the settings {path}")]
    Read { path: String, source: std::io::Error },
    /// No TOML.
    #[error("the settings {path} are not TOML")]
    Syntax { path: String, source: toml::de::Error },
    /// TOML with mistakes in it.
    #[error("the settings {path} are refused:{}", lines(.mistakes))]
    Refused { path: String, mistakes: Vec<Mistake> },
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect()
}

impl Settings {
    /// The file that was named; else the usual one, if it is there; else what is shipped.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, SettingsError> {
        let usual = Path::new(DEFAULT_PATH);
        let path = match path {
            Some(path) => path,
            None if usual.exists() => usual,
            None => return Self::parse(SHIPPED, "as shipped"),
        };
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: shown.clone(), source })?;
        Self::parse(&text, &shown)
    }

    /// Reads a text; `path` is for errors.
    pub(crate) fn parse(text: &str, path: &str) -> Result<Self, SettingsError> {
        let table: toml::Table =
            toml::from_str(text).map_err(|source| SettingsError::Syntax { path: path.to_owned(), source })?;
        let mut mistakes = Vec::new();
        let settings = read(toml::Value::Table(table), &mut mistakes);
        if mistakes.is_empty() { Ok(settings) } else { Err(SettingsError::Refused { path: path.to_owned(), mistakes }) }
    }
}

fn read(file: toml::Value, mistakes: &mut Vec<Mistake>) -> Settings {
    let mut root = Section::new("", file, mistakes);
    let allow_degraded = root.list::<Missing>("allow_degraded").unwrap_or_default().into_iter().collect();
    let mounts = mounts(&mut root);
    let profiles = profiles::read_all(&mut root);
    let egress = root.raw("egress").unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    let egress = EgressSettings::read(root.inner("egress", egress));
    let mut models = BTreeMap::new();
    for (name, value) in root.named("models") {
        if !profiles::is_name(&name) {
            root.wrong(&format!("models.{name}"), profiles::NAME_RULE);
        }
        models.extend(Model::read(root.inner(&format!("models.{name}"), value)).map(|model| (name, model)));
    }
    // One listener is the proxy.
    if models.len() >= LISTENERS_MAX {
        root.wrong("models", format!("more than {}", LISTENERS_MAX - 1));
    }
    root.finish();
    Settings { allow_degraded, mounts, profiles, egress, models }
}

fn mounts(root: &mut Section<'_>) -> Vec<AllowedMount> {
    let list: Vec<toml::Value> = root.take("mounts").unwrap_or_default();
    let mut mounts = Vec::new();
    for (index, value) in list.into_iter().enumerate() {
        let mut section = root.inner(&format!("mounts[{index}]"), value);
        let path: Option<PathBuf> = section.required("path");
        let mode: Option<MountMode> = section.required("mode");
        let real = path.and_then(|path| match directory(&path) {
            Ok(real) => Some(real),
            Err(reason) => {
                section.wrong("path", reason);
                None
            }
        });
        section.finish();
        mounts.extend(real.zip(mode).map(|(path, mode)| AllowedMount { path, mode }));
    }
    mounts
}

/// A directory of this host other than its root, every link followed.
pub(crate) fn directory(path: &Path) -> Result<PathBuf, String> {
    if !path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err("not an absolute path without `..`".to_owned());
    }
    let real = path.canonicalize().map_err(|error| format!("`{}` cannot be used: {error}", path.display()))?;
    if !real.is_dir() {
        return Err(format!("`{}` is no directory", path.display()));
    }
    if real == Path::new("/") { Err("the whole host is too much".to_owned()) } else { Ok(real) }
}

impl EgressSettings {
    fn read(mut section: Section<'_>) -> Self {
        let mode = section.take("mode").unwrap_or(EgressMode::Enforce);
        let allow: Vec<EgressRule> = section.list("allow").unwrap_or_default();
        let deny: Vec<EgressRule> = section.list("deny").unwrap_or_default();
        for (key, rules) in [("allow", &allow), ("deny", &deny)] {
            // Profile and agent add theirs.
            if rules.len() > RULES_MAX / 2 {
                section.wrong(key, format!("more than {} rules", RULES_MAX / 2));
            }
        }
        let limits = section.raw("limits").map(|value| egress_limits(section.inner("limits", value)));
        section.finish();
        Self { mode, allow, deny, limits: limits.unwrap_or_else(default_limits) }
    }
}

fn default_limits() -> EgressLimits {
    EgressLimits {
        connections_max: CONNECTIONS_MAX,
        connections_per_minute: CONNECTIONS_PER_MINUTE,
        bytes_per_second: None,
        bytes_max: None,
    }
}

fn egress_limits(mut section: Section<'_>) -> EgressLimits {
    let mut limits = default_limits();
    limits.connections_max = section.take("connections_max").unwrap_or(limits.connections_max);
    limits.connections_per_minute = section.take("connections_per_minute").unwrap_or(limits.connections_per_minute);
    limits.bytes_per_second = section.take("bytes_per_second");
    limits.bytes_max = section.take("bytes_max");
    section.finish();
    limits
}
