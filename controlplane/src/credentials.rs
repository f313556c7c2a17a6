//! Credential files for those on the same machine: made at the first start, the url kept true at each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::auth::Secret;
use crate::private_file;

#[derive(Serialize, Deserialize)]
struct Credential {
    url: String,
    token: String,
}

/// Why a credential file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is not a credential file; remove it to have a new one made")]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes `url` and a token: the one that is there, or a new one. Gives the token.
pub fn keep(path: &Path, url: &str, prefix: &str) -> Result<Secret, CredentialError> {
    let token = match fs::read_to_string(path) {
        Ok(text) => {
            let known: Credential =
                serde_json::from_str(&text).map_err(|_| CredentialError::Malformed { path: path.to_owned() })?;
            if !known.token.starts_with(prefix) {
                return Err(CredentialError::Malformed { path: path.to_owned() });
            }
            Secret::from_text(known.token)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Secret::generate(prefix),
        Err(source) => return Err(CredentialError::Read { path: path.to_owned(), source }),
    };
    let credential = Credential { url: url.to_owned(), token: token.expose().to_owned() };
    let text = serde_json::to_string(&credential).map_err(io::Error::from);
    let written = text.and_then(|text| private_file::replace(path, &text));
    written.map_err(|source| CredentialError::Write { path: path.to_owned(), source })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::auth::USER_TOKEN_PREFIX;

    #[test]
    fn a_token_is_kept_and_the_url_is_renewed() {
        let dir = std::env::temp_dir().join(format!("credentials-{}", agentapi_shared::EventId::generate()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("credentials.json");
        let first = keep(&path, "http://one", USER_TOKEN_PREFIX).unwrap();
        let second = keep(&path, "http://two", USER_TOKEN_PREFIX).unwrap();
        assert_eq!(first, second);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("http://two") && text.contains(first.expose()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{}").unwrap();
        assert!(matches!(keep(&path, "http://one", USER_TOKEN_PREFIX), Err(CredentialError::Malformed { .. })));
        fs::remove_dir_all(dir).unwrap();
    }
}
