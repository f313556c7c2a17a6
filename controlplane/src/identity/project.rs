//! A Supabase project: where it is, and the keys that requests to it are sent with.
//!
//! Each value is an environment variable, or a file that `<NAME>_FILE` names. Files are looked at again while requests are made, so a key is
//! replaced by replacing its file. Where the project is stays as it was at the start. A set of keys that is wrong is refused whole, at the start
//! with every mistake in it; later the one before stays in use.

mod key;
mod mistake;
mod set;
mod value;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use tracing::{info, warn};

pub use mistake::{ProjectError, ProjectMistake};

use self::set::KeySet;
use self::value::Origin;
pub(in crate::identity) use self::value::below;
pub use self::value::safe_url;
use super::key_file::Stamp;
use crate::auth::Secret;
use crate::store::records::CallerToken;

/// How old a key may be after its file changed. Looking costs microseconds, so this bounds the looks, not the delay.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the project is, and from where its keys come.
#[derive(Debug)]
struct Project {
    /// Of PostgREST: `<SUPABASE_URL>/rest/v1`, or one without a gateway.
    rest: Url,
    /// Of Supabase Auth; none: only PostgREST is there.
    auth: Option<Url>,
    issuer: Option<String>,
    gateway: Gateway,
    origins: Origins,
    state: RwLock<State>,
}

/// Whether something before PostgREST takes the keys of the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gateway {
    /// As Supabase has it.
    Supabase,
    /// PostgREST takes JWTs and nothing else.
    None,
}

#[derive(Debug)]
struct Origins {
    anon: Option<Origin>,
    service: Option<Origin>,
    secret: Option<Origin>,
}

#[derive(Debug)]
struct State {
    keys: Arc<KeySet>,
    stamps: [Option<Stamp>; 3],
    looked: Instant,
}

/// The keys of a project, as they are now. Cheap to clone; no `Debug` shows a key.
#[derive(Clone)]
pub struct ProjectKeys(Arc<Project>);

impl fmt::Debug for ProjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectKeys").field("rest", &self.0.rest.as_str()).finish_non_exhaustive()
    }
}

impl ProjectKeys {
    /// From the environment, as `variable` gives it; none if no project is named there.
    pub fn open(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ProjectError> {
        let mut mistakes = Vec::new();
        let mut origin = |name| Origin::of(name, &variable).unwrap_or_else(|mistake| note(&mut mistakes, mistake));
        let (url, rest, issuer) = (origin(value::URL), origin(value::REST_URL), origin(value::ISSUER));
        let origins =
            Origins { anon: origin(value::ANON), service: origin(value::SERVICE), secret: origin(value::SECRET) };
        let mut place = |origin: Option<Origin>| {
            origin.and_then(|origin| origin.url().unwrap_or_else(|mistake| note(&mut mistakes, mistake)))
        };
        let (url, rest) = (place(url), place(rest));
        let issuer = match issuer.map(|origin| origin.text()).transpose() {
            Ok(text) => text.flatten().map(|secret| secret.expose().to_owned()),
            Err(mistake) => note(&mut mistakes, mistake),
        };
        if !mistakes.is_empty() {
            return Err(ProjectError(mistakes));
        }
        let gateway = if rest.is_some() { Gateway::None } else { Gateway::Supabase };
        let auth = url.as_ref().map(|url| value::below(url, "auth/v1"));
        let Some(rest) = rest.or_else(|| url.as_ref().map(|url| value::below(url, "rest/v1"))) else {
            return origins.refuse_alone();
        };
        let issuer = issuer.or_else(|| auth.as_ref().map(|url| url.as_str().to_owned()));
        let stamps = origins.stamps();
        let keys = Arc::new(origins.read(auth.as_ref(), gateway)?);
        let state = RwLock::new(State { keys, stamps, looked: Instant::now() });
        Ok(Some(Self(Arc::new(Project { rest, auth, issuer, gateway, origins, state }))))
    }

    /// Where PostgREST is, without a slash at the end.
    #[must_use]
    pub fn rest_url(&self) -> &Url {
        &self.0.rest
    }

    /// Where Supabase Auth is; none: tokens come from elsewhere.
    #[must_use]
    pub fn auth_url(&self) -> Option<&Url> {
        self.0.auth.as_ref()
    }

    /// What tokens of the project say in `iss`; none: nobody logs in with one.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// The secret that tokens with HS256 are signed with; none: such tokens are not taken.
    #[must_use]
    pub fn jwt_secret(&self) -> Option<Secret> {
        self.now().secret.clone()
    }

    /// Headers of a job of the control plane, which row level security does not hold.
    #[must_use]
    pub fn service_headers(&self) -> HeaderMap {
        self.now().service_headers()
    }

    /// Headers of a request in the name of a caller. Without a token that can be sent, it is in nobody's name.
    #[must_use]
    pub fn caller_headers(&self, token: &CallerToken) -> HeaderMap {
        self.now().caller_headers(token.expose())
    }

    /// Headers of a request in nobody's name: a login.
    #[must_use]
    pub fn anon_headers(&self) -> HeaderMap {
        self.now().anon_headers()
    }

    /// The keys, after a look at their files if the last is a while ago.
    fn now(&self) -> Arc<KeySet> {
        {
            let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.looked.elapsed() < LOOK_INTERVAL {
                return state.keys.clone();
            }
        }
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_INTERVAL {
            state.looked = Instant::now();
            self.0.look(&mut state);
        }
        state.keys.clone()
    }
}

impl Project {
    /// Reads the files again if one of them changed.
    fn look(&self, state: &mut State) {
        // Taken before the files are read: one that changes meanwhile is read again at the next look.
        let stamps = self.origins.stamps();
        if stamps == state.stamps {
            return;
        }
        state.stamps = stamps;
        match self.origins.read(self.auth.as_ref(), self.gateway) {
            Ok(keys) => {
                info!("keys of the Supabase project were replaced");
                state.keys = Arc::new(keys);
            }
            Err(error) => warn!(%error, "the new keys of the Supabase project are not used"),
        }
    }
}

impl Origins {
    fn stamps(&self) -> [Option<Stamp>; 3] {
        [&self.anon, &self.service, &self.secret].map(|origin| origin.as_ref().and_then(Origin::stamp))
    }

    fn read(&self, auth: Option<&Url>, gateway: Gateway) -> Result<KeySet, ProjectError> {
        let mut mistakes = Vec::new();
        let mut text = |origin: &Option<Origin>| {
            let text = origin.as_ref().map(Origin::text).transpose();
            text.map_or_else(|mistake| note(&mut mistakes, mistake), Option::flatten)
        };
        let texts = set::Texts { anon: text(&self.anon), service: text(&self.service), secret: text(&self.secret) };
        if !mistakes.is_empty() {
            return Err(ProjectError(mistakes));
        }
        KeySet::of(texts, auth, gateway).map_err(ProjectError)
    }

    /// Keys without a project are a mistake; nothing at all is not.
    fn refuse_alone(&self) -> Result<Option<ProjectKeys>, ProjectError> {
        let given = [(value::ANON, &self.anon), (value::SERVICE, &self.service), (value::SECRET, &self.secret)];
        match given.into_iter().find(|(_, origin)| origin.is_some()) {
            Some((name, _)) => Err(ProjectError(vec![ProjectMistake::NoUrl { name }])),
            None => Ok(None),
        }
    }
}

fn note<T>(mistakes: &mut Vec<ProjectMistake>, mistake: ProjectMistake) -> Option<T> {
    mistakes.push(mistake);
    None
}

#[cfg(test)]
mod tests;
