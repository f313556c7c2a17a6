//! What of this host no session may be given, whoever allows it: where sessions and their secrets are kept, and the keys to the control plane and
//! to the providers of models. A directory above would hand it out, one below is a part of it.

use std::path::{Path, PathBuf};

/// The paths, every link followed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Private(Vec<PathBuf>);

impl Private {
    /// Nothing.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Of a state directory, the file with the credential for the control plane, and files with keys.
    pub(crate) fn new<'a>(
        state_dir: &Path,
        credential_file: Option<&Path>,
        key_files: impl Iterator<Item = &'a Path>,
    ) -> Self {
        // Beside the credential its maker keeps others.
        let credentials = credential_file.and_then(|file| std::path::absolute(file).ok()?.parent().map(Path::to_owned));
        let named = std::iter::once(state_dir.to_owned()).chain(credentials).chain(key_files.map(Path::to_owned));
        // By both names: a link can be led elsewhere later.
        Self(named.flat_map(|path| [path.canonicalize().ok(), std::path::absolute(&path).ok()]).flatten().collect())
    }

    /// Why the data cannot lie where every session looks, in a path of the system; none: it does not.
    pub(crate) fn reason_in_system(&self, seen: &Path) -> Option<String> {
        let private = self.0.iter().find(|private| private.starts_with(seen))?;
        Some(format!(
            "`{}`, where AgentAPI keeps its data and keys, lies in `{}`, which every session sees: keep them elsewhere, such as below /var/lib and \
             /etc/agentapi (--state-dir, --credential-file, key_file of models)",
            private.display(),
            seen.display()
        ))
    }

    /// Why a directory, with every link followed, cannot be given; none: it can.
    pub(crate) fn reason(&self, dir: &Path) -> Option<String> {
        let (shown, other) = (dir.display(), "name a directory that neither contains it nor lies in it");
        self.0.iter().find_map(|private| {
            let private_shown = private.display();
            if private == dir {
                Some(format!("`{shown}` is where AgentAPI keeps its data and keys, which no session may see: {other}"))
            } else if private.starts_with(dir) {
                Some(format!(
                    "`{shown}` contains `{private_shown}`, where AgentAPI keeps its data and keys, which no session may see: {other}, or start \
                     AgentAPI with its data elsewhere (--data-dir, --state-dir)"
                ))
            } else if dir.starts_with(private) {
                Some(format!(
                    "`{shown}` lies in `{private_shown}`, where AgentAPI keeps its data and keys, which no session may see: {other}"
                ))
            } else {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn data_in_a_directory_of_the_system_is_refused() {
        let of = |state: &str, key: &str| Private::new(Path::new(state), None, std::iter::once(Path::new(key)));
        let seen = Path::new("/opt");
        assert!(
            of("/opt/agentapi/state", "/root/key").reason_in_system(seen).unwrap().contains("which every session sees")
        );
        assert!(of("/var/lib/agentapi", "/opt/agentapi/key").reason_in_system(seen).is_some());
        assert_eq!(of("/var/lib/agentapi", "/optional/key").reason_in_system(seen), None);
    }

    #[test]
    fn what_is_above_at_or_below_the_data_is_refused_and_says_why() {
        let base = std::env::temp_dir().join(format!("agentapi-private-{}", agentapi_shared::SessionId::generate()));
        for dir in ["home/data/state/sessions", "home/project", "keys", "real-keys"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        std::fs::write(base.join("real-keys/model"), "x").unwrap();
        let base = base.canonicalize().unwrap();
        symlink(base.join("real-keys/model"), base.join("keys/model")).unwrap();
        let (state, credential, key) =
            (base.join("home/data/state"), base.join("home/data/host.json"), base.join("keys/model"));
        let private = Private::new(&state, Some(&credential), std::iter::once(key.as_path()));
        for (below, word) in [
            ("", "contains"),
            ("home", "contains"),
            ("home/data", "contains"),
            ("home/data/state", "is where"),
            ("home/data/state/sessions", "lies in"),
            ("home/data/controlplane", "lies in"),
            ("keys", "contains"),
            ("real-keys", "contains"),
        ] {
            let reason = private.reason(&base.join(below)).unwrap_or_default();
            assert!(reason.contains(word) && reason.contains("name a directory"), "{below}: {reason}");
        }
        for below in ["home/project", "home/data2", "elsewhere"] {
            assert_eq!(private.reason(&base.join(below)), None);
        }
        std::fs::remove_dir_all(base).unwrap();
    }
}
