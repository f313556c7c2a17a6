//! Model providers whose key sessions use without having it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use agentapi_shared::egress::{ListenerRole, SecretText};

use super::section::Section;

/// Bytes of a key file: the longest keys in use have a few thousand.
const KEY_BYTES_MAX: u64 = 16 * 1024;

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// Such as `https://api.anthropic.com`.
    upstream: String,
    /// Header that carries the key.
    header: String,
    /// Put before the key, such as `Bearer `.
    prefix: String,
    /// Holds the key; read at each start of a session, so that a new key needs no restart.
    key_file: PathBuf,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The file.
    #[error("{path} cannot be read")]
    Read { path: String, source: std::io::Error },
    /// Others could read it.
    #[error("{path} is readable or writable by others (mode {mode:o}): chmod 600 it")]
    Open { path: String, mode: u32 },
    /// Nothing in it, or too much, or not text of one line.
    #[error("{0} does not hold one line with a key")]
    Content(String),
}

impl Model {
    /// Reads one from its section.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let upstream: Option<String> = section.required("upstream");
        let header: Option<String> = section.required("header");
        let key_file: Option<PathBuf> = section.required("key_file");
        let prefix: String = section.take("prefix").unwrap_or_default();
        if upstream.as_deref().is_some_and(|upstream| !is_upstream(upstream)) {
            section.wrong("upstream", "not of the form https://HOST[:PORT][/PATH], in lower case");
        }
        if header.as_deref().is_some_and(|header| !is_header(header)) {
            section.wrong("header", "not the name of a header, in lower case");
        }
        if prefix.chars().any(char::is_control) {
            section.wrong("prefix", "contains control characters");
        }
        if let Some(Err(error)) = key_file.as_deref().map(key) {
            section.wrong("key_file", crate::chain(&error));
        }
        section.finish();
        Some(Self { upstream: upstream?, header: header?, prefix, key_file: key_file? })
    }

    /// Where its key is.
    pub(crate) fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// What the gateway has to know of it, the key included.
    pub(crate) fn role(&self, name: &str) -> Result<ListenerRole, KeyError> {
        let value = SecretText::new(format!("{}{}", self.prefix, key(&self.key_file)?.expose()));
        let (upstream, header) = (self.upstream.clone(), self.header.clone());
        Ok(ListenerRole::Model { name: name.to_owned(), upstream, header, value })
    }
}

fn is_upstream(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let port_sound = authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0));
    let path_sound = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@".contains(&byte));
    let host_sound = agentapi_shared::egress::HostPattern::try_from(host.to_owned()).is_ok() && !host.starts_with('*');
    host_sound && port_sound && path_sound
}

fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The key in a file that nobody but its owner can open.
fn key(path: &Path) -> Result<SecretText, KeyError> {
    let shown = path.display().to_string();
    let failed = |source| KeyError::Read { path: shown.clone(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: shown, mode });
    }
    let mut text = String::new();
    file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    let line = text.trim_end_matches(['\r', '\n']);
    let sound =
        !line.is_empty() && text.len() as u64 <= KEY_BYTES_MAX && line.bytes().all(|byte| (32..127).contains(&byte));
    if sound { Ok(SecretText::new(line.to_owned())) } else { Err(KeyError::Content(shown)) }
}
