//! Binding, serving, ending in phases: stop accepting, tell viewers and hosts, wait for them under a limit.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::agent::{ManifestError, manifests};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::api::{self, Api, Site};
use crate::audit::{CheckpointError, Checkpoints};
use crate::auth::{HOST_TOKEN_PREFIX, Secret, USER_TOKEN_PREFIX};
use crate::config::{self, Config};
use crate::credentials::{self, CredentialError};
use crate::domain::organizations::Foundings;
use crate::identities::{Identities, IdentitiesError};
use crate::identity::login::OidcSettings;
use crate::identity::mint::{MintError, Minter};
use crate::identity::project::ProjectKeys;
use crate::jobs;
use crate::limits::{Limits, Rates};
use crate::plane::Plane;
use crate::store::StoreError;
use crate::stores::{Stores, StoresError};

/// A client that does not finish its headers is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections and links get this long to say goodbye.
const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// What is not sealed and signed by then is at the next start.
const AUDIT_GRACE: Duration = Duration::from_secs(3);
/// After a failed accept (out of descriptors) the next try waits.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Buffer of a connection while it speaks HTTP.
const HTTP_BUFFER_BYTES: usize = 64 * 1024;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error("cannot use the data directory {path}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoresError),
    /// A credential.
    #[error("cannot keep a credential")]
    Credential(#[from] CredentialError),
    /// How callers say who they are.
    #[error(transparent)]
    Identities(#[from] IdentitiesError),
    /// Our secret at an issuer.
    #[error("cannot read {path}, which oidc-client-secret-file names")]
    ClientSecret {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The keys of our tokens.
    #[error("cannot make tokens")]
    Mint(#[from] MintError),
    /// A token.
    #[error("cannot register a token")]
    Register(#[source] StoreError),
    /// Checkpoints of the audit trail.
    #[error("cannot keep audit checkpoints")]
    Checkpoints(#[from] CheckpointError),
    /// The embedded manifests.
    #[error("cannot read the agents")]
    Agents(#[from] ManifestError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A server that listens and does not yet serve.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<TcpListener>,
    plane: Arc<Plane>,
    tasks: TaskGroup,
    rates: Rates,
    minter: Option<Arc<Minter>>,
    identities: Arc<Identities>,
    site: Arc<Site>,
    foundings: Foundings,
    client_address_header: Option<http::HeaderName>,
}

impl Server {
    /// Opens everything, in a Supabase project if there is one. Whatever can fail at start fails here.
    pub async fn bind(config: &Config, project: Option<ProjectKeys>) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        make_private(dir).map_err(|source| StartError::DataDir { path: dir.clone(), source })?;
        let minter = minter(config)?;
        let stores = Stores::open(dir, project.clone(), minter.clone()).await?;
        let (listener, address) = listen(config.listen).await?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(listen(address).await?.0),
            None => None,
        };
        if let Some(path) = config.credentials_file.as_ref().filter(|_| stores.has_local_admin()) {
            let token = credentials::keep(path, &format!("http://{address}"), USER_TOKEN_PREFIX)?;
            stores.register_admin(token.hash()).await.map_err(StartError::Register)?;
        }
        if let Some(path) = &config.host_credential_file {
            let url = format!("ws://{address}{}", agentapi_shared::link::PATH);
            let token = credentials::keep(path, &url, HOST_TOKEN_PREFIX)?;
            stores.register_host(token.hash()).await.map_err(StartError::Register)?;
        }
        if config.public_url.is_some() && config.client_address_header.is_none() {
            warn!(
                "everybody behind the proxy of the public URL is one client for rate limits, strangers with wrong credentials too: set --client-address-header"
            );
        }
        let tasks = TaskGroup::new();
        let oidc = config.oidc.as_ref().map(|oidc| settings(oidc, config, address)).transpose()?;
        let identities =
            Arc::new(Identities::open(dir, project, minter.as_deref(), oidc, stores.store(), &tasks).await?);
        let plane = Plane::new(stores.store(), manifests()?, tasks.clone());
        let checkpoints = Checkpoints::open(dir, config.audit_checkpoint_dir.as_deref().unwrap_or(dir))?;
        plane.trail.keep_checkpoints(Arc::new(checkpoints), &tasks);
        Ok(Self {
            site: Arc::new(Site::new(address.port(), config.public_url.as_ref())),
            foundings: config.foundings,
            client_address_header: config.client_address_header.clone(),
            rates: config.rates,
            listener,
            address,
            metrics,
            plane,
            tasks,
            minter,
            identities,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves metrics.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Its parts.
    #[must_use]
    pub fn plane(&self) -> Arc<Plane> {
        self.plane.clone()
    }

    /// Serves until `stop` resolves, then ends in order.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        jobs::start(&self.plane);
        let mut router = api::router(self.api());
        if let Some(minter) = &self.minter {
            router = router.merge(api::well_known_router(minter.clone()));
        }
        info!(address = %self.address, "serving");
        let metrics = api::metrics_router(self.plane.clone());
        tokio::pin!(stop);
        loop {
            let (accepted, router) = tokio::select! {
                accepted = self.listener.accept() => (accepted, &router),
                accepted = accept(self.metrics.as_ref()) => (accepted, &metrics),
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, from)) => self.serve(stream, from.ip(), router.clone()),
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        info!("ending: viewers and hosts are told");
        self.tasks.shutdown();
        if !self.tasks.drain(DRAIN_GRACE).await {
            warn!("some connections did not end in time");
        }
        if tokio::time::timeout(AUDIT_GRACE, self.plane.trail.finish()).await.is_err() {
            warn!("the audit trail was not sealed to its end in time; the next start does it");
        }
    }

    fn api(&self) -> Api {
        Api {
            plane: self.plane.clone(),
            site: self.site.clone(),
            foundings: self.foundings,
            identities: self.identities.clone(),
            limits: Arc::new(Limits::new(self.rates)),
        }
    }

    fn serve(&self, stream: TcpStream, from: IpAddr, router: Router) {
        // Keystrokes must not wait for each other.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "nodelay not set");
        }
        let shutdown = self.tasks.cancelled();
        let header = self.client_address_header.clone();
        let service = router.map_request(move |mut request: http::Request<Incoming>| {
            let told = header.as_ref().and_then(|name| client_address(request.headers(), name));
            request.extensions_mut().insert(api::Peer(told.unwrap_or(from)));
            request
        });
        self.tasks.spawn("connection", OnEnd::Continue, async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HTTP_BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .with_upgrades();
            tokio::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                debug!(%error, "connection ended");
            }
        });
    }
}

/// Where the proxy before us says that a client is: the last one that it names. What stands before that came from the client.
fn client_address(headers: &http::HeaderMap, name: &http::HeaderName) -> Option<IpAddr> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
    let with_port = || last.parse::<SocketAddr>().ok().map(|address| address.ip());
    last.trim_matches(['[', ']']).parse().ok().or_else(with_port)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let named = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(named)?;
    let address = listener.local_addr().map_err(named)?;
    Ok((listener, address))
}

/// The next connection to a listener that may not be there.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// What we are at an issuer, and where browsers come back to from it: the URL that others know, else this machine's own.
fn settings(oidc: &config::Oidc, config: &Config, address: SocketAddr) -> Result<OidcSettings, StartError> {
    let secret = oidc.client_secret_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|source| StartError::ClientSecret { path: path.clone(), source })
    });
    let own = format!("http://127.0.0.1:{}", address.port());
    let base = config.public_url.as_ref().map_or(own.as_str(), |url| url.as_str());
    Ok(OidcSettings {
        issuer: oidc.issuer.clone(),
        client_id: oidc.client_id.clone(),
        client_secret: secret.transpose()?.map(|text| Secret::from_text(text.trim().to_owned())),
        redirect_uri: format!("{}{}", base.trim_end_matches('/'), api::BACK),
    })
}

/// What makes tokens of our own; none: nobody would find its keys.
pub(crate) fn minter(config: &Config) -> Result<Option<Arc<Minter>>, MintError> {
    let open = |url: &reqwest::Url| Minter::open(&config.data_dir.join("signing.keys"), url.as_str());
    Ok(config.public_url.as_ref().map(open).transpose()?.map(Arc::new))
}

/// The database holds what only its owner may read.
pub(crate) fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_word_about_a_client_is_the_last_one() {
        let name = http::HeaderName::from_static("x-forwarded-for");
        let told = |values: &[&str]| {
            let values = values.iter().map(|value| (name.clone(), value.parse().unwrap()));
            client_address(&values.collect(), &name).map(|ip| ip.to_string())
        };
        assert_eq!(told(&["192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(told(&["10.0.0.1, 192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(told(&["10.0.0.1", "2001:db8::1"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(told(&["[2001:db8::1]"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(told(&["[2001:db8::1]:443"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(told(&["192.0.2.1:443"]).as_deref(), Some("192.0.2.1"));
        assert_eq!((told(&[]), told(&[""]), told(&["192.0.2.1, unknown"])), (None, None, None));
    }
}
