//! `enrol` and `rotate`: how this machine gets the credential it shows the control plane, and another one in its place.
//!
//! A token is good once, so everything that can be wrong on this side is found before it is sent, and what comes back is on disk before
//! anything is said about it. The daemon reads the file at each connect: a rotation needs no restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use agentapi_shared::api::{HostCredential, Problem, RedeemHostEnrolment};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use reqwest::{Client, RequestBuilder, Url};
use serde::{Deserialize, Serialize};

use crate::chain;
use crate::config::{EnrolOptions, RotateOptions};

/// A token is some dozen characters; a file with more is another one.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The control plane answers in milliseconds, its database in seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// As `run` reads it.
#[derive(Serialize, Deserialize)]
struct Credential {
    url: String,
    token: String,
}

/// Why this machine has no new credential.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} holds no token")]
    NoToken(PathBuf),
    #[error("{0} holds no usable url and token")]
    Malformed(PathBuf),
    #[error(
        "{0} is there already: this machine is a host; name another file, or remove it to make a new host of this machine"
    )]
    Exists(PathBuf),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("another enrol or rotate is at work on {0}; nothing was changed: wait until it has ended")]
    Busy(PathBuf),
    #[error("{0} is no http(s) URL of a control plane")]
    Url(String),
    #[error(
        "{0} has no TLS: the token would cross the network in the clear; use https, or --allow-plain-http on a network of your own"
    )]
    Plain(String),
    #[error("cannot start")]
    Start(#[source] io::Error),
    #[error("cannot reach the control plane")]
    Reach(#[source] reqwest::Error),
    #[error("the control plane's answer holds no credential")]
    Answer(#[source] serde_json::Error),
    #[error("the control plane refused ({status}): {detail}")]
    Refused { status: u16, detail: String },
}

/// Makes a host of this machine.
pub(crate) fn enrol(options: &EnrolOptions) -> ExitCode {
    let enrolled = base_of(&options.url, options.allow_plain_http).and_then(|base| {
        let token = read_token(&options.token_file)?;
        let turn = Turn::take(&options.credential_file)?;
        if options.credential_file.exists() {
            return Err(EnrolError::Exists(options.credential_file.clone()));
        }
        let place = turn.reserve()?;
        let url = at(&base, "/api/v1/host-enrolments/redeem");
        let made: HostCredential =
            json_of(&ask(&base, |http| http.post(url).json(&RedeemHostEnrolment { token: token.clone() }))?)?;
        place.fill(&link_of(&base), &made)?;
        Ok(made)
    });
    end(enrolled, &options.credential_file, "is enrolled")
}

/// Changes the credential of this host.
pub(crate) fn rotate(options: &RotateOptions) -> ExitCode {
    let path = &options.credential_file;
    let rotated = Turn::take(path).and_then(|turn| {
        let before: Credential = serde_json::from_str(&read(path)?).map_err(|_| EnrolError::Malformed(path.clone()))?;
        let http = before.url.replacen("ws", "http", 1);
        let base = http.strip_suffix(agentapi_shared::link::PATH).ok_or_else(|| EnrolError::Malformed(path.clone()))?;
        let base = Url::parse(base).map_err(|_| EnrolError::Malformed(path.clone()))?;
        let place = turn.reserve()?;
        let url = at(&base, "/api/v1/hosts/credential");
        let made: HostCredential = json_of(&ask(&base, |http| http.post(url).bearer_auth(&before.token))?)?;
        place.fill(&before.url, &made)?;
        // It is kept, so the one before may end. If this is not heard, the next link says it.
        let url = at(&base, "/api/v1/hosts/credential/confirm");
        if let Err(error) = ask(&base, |http| http.post(url).bearer_auth(&made.token)) {
            let words = "the credential before is good until the host connects with the new one";
            let _told = writeln!(io::stderr(), "agentapi-supervisor: {words}: {}", chain(&error));
        }
        Ok(made)
    });
    end(rotated, path, "has a new credential")
}

fn end(made: Result<HostCredential, EnrolError>, path: &Path, done: &str) -> ExitCode {
    match made {
        Ok(made) => {
            let _told = writeln!(io::stdout(), "host {} {done}; its credential is in {}", made.host_id, path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _told = writeln!(io::stderr(), "agentapi-supervisor: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<String, EnrolError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| EnrolError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

fn read_token(path: &Path) -> Result<String, EnrolError> {
    let token = read(path)?.trim().to_owned();
    if token.is_empty() { Err(EnrolError::NoToken(path.to_owned())) } else { Ok(token) }
}

/// The control plane's url, if a token may be sent there.
fn base_of(text: &str, allow_plain: bool) -> Result<Url, EnrolError> {
    let wrong = || EnrolError::Url(text.to_owned());
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| wrong())?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) || allow_plain => Ok(url),
        "http" => Err(EnrolError::Plain(text.to_owned())),
        _ => Err(wrong()),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str().unwrap_or_default().trim_matches(['[', ']']) {
        "localhost" => true,
        name => name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// Where the link is: `http` becomes `ws`, `https` becomes `wss`.
fn link_of(base: &Url) -> String {
    at(base, agentapi_shared::link::PATH).as_str().replacen("http", "ws", 1)
}

fn json_of(answer: &[u8]) -> Result<HostCredential, EnrolError> {
    serde_json::from_slice(answer).map_err(EnrolError::Answer)
}

/// The body of an answer that is good.
fn ask(base: &Url, request: impl FnOnce(&Client) -> RequestBuilder) -> Result<Vec<u8>, EnrolError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EnrolError::Start)?;
    runtime.block_on(async {
        // A redirect could carry the token to somewhere else; the API has none.
        let mut http = Client::builder().timeout(ANSWER_TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if is_loopback(base) {
            http = http.no_proxy();
        }
        let answer = request(&http.build().map_err(EnrolError::Reach)?).send().await.map_err(EnrolError::Reach)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.bytes().await.map_err(EnrolError::Reach)?.to_vec());
        }
        let detail =
            answer.json::<Problem>().await.map_or_else(|_| "it says no more".to_owned(), |problem| problem.detail);
        // What others wrote must not drive the terminal of whoever looks.
        let detail = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Err(EnrolError::Refused { status: status.as_u16(), detail })
    })
}

/// The right to change a credential's file, from before it is read until the control plane knows what is in it. Two at once would take each
/// other's new file.
struct Turn {
    path: PathBuf,
    // The file stays when the lock goes: removing it would let two processes lock two files of the same name.
    _lock: Flock<File>,
}

impl Turn {
    /// Takes it, unless another process has it.
    fn take(path: &Path) -> Result<Self, EnrolError> {
        let beside = path.with_extension("lock");
        let failed = |source| EnrolError::Write { path: beside.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&beside).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(EnrolError::Busy(path.to_owned())),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    fn reserve(&self) -> Result<Place<'_>, EnrolError> {
        let beside = self.path.with_extension("new");
        let failed = |source| EnrolError::Write { path: beside.clone(), source };
        // One that a crash left behind may have other permissions.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
        Ok(Place { turn: self, beside, file, filled: false })
    }
}

/// A new file beside the one that it takes the place of, as a whole; readable by its owner only, from its first moment on.
struct Place<'a> {
    turn: &'a Turn,
    beside: PathBuf,
    file: File,
    filled: bool,
}

impl Place<'_> {
    fn fill(mut self, url: &str, made: &HostCredential) -> Result<(), EnrolError> {
        let credential = Credential { url: url.to_owned(), token: made.token.clone() };
        let written = serde_json::to_vec(&credential).map_err(io::Error::from).and_then(|text| {
            self.file.write_all(&text)?;
            self.file.sync_all()?;
            std::fs::rename(&self.beside, &self.turn.path)
        });
        self.filled = written.is_ok();
        written.map_err(|source| EnrolError::Write { path: self.turn.path.clone(), source })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.filled {
            // Nothing of use is in it.
            let _gone = std::fs::remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_goes_in_the_clear_only_where_that_is_meant() {
        let base = |url: &str, plain| base_of(url, plain).map(|url| link_of(&url)).map_err(|error| error.to_string());
        assert_eq!(base("https://agents.example.org/", false).unwrap(), "wss://agents.example.org/api/v1/link");
        assert_eq!(base("https://example.org/agents", false).unwrap(), "wss://example.org/agents/api/v1/link");
        assert_eq!(base("http://127.0.0.1:3284", false).unwrap(), "ws://127.0.0.1:3284/api/v1/link");
        assert_eq!(base("http://[::1]:3284", false).unwrap(), "ws://[::1]:3284/api/v1/link");
        assert!(base("http://agents.example.org", false).unwrap_err().contains("--allow-plain-http"));
        assert!(base("http://agents.example.org", true).is_ok());
        for wrong in ["ws://127.0.0.1", "agents.example.org", "", "file:///x"] {
            assert!(base(wrong, true).is_err(), "{wrong}");
        }
    }

    /// A directory for one test's credential.
    fn directory() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("enrol-{}", agentapi_shared::EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_credential_is_there_as_a_whole_or_not_at_all() {
        let dir = directory();
        let path = dir.join("host-credential.json");
        let turn = Turn::take(&path).unwrap();
        drop(turn.reserve().unwrap());
        assert_eq!(names(&dir), ["host-credential.lock"]);
        let made = HostCredential { host_id: agentapi_shared::HostId::generate(), token: "aah_x".to_owned() };
        turn.reserve().unwrap().fill("ws://127.0.0.1:1/api/v1/link", &made).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"url":"ws://127.0.0.1:1/api/v1/link","token":"aah_x"}"#
        );
        for name in ["host-credential.json", "host-credential.lock"] {
            assert_eq!(std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(names(&dir), ["host-credential.json", "host-credential.lock"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn whoever_comes_second_changes_nothing() {
        let dir = directory();
        let path = dir.join("host-credential.json");
        let made = HostCredential { host_id: agentapi_shared::HostId::generate(), token: "aah_x".to_owned() };
        let first = Turn::take(&path).unwrap();
        let place = first.reserve().unwrap();
        // As `rotate` and `enrol` of other processes come: no token is sent, and the first one's file is left alone.
        std::fs::write(dir.join("token"), "aae_x").unwrap();
        let enrolment = EnrolOptions {
            url: "http://127.0.0.1:1".to_owned(),
            token_file: dir.join("token"),
            credential_file: path.clone(),
            allow_plain_http: false,
        };
        assert_eq!(enrol(&enrolment), ExitCode::FAILURE);
        std::fs::write(&path, r#"{"url":"ws://127.0.0.1:1/api/v1/link","token":"aah_before"}"#).unwrap();
        assert_eq!(rotate(&RotateOptions { credential_file: path.clone() }), ExitCode::FAILURE);
        let refused = Turn::take(&path).err().unwrap();
        assert!(matches!(&refused, EnrolError::Busy(busy) if *busy == path), "{refused:?}");
        place.fill("ws://127.0.0.1:1/api/v1/link", &made).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("aah_x"));
        // It holds on until it is done, and then it is the next one's turn.
        assert!(Turn::take(&path).is_err());
        drop(first);
        assert!(Turn::take(&path).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
