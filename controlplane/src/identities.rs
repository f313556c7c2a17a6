//! Which ways there are to say who one is, by this control plane's configuration: tokens of a project, passwords at its Supabase Auth, an
//! OpenID Connect issuer. `identity` knows how each works.

use std::path::Path;
use std::sync::Arc;

use agentapi_shared::runtime::{TaskGroup, chain};
use tracing::warn;

use crate::identity::fetch::{self, FetchError};
use crate::identity::login::{Oidc, OidcSettings, Refresher, SupabaseAuth};
use crate::identity::mint::Minter;
use crate::identity::project::ProjectKeys;
use crate::identity::seal::{SealError, Sealer};
use crate::identity::verify::{Verifier, VerifierError};
use crate::store::records::CallerToken;
use crate::store::{LoginStore, StoreError};

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// A client for issuers.
    #[error("cannot make a client for issuers")]
    Client(#[from] FetchError),
    /// Tokens of the project.
    #[error("cannot verify tokens of the Supabase project")]
    Verifier(#[from] VerifierError),
    /// Our own keys.
    #[error("cannot keep secrets")]
    Seal(#[from] SealError),
}

/// See the module.
#[derive(Debug)]
pub struct Identities {
    /// Of tokens of the project; none: there is no project, or it says no issuer.
    pub verifier: Option<Arc<Verifier>>,
    /// What those tokens say in `iss`.
    pub issuer: Option<String>,
    /// Passwords; none: there is no Supabase Auth.
    pub supabase: Option<Arc<SupabaseAuth>>,
    /// Keeps logins by password alive.
    pub refresher: Option<Refresher>,
    /// Another issuer.
    pub oidc: Option<Oidc>,
    /// What is sealed here.
    pub sealer: Arc<Sealer>,
    voice: Voice,
}

/// In whose words the store is asked for callers who bring no token that it takes.
#[derive(Debug)]
enum Voice {
    /// It needs none.
    Unneeded,
    /// In our own, which the project takes.
    Minted,
    /// With the project's secret, if there is one now.
    Secret(ProjectKeys),
}

impl Identities {
    /// Gets what can be had at the start only: keys. `store` keeps logins, in tasks of their own.
    pub async fn open(
        dir: &Path,
        project: Option<ProjectKeys>,
        minter: Option<&Minter>,
        oidc: Option<OidcSettings>,
        store: Arc<dyn LoginStore>,
        tasks: &TaskGroup,
    ) -> Result<Self, IdentitiesError> {
        let client = fetch::client()?;
        let sealer = Arc::new(Sealer::open_file(&dir.join("sealing.keys"))?);
        let issuer = project.as_ref().and_then(ProjectKeys::issuer).map(str::to_owned);
        let verifier = match &project {
            Some(keys) => Verifier::start(keys.clone(), client.clone()).await?.map(Arc::new),
            None => None,
        };
        let voice = match (&project, minter) {
            (None, _) => Voice::Unneeded,
            (Some(_), Some(_)) => Voice::Minted,
            (Some(keys), None) => Voice::Secret(keys.clone()),
        };
        let supabase = project.zip(verifier.clone());
        let supabase =
            supabase.and_then(|(keys, verifier)| SupabaseAuth::of(client.clone(), keys, verifier)).map(Arc::new);
        let refresher = supabase.clone().map(|auth| Refresher::new(auth, sealer.clone(), store, tasks.clone()));
        let oidc = oidc.map(|settings| Oidc::new(client, settings));
        Ok(Self { verifier, issuer, supabase, refresher, oidc, sealer, voice })
    }

    /// Whether callers who bring no token of the project can be served: API keys, login codes, other issuers.
    #[must_use]
    pub fn makes_tokens(&self) -> bool {
        match &self.voice {
            Voice::Unneeded | Voice::Minted => true,
            Voice::Secret(keys) => keys.jwt_secret().is_some(),
        }
    }

    /// Refuses what could never be served. What is refused is not made either.
    pub fn require_tokens(&self) -> Result<(), StoreError> {
        if self.makes_tokens() { Ok(()) } else { Err(StoreError::NoCallerToken) }
    }

    /// Ends a login at its issuer too, which ended here. If that is not reached, its token is over within the hour.
    pub async fn ended(&self, login: &str, token: Option<&CallerToken>) {
        if let Some(refresher) = &self.refresher {
            refresher.forget(login);
        }
        if let (Some(auth), Some(token)) = (&self.supabase, token)
            && let Err(failure) = auth.end(token).await
        {
            warn!(error = chain(&failure), "a login that ended here goes on at its issuer");
        }
    }
}
