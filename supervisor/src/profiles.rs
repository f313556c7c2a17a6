//! Profiles: named sets of what a session may do and use, as data. `dev` and `strict` are embedded; the operator changes them or adds others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agentapi_shared::api::{Limits, NetworkMode, PROFILE_CHARS_MAX};
use agentapi_shared::egress::{EgressRule, RULES_MAX};

use crate::settings::Section;

/// What a profile of the operator's own starts from unless it says otherwise.
const EXTENDS_DEFAULT: &str = "strict";
const EMBEDDED: [(&str, &str); 2] =
    [("dev", include_str!("../profiles/dev.toml")), ("strict", include_str!("../profiles/strict.toml"))];

/// What names of profiles and models are made of.
pub(crate) const NAME_RULE: &str = "a name is 1 to 64 letters, digits, hyphens and underscores";
const _: () = assert!(PROFILE_CHARS_MAX == 64);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Whether debuggers work inside.
    pub(crate) debuggers: bool,
    /// The most open network that a session may have.
    pub(crate) network: NetworkMode,
    /// The most that a session may use; absent: no limit.
    pub(crate) limits: Limits,
    /// Directories of the host that its sessions see, beside the system's.
    pub(crate) read_only_paths: Vec<PathBuf>,
    /// What its sessions may reach, beside what their agent needs.
    pub(crate) egress: Vec<EgressRule>,
}

impl Profile {
    /// What the embedded ones start from.
    fn closed() -> Self {
        Self {
            debuggers: false,
            network: NetworkMode::Off,
            limits: Limits::default(),
            read_only_paths: Vec::new(),
            egress: Vec::new(),
        }
    }

    /// This one with what a section says otherwise.
    fn changed_by(&self, mut section: Section<'_>) -> Self {
        let debuggers = section.take("debuggers").unwrap_or(self.debuggers);
        let network = section.take("network").unwrap_or(self.network);
        let limits: Limits = section.take("limits").unwrap_or_default();
        for (name, least, value) in limits.named() {
            if value.is_some_and(|value| value < least) {
                section.wrong(&format!("limits.{name}"), format!("less than {least}"));
            }
        }
        let paths: Option<Vec<PathBuf>> = section.take("read_only_paths");
        for (index, path) in paths.iter().flatten().enumerate() {
            if let Err(reason) = crate::settings::directory(path) {
                section.wrong(&format!("read_only_paths[{index}]"), reason);
            }
        }
        let egress: Option<Vec<EgressRule>> = section.list("egress");
        if egress.as_ref().is_some_and(|rules| rules.len() > RULES_MAX / 4) {
            section.wrong("egress", format!("more than {} rules", RULES_MAX / 4));
        }
        section.finish();
        Self {
            debuggers,
            network,
            limits: limits.or(self.limits),
            read_only_paths: paths.unwrap_or_else(|| self.read_only_paths.clone()),
            egress: egress.unwrap_or_else(|| self.egress.clone()),
        }
    }
}

/// Whether a text can name a profile.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=PROFILE_CHARS_MAX).contains(&text.len()) && text.chars().all(plain)
}

/// The embedded profiles, as `[profiles.NAME]` of the root changes them, and those it adds.
pub(crate) fn read_all(root: &mut Section<'_>) -> BTreeMap<String, Profile> {
    let mut all = BTreeMap::new();
    for (name, text) in EMBEDDED {
        // A mistake in an embedded file is told like one of the operator's; a test reads both.
        match toml::from_str::<toml::Table>(text) {
            Ok(table) => {
                let section = root.inner(&format!("profiles.{name} as shipped"), toml::Value::Table(table));
                all.insert(name.to_owned(), Profile::closed().changed_by(section));
            }
            Err(error) => root.wrong(&format!("profiles.{name} as shipped"), error),
        }
    }
    let embedded = all.clone();
    for (name, value) in root.named("profiles") {
        let at = format!("profiles.{name}");
        if !is_name(&name) {
            root.wrong(&at, NAME_RULE);
        }
        let mut section = root.inner(&at, value);
        let base = match (embedded.get(&name), section.take::<String>("extends")) {
            (Some(own), None) => Some(own),
            (Some(_), Some(_)) => {
                section.wrong("extends", "a profile that is shipped starts from itself");
                None
            }
            (None, extends) => {
                let extends = extends.unwrap_or_else(|| EXTENDS_DEFAULT.to_owned());
                let base = embedded.get(&extends);
                if base.is_none() {
                    section.wrong("extends", format!("`{extends}` is none of dev and strict"));
                }
                base
            }
        };
        let profile = base.unwrap_or(&Profile::closed()).changed_by(section);
        all.insert(name, profile);
    }
    all
}
