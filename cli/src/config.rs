//! Where the data of this machine lives, and which server to talk to with which token.
//!
//! Order for both url and token: flags, environment, `credentials.json` of the data dir. A token of the local file goes only to the server of the
//! local file, and no token crosses a network in the clear unless that is asked for by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, TypedValueParser as _};
use reqwest::Url;
use serde::Deserialize;

use crate::args::GlobalArgs;
use crate::failure::{ExitKind, Failure};

/// The file in the data dir with the url and token of the local control plane.
pub(crate) const CREDENTIALS_FILE: &str = "credentials.json";

/// A token file or credentials file is some hundred bytes; more is the wrong file.
const CREDENTIALS_BYTES_MAX: u64 = 16 * 1024;

/// The environment, taken once at the start so that tests can bring their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, OsString>,
    root: bool,
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self { variables: variables.collect(), root: nix::unistd::geteuid().is_root() }
    }

    #[cfg(test)]
    pub(crate) fn with(pairs: &[(&str, &str)]) -> Self {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Self { variables, root: false }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// A variable that is set, not empty, and text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| value.to_str())
    }

    /// A switch: off if it is not set, and otherwise in the words that clap takes for the daemons' switches.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        let Some(value) = self.get(name) else { return Ok(false) };
        BoolishValueParser::new()
            .parse_ref(&clap::Command::new("agentapi"), None, value)
            .map_err(|_| usage(format!("{name} must be 1 or 0, true or false, yes or no, on or off")))
    }

    /// Whether a variable is set, though it may be empty.
    pub(crate) fn raw(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name)
    }
}

/// A token; its value is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// The value of an `Authorization` header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    fn parse(text: &str, origin: &str) -> Result<Self, Failure> {
        let token = text.trim();
        let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if plain {
            Ok(Self(token.to_owned()))
        } else {
            Err(usage(format!("{origin} does not hold a token (one word of printable characters)")))
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A server and the credential for it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its address, such as `http://127.0.0.1:3284`.
    pub(crate) url: Url,
    /// Who we are.
    pub(crate) token: Token,
}

/// Contents of `credentials.json`.
#[derive(Deserialize)]
struct Credentials {
    url: String,
    token: String,
}

/// The data dir: flag, environment, or the place for this user.
pub(crate) fn data_dir(args: &GlobalArgs, env: &Environment) -> Result<PathBuf, Failure> {
    if let Some(dir) = args.data_dir.clone().or_else(|| env.get("AGENTAPI_DATA_DIR").map(PathBuf::from)) {
        return std::path::absolute(&dir).map_err(|_| usage(format!("{} is no usable path", dir.display())));
    }
    if env.root {
        return Ok(PathBuf::from("/var/lib/agentapi"));
    }
    // XDG: a relative path in the variable is to be ignored.
    let xdg = env.get("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let data = xdg.or_else(|| env.get("HOME").map(|home| Path::new(home).join(".local/share")));
    data.map(|dir| dir.join("agentapi")).ok_or_else(|| usage("HOME is not set: give --data-dir".to_owned()))
}

/// The server to talk to.
pub(crate) fn server(args: &GlobalArgs, env: &Environment) -> Result<Server, Failure> {
    let chosen_url = args.url.clone().or_else(|| env.text("AGENTAPI_URL").map(str::to_owned));
    let url = chosen_url.map(|text| parse_url(&text)).transpose()?;
    let token = match &args.token_file {
        Some(file) => Some(Token::parse(&read_secret(file)?, &file.display().to_string())?),
        None => env.text("AGENTAPI_TOKEN").map(|text| Token::parse(text, "AGENTAPI_TOKEN")).transpose()?,
    };
    let server = match (url, token) {
        (Some(url), Some(token)) => Server { url, token },
        (url, token) => with_local(url, token, &data_dir(args, env)?)?,
    };
    guard_plain_http(&server.url, args, env)?;
    Ok(server)
}

/// Completes what flags and environment left open from the local file.
fn with_local(url: Option<Url>, token: Option<Token>, data_dir: &Path) -> Result<Server, Failure> {
    let local = local_server(data_dir);
    match (url, token) {
        (None, Some(token)) => Ok(Server { url: local?.url, token }),
        (Some(url), None) => match local {
            Ok(local) if local.url.origin() == url.origin() => Ok(Server { url, token: local.token }),
            _ => Err(Failure::new(
                ExitKind::Refused,
                format!("no token for {url}: set AGENTAPI_TOKEN or give --token-file"),
            )),
        },
        _ => local,
    }
}

/// The control plane that `agentapi up` runs on this data dir.
pub(crate) fn local_server(data_dir: &Path) -> Result<Server, Failure> {
    let file = data_dir.join(CREDENTIALS_FILE);
    if !file.exists() {
        return Err(Failure::new(
            ExitKind::Unreachable,
            format!(
                "no server is known: {} does not exist. Start one with `agentapi up`, or set AGENTAPI_URL and AGENTAPI_TOKEN",
                file.display()
            ),
        ));
    }
    let text = read_secret(&file)?;
    let broken = || Failure::new(ExitKind::Failure, format!("{} is not a credentials file", file.display()));
    let credentials: Credentials = serde_json::from_str(&text).map_err(|_| broken())?;
    Ok(Server {
        url: parse_url(&credentials.url)?,
        token: Token::parse(&credentials.token, &file.display().to_string())?,
    })
}

fn parse_url(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|_| usage(format!("{text:?} is no url such as http://127.0.0.1:3284")))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err(usage("the url must be http(s)://HOST[:PORT], without credentials".to_owned())) }
}

/// Whether the host of a url is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn guard_plain_http(url: &Url, args: &GlobalArgs, env: &Environment) -> Result<(), Failure> {
    let allowed = args.allow_plain_http || env.switch("AGENTAPI_ALLOW_PLAIN_HTTP")?;
    if url.scheme() == "https" || is_loopback(url) || allowed {
        return Ok(());
    }
    Err(Failure::new(
        ExitKind::Refused,
        format!("the token would cross the network in the clear to {url}: use https, or say --allow-plain-http"),
    ))
}

fn read_secret(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ": only the user who started AgentAPI may read it",
            _ => "",
        };
        Failure::new(ExitKind::Failure, format!("cannot read {}: {error}{hint}", file.display()))
    };
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if length > CREDENTIALS_BYTES_MAX {
        return Err(usage(format!("{} is too large for a credential", file.display())));
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn usage(message: String) -> Failure {
    Failure::new(ExitKind::Usage, message)
}

#[cfg(test)]
mod tests;
