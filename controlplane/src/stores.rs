//! Which store there is: that of a Supabase project if the environment names one, else the embedded one.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::header::HeaderMap;
use tracing::warn;

use crate::auth::Secret;
use crate::identity::mint::Minter;
use crate::identity::project::ProjectKeys;
use crate::store::postgrest::tokens::{NoToken, SharedSecret, TokenSource};
use crate::store::postgrest::{self, Postgrest, Project};
use crate::store::records::{CallerToken, DEFAULT_ORG, LOCAL_ADMIN, LOCAL_HOST, TenantContext, TokenHolder};
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Store, StoreError};
use crate::{clock, store};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded one.
    #[error("cannot open the store")]
    Embedded(#[from] sqlite::OpenError),
    /// The project's.
    #[error("cannot use the Supabase project")]
    Project(#[from] postgrest::OpenError),
}

/// A store, and who is in it from the start.
#[derive(Debug, Clone)]
pub enum Stores {
    /// With a local organisation, its owner and its host.
    Embedded(Sqlite),
    /// With whom its functions made.
    Project(Postgrest),
}

impl Stores {
    /// Opens it. Whatever is wrong with a project is found here. `minter` makes tokens for a project that takes them as another issuer's.
    pub async fn open(
        dir: &Path,
        project: Option<ProjectKeys>,
        minter: Option<Arc<Minter>>,
    ) -> Result<Self, StoresError> {
        let Some(keys) = project else { return Ok(Self::Embedded(Sqlite::open(&dir.join("controlplane.db"))?)) };
        if keys.jwt_secret().is_none() && minter.is_none() {
            warn!(
                "API keys, login links and logins at an OpenID Connect issuer are off, since no token can be made for those callers: set SUPABASE_JWT_SECRET to the project's secret, \
                 or --public-url and add it to the project as an issuer (Authentication, Third-party auth). Passwords and tokens of the project's Supabase Auth work"
            );
        }
        let tokens = Arc::new(ProjectTokens { keys: keys.clone(), signer: Mutex::default(), minter });
        let store = Postgrest::new(Arc::new(keys), tokens)?;
        store.check().await?;
        Ok(Self::Project(store))
    }

    /// As everything else sees it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Project(store) => Arc::new(store.clone()),
        }
    }

    /// Whether a local admin is there without anybody making them. In a project nobody is: owners are made by name.
    #[must_use]
    pub fn has_local_admin(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Makes the local admin's token good.
    pub async fn register_admin(&self, hash: String) -> Result<(), StoreError> {
        let admin = TokenHolder::User { org: DEFAULT_ORG, user: LOCAL_ADMIN };
        store::CredentialStore::register_token(&*self.store(), hash, admin, clock::now()).await
    }

    /// Makes the local host's token good, and the host, where it is not there.
    pub async fn register_host(&self, hash: String) -> Result<(), StoreError> {
        if let Self::Project(store) = self {
            store.create_host(LOCAL_HOST, "local").await?;
        }
        store::CredentialStore::register_token(&*self.store(), hash, TokenHolder::Host(LOCAL_HOST), clock::now()).await
    }
}

impl Project for ProjectKeys {
    fn rest_url(&self) -> &Url {
        Self::rest_url(self)
    }

    fn issuer(&self) -> Option<String> {
        Self::issuer(self).map(str::to_owned)
    }

    fn service_headers(&self) -> HeaderMap {
        Self::service_headers(self)
    }

    fn caller_headers(&self, token: &CallerToken) -> HeaderMap {
        Self::caller_headers(self, token)
    }
}

/// Tokens signed with the secret that the project has now; without one, our own.
#[derive(Debug)]
struct ProjectTokens {
    keys: ProjectKeys,
    signer: Mutex<Option<(Secret, Arc<SharedSecret>)>>,
    minter: Option<Arc<Minter>>,
}

impl TokenSource for ProjectTokens {
    fn token(&self, tenant: &TenantContext) -> Result<CallerToken, NoToken> {
        let Some(secret) = self.keys.jwt_secret() else {
            let minter = self.minter.as_ref().ok_or(NoToken::Never)?;
            return minter.token(tenant.user).map_err(|error| NoToken::Failed(error.into()));
        };
        let signer = {
            let mut known = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
            match &*known {
                Some((of, signer)) if *of == secret => signer.clone(),
                _ => {
                    let signer = Arc::new(SharedSecret::new(secret.expose()));
                    *known = Some((secret, signer.clone()));
                    signer
                }
            }
        };
        signer.token(tenant)
    }
}
