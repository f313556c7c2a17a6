//! Configuration: flags, environment (`AGENTAPI_CONTROLPLANE_<FLAG>`) and a TOML file, in this order. Every mistake is reported at once.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;

use agentapi_shared::api::Quotas;
use agentapi_shared::runtime::LogFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use http::HeaderName;
use reqwest::Url;
use serde::Deserialize;

use crate::admin::AdminVerb;
use crate::domain::organizations::Foundings;
use crate::domain::policy::SignUp;
use crate::identity::project::safe_url;
use crate::limits::Rates;

const DEFAULT_LISTEN: &str = "127.0.0.1:3284";

/// The control plane of AgentAPI.
#[derive(Debug, Parser)]
#[command(name = "agentapi-controlplane", version)]
pub struct Cli {
    /// What to do; without one it serves.
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// How.
    #[command(flatten)]
    pub options: Options,
}

/// Things to do other than to serve.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the OpenAPI document.
    Openapi,
    /// Bring the database of a Supabase project to the schema of this program.
    Migrate {
        /// File with the URL of the database, or the URL itself if it has no password. Without it: AGENTAPI_CONTROLPLANE_DATABASE_URL.
        #[arg(long, value_name = "FILE")]
        database_url: Option<String>,
        /// File with certificates (PEM) that the database may have, beside those that this system trusts.
        #[arg(long, value_name = "FILE")]
        database_ca: Option<PathBuf>,
    },
    /// Do the operator's part, on the data directory or the Supabase project: with or without a server that runs.
    #[command(subcommand)]
    Admin(AdminVerb),
}

/// Options as given; what is absent may be in the file.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// TOML file with the same keys.
    #[arg(long, global = true, env = "AGENTAPI_CONTROLPLANE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address to serve on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", env = "AGENTAPI_CONTROLPLANE_LISTEN")]
    pub listen: Option<String>,
    /// Address to serve `/metrics` on; none: not served.
    #[arg(long, value_name = "HOST:PORT", env = "AGENTAPI_CONTROLPLANE_METRICS_LISTEN")]
    pub metrics_listen: Option<String>,
    /// URL at which others reach this control plane: browsers that come back from a login, and a project that takes its tokens.
    #[arg(long, value_name = "URL", env = "AGENTAPI_CONTROLPLANE_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// OpenID Connect issuer that browsers log in at, exactly as it calls itself.
    #[arg(long, value_name = "URL", env = "AGENTAPI_CONTROLPLANE_OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,
    /// What this control plane is called there.
    #[arg(long, value_name = "ID", env = "AGENTAPI_CONTROLPLANE_OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,
    /// File with its secret there; none: a public client.
    #[arg(long, value_name = "PATH", env = "AGENTAPI_CONTROLPLANE_OIDC_CLIENT_SECRET_FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Requests a minute that one token, API key or browser may make; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_KEY_REQUESTS_PER_MINUTE")]
    pub key_requests_per_minute: Option<u32>,
    /// The same of one person, by whatever they use.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_USER_REQUESTS_PER_MINUTE")]
    pub user_requests_per_minute: Option<u32>,
    /// The same of one organisation.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_ORGANIZATION_REQUESTS_PER_MINUTE")]
    pub organization_requests_per_minute: Option<u32>,
    /// The same of everybody at one client address who is not known yet, or in no organisation.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_ADDRESS_REQUESTS_PER_MINUTE")]
    pub address_requests_per_minute: Option<u32>,
    /// Credentials a minute from one client address that may turn out to be nobody's; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_ADDRESS_FAILURES_PER_MINUTE")]
    pub address_failures_per_minute: Option<u32>,
    /// Logins a minute with the password of one account, from wherever.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_ACCOUNT_LOGINS_PER_MINUTE")]
    pub account_logins_per_minute: Option<u32>,
    /// Header in which the proxy before this control plane says where a client is, such as `x-forwarded-for`; none: there is no proxy.
    #[arg(long, value_name = "NAME", env = "AGENTAPI_CONTROLPLANE_CLIENT_ADDRESS_HEADER")]
    pub client_address_header: Option<String>,
    /// Who may found an organisation, beside those who own one.
    #[arg(long, value_enum, env = "AGENTAPI_CONTROLPLANE_SIGN_UP")]
    pub sign_up: Option<SignUp>,
    /// Organisations that one person may be the founder of; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_FOUNDED_ORGANIZATIONS_MAX")]
    pub founded_organizations_max: Option<u32>,
    /// Sessions at once of an organisation that somebody founds where signing up is open; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_SIGN_UP_SESSIONS_MAX")]
    pub sign_up_sessions_max: Option<u32>,
    /// Its sessions a day; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_SIGN_UP_SESSIONS_PER_DAY_MAX")]
    pub sign_up_sessions_per_day_max: Option<u32>,
    /// Its terminals attached at once; 0: no limit.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_SIGN_UP_VIEWERS_MAX")]
    pub sign_up_viewers_max: Option<u32>,
    /// Control planes that share the load: each allows its share of these.
    #[arg(long, value_name = "N", env = "AGENTAPI_CONTROLPLANE_REPLICAS")]
    pub replicas: Option<NonZeroU32>,
    /// Directory of the database.
    #[arg(long, global = true, value_name = "DIR", env = "AGENTAPI_CONTROLPLANE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the admin's url and token are kept; made at the first start.
    #[arg(long, value_name = "PATH", env = "AGENTAPI_CONTROLPLANE_CREDENTIALS_FILE")]
    pub credentials_file: Option<PathBuf>,
    /// Where the local host's url and token are kept; made at the first start.
    #[arg(long, value_name = "PATH", env = "AGENTAPI_CONTROLPLANE_HOST_CREDENTIAL_FILE")]
    pub host_credential_file: Option<PathBuf>,
    /// Where the signed ends of the audit trail are kept; the data directory if absent.
    #[arg(long, global = true, value_name = "DIR", env = "AGENTAPI_CONTROLPLANE_AUDIT_CHECKPOINT_DIR")]
    pub audit_checkpoint_dir: Option<PathBuf>,
    /// End when this process ends.
    #[arg(long, value_name = "PID", env = "AGENTAPI_CONTROLPLANE_EXIT_WITH_PARENT")]
    pub exit_with_parent: Option<i32>,
    /// How log lines are written.
    #[arg(long, value_enum, env = "AGENTAPI_CONTROLPLANE_LOG_FORMAT")]
    pub log_format: Option<LogFormatName>,
    /// What is logged, such as `info` or `agentapi_controlplane=debug`.
    #[arg(long, env = "AGENTAPI_CONTROLPLANE_LOG_FILTER")]
    pub log_filter: Option<String>,
    /// Check the configuration and end.
    #[arg(long)]
    pub check_config: bool,
}

