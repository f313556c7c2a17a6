//! What tests of identities need: an issuer that publishes keys over real HTTP, and tokens signed with them and with others.

pub(super) mod auth;
pub(super) mod issuer;
pub(super) mod oidc;
pub(super) mod signer;
mod whole;

use std::path::PathBuf;

/// A directory of one test's own, gone with it.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("identity-{}", agentapi_shared::EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
