//! One value: from the environment, or from a file that may be replaced.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

use super::mistake::ProjectMistake;
use crate::auth::Secret;
use crate::identity::key_file::{self, FILE_BYTES_MAX, Stamp};

/// The project.
pub(super) const URL: &str = "SUPABASE_URL";
/// PostgREST without a gateway.
pub(super) const REST_URL: &str = "SUPABASE_REST_URL";
/// What tokens say in `iss`, where it is not `<SUPABASE_URL>/auth/v1`.
pub(super) const ISSUER: &str = "SUPABASE_JWT_ISSUER";
/// Everybody's key.
pub(super) const ANON: &str = "SUPABASE_ANON_KEY";
/// The key that passes by row level security.
pub(super) const SERVICE: &str = "SUPABASE_SERVICE_ROLE_KEY";
/// What tokens with HS256 are signed with.
pub(super) const SECRET: &str = "SUPABASE_JWT_SECRET";

/// Where a value comes from.
#[derive(Debug)]
pub(super) struct Origin {
    name: &'static str,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Environment(Secret),
    File(PathBuf),
}

impl Origin {
    /// Of a variable; none if it is not set. One that is empty is not set.
    pub(super) fn of(
        name: &'static str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProjectMistake> {
        let given = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let place = match (given(name), given(&format!("{name}_FILE"))) {
            (Some(_), Some(_)) => return Err(ProjectMistake::Both { name }),
            (Some(text), None) => Place::Environment(Secret::from_text(text.trim().to_owned())),
            (None, Some(path)) => Place::File(path.into()),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { name, place }))
    }

    /// The value, without the white space around it.
    pub(super) fn text(&self) -> Result<Option<Secret>, ProjectMistake> {
        let path = match &self.place {
            Place::Environment(secret) => return Ok(Some(secret.clone())),
            Place::File(path) => path,
        };
        let name = self.name;
        let text = key_file::text(path).map_err(|source| ProjectMistake::Read { name, path: path.clone(), source })?;
        let text = text.ok_or_else(|| ProjectMistake::TooLong { name, path: path.clone(), max: FILE_BYTES_MAX })?;
        if text.trim().is_empty() {
            return Err(ProjectMistake::Empty { name, path: path.clone() });
        }
        Ok(Some(Secret::from_text(text.trim().to_owned())))
    }

    /// The value as the place of a service.
    pub(super) fn url(&self) -> Result<Option<Url>, ProjectMistake> {
        let Some(text) = self.text()? else { return Ok(None) };
        place(text.expose()).map(Some).map_err(|reason| ProjectMistake::Url { name: self.name, reason })
    }

    /// None: there is no file, or it cannot be seen now.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let Place::File(path) = &self.place else { return None };
        Stamp::of(path)
    }
}

/// The URL of a service, which others are made from.
fn place(text: &str) -> Result<Url, &'static str> {
    let mut url = safe_url(text)?;
    if url.query().is_some() {
        return Err("it has a query");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A URL to which secrets may be sent: a public name needs TLS. Else what is wrong with it.
pub fn safe_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it cannot be parsed")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or a password");
    }
    if url.fragment().is_some() {
        return Err("it has a fragment");
    }
    let host = url.host_str().ok_or("it has no host")?;
    match url.scheme() {
        "https" => {}
        "http" if is_near(host) => {}
        "http" => return Err("secrets would cross the network in the clear; use https"),
        _ => return Err("it does not begin with https://"),
    }
    Ok(url)
}

/// Names and addresses that do not leave a machine or a private network.
fn is_near(host: &str) -> bool {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return match address {
            IpAddr::V4(address) => address.is_loopback() || address.is_private(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
        };
    }
    !host.contains('.') || [".internal", ".local", ".localhost"].iter().any(|end| host.ends_with(end))
}

/// A URL below another.
pub(in crate::identity) fn below(url: &Url, path: &str) -> Url {
    let mut below = url.clone();
    below.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    below
}