/// See [`LogFormat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormatName {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// The same keys in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    metrics_listen: Option<String>,
    public_url: Option<String>,
    oidc_issuer: Option<String>,
    oidc_client_id: Option<String>,
    oidc_client_secret_file: Option<PathBuf>,
    key_requests_per_minute: Option<u32>,
    user_requests_per_minute: Option<u32>,
    organization_requests_per_minute: Option<u32>,
    address_requests_per_minute: Option<u32>,
    address_failures_per_minute: Option<u32>,
    account_logins_per_minute: Option<u32>,
    client_address_header: Option<String>,
    sign_up: Option<SignUp>,
    founded_organizations_max: Option<u32>,
    sign_up_sessions_max: Option<u32>,
    sign_up_sessions_per_day_max: Option<u32>,
    sign_up_viewers_max: Option<u32>,
    replicas: Option<NonZeroU32>,
    data_dir: Option<PathBuf>,
    credentials_file: Option<PathBuf>,
    host_credential_file: Option<PathBuf>,
    audit_checkpoint_dir: Option<PathBuf>,
    log_format: Option<LogFormatName>,
    log_filter: Option<String>,
}

/// A configuration that can be served with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Address to serve metrics on; none: not served.
    pub metrics_listen: Option<SocketAddr>,
    /// At which URL others reach it; none: nobody but those on this machine.
    pub public_url: Option<Url>,
    /// Another issuer than the project's.
    pub oidc: Option<Oidc>,
    /// How many requests callers may make.
    pub rates: Rates,
    /// In which header a proxy says where a client is; none: clients come themselves.
    pub client_address_header: Option<HeaderName>,
    /// Who may found organisations.
    pub foundings: Foundings,
    /// Directory of the database.
    pub data_dir: PathBuf,
    /// The admin's credentials; none: not written.
    pub credentials_file: Option<PathBuf>,
    /// The local host's credential; none: not written.
    pub host_credential_file: Option<PathBuf>,
    /// Where checkpoints of the audit trail are kept; none: in the data directory.
    pub audit_checkpoint_dir: Option<PathBuf>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: String,
}

/// An OpenID Connect issuer, and what we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// Exactly as it calls itself.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// Where our secret is.
    pub client_secret_file: Option<PathBuf>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {}", .0.join("; "))]
pub struct ConfigError(Vec<String>);

impl Config {
    /// Puts the sources together. `read` gives the text of a file.
    pub fn resolve(
        options: Options,
        read: impl FnOnce(&std::path::Path) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let file = options.config.as_deref().map_or_else(File::default, |path| {
            let text = read(path).map_err(|error| format!("config {}: {error}", path.display()));
            let parsed = text.and_then(|text| {
                toml::from_str(&text).map_err(|error| format!("config {}: {}", path.display(), error.message()))
            });
            parsed.unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                File::default()
            })
        });
        let (rates, foundings) = (rates(&options, &file), foundings(&options, &file));
        let listen = options.listen.or(file.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        let listen = loopback(&listen).map_err(|mistake| mistakes.push(mistake)).ok();
        let metrics = options.metrics_listen.or(file.metrics_listen).map(|text| loopback(&text));
        let metrics_listen = metrics.transpose().map_err(|mistake| mistakes.push(mistake)).ok().flatten();
        let public_url = options
            .public_url
            .or(file.public_url)
            .map(|text| safe_url(&text).map_err(|reason| format!("public-url {text}: {reason}")));
        let public_url = public_url.transpose().map_err(|mistake| mistakes.push(mistake)).ok().flatten();
        let client_secret_file = options.oidc_client_secret_file.or(file.oidc_client_secret_file);
        let oidc = match (options.oidc_issuer.or(file.oidc_issuer), options.oidc_client_id.or(file.oidc_client_id)) {
            (Some(issuer), Some(client_id)) => Some(Oidc { issuer, client_id, client_secret_file }),
            (None, None) => None,
            _ => {
                mistakes.push("oidc-issuer, oidc-client-id: both or neither".to_owned());
                None
            }
        };
        let data_dir = options.data_dir.or(file.data_dir);
        if data_dir.is_none() {
            mistakes.push("data-dir: required".to_owned());
        }
        let header = options.client_address_header.as_ref().or(file.client_address_header.as_ref());
        let header = header.map(|text| {
            text.parse::<HeaderName>().map_err(|_| format!("client-address-header {text}: no name of a header"))
        });
        let client_address_header = header.transpose().map_err(|mistake| mistakes.push(mistake)).ok().flatten();
        let format = options.log_format.or(file.log_format).unwrap_or(LogFormatName::Text);
        let (Some(listen), Some(data_dir), true) = (listen, data_dir, mistakes.is_empty()) else {
            return Err(ConfigError(mistakes));
        };
        Ok(Self {
            listen,
            metrics_listen,
            public_url,
            oidc,
            rates,
            client_address_header,
            foundings,
            data_dir,
            credentials_file: options.credentials_file.or(file.credentials_file),
            host_credential_file: options.host_credential_file.or(file.host_credential_file),
            audit_checkpoint_dir: options.audit_checkpoint_dir.or(file.audit_checkpoint_dir),
            log_format: if format == LogFormatName::Json { LogFormat::Json } else { LogFormat::Text },
            log_filter: options.log_filter.or(file.log_filter).unwrap_or_else(|| "info".to_owned()),
        })
    }
}

fn rates(options: &Options, file: &File) -> Rates {
    let default = Rates::DEFAULT;
    let given = |option: Option<u32>, file: Option<u32>, default: u32| option.or(file).unwrap_or(default);
    Rates {
        key: given(options.key_requests_per_minute, file.key_requests_per_minute, default.key),
        user: given(options.user_requests_per_minute, file.user_requests_per_minute, default.user),
        organization: given(
            options.organization_requests_per_minute,
            file.organization_requests_per_minute,
            default.organization,
        ),
        address: given(options.address_requests_per_minute, file.address_requests_per_minute, default.address),
        failures: given(options.address_failures_per_minute, file.address_failures_per_minute, default.failures),
        account: given(options.account_logins_per_minute, file.account_logins_per_minute, default.account),
        replicas: options.replicas.or(file.replicas).unwrap_or(default.replicas),
    }
}

fn foundings(options: &Options, file: &File) -> Foundings {
    let Foundings { sign_up, founded_max, quotas } = Foundings::DEFAULT;
    let limit = |option: Option<u32>, file: Option<u32>, default: Option<u32>| match option.or(file) {
        Some(0) => None,
        given => given.or(default),
    };
    Foundings {
        sign_up: options.sign_up.or(file.sign_up).unwrap_or(sign_up),
        founded_max: limit(options.founded_organizations_max, file.founded_organizations_max, founded_max),
        quotas: Quotas {
            sessions_max: limit(options.sign_up_sessions_max, file.sign_up_sessions_max, quotas.sessions_max),
            sessions_per_day_max: limit(
                options.sign_up_sessions_per_day_max,
                file.sign_up_sessions_per_day_max,
                quotas.sessions_per_day_max,
            ),
            viewers_max: limit(options.sign_up_viewers_max, file.sign_up_viewers_max, quotas.viewers_max),
        },
    }
}

/// Tokens and terminals must not cross a network in the clear, so only loopback is served.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let mut addresses =
        text.to_socket_addrs().map_err(|error| format!("listen {text}: {error}; expected HOST:PORT"))?;
    let address = addresses.next().ok_or_else(|| format!("listen {text}: no such host"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "listen {text}: not a loopback address; without TLS only 127.0.0.1 and ::1 are served, use an SSH tunnel to reach it from elsewhere"
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
