//! One API key of a project: which kind it is, and whether it belongs where it was put.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;

use super::mistake::ProjectMistake;
use super::value::{ANON, SERVICE};
use crate::auth::Secret;

const PUBLISHABLE: &str = "sb_publishable_";
const SECRET: &str = "sb_secret_";

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everybody has it.
    Anon,
    /// Jobs of the control plane.
    Service,
}

impl Purpose {
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Anon => ANON,
            Self::Service => SERVICE,
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::Service => "service_role",
        }
    }

    fn opaque(self) -> &'static str {
        match self {
            Self::Anon => "publishable",
            Self::Service => "secret",
        }
    }
}

/// A key that is where it belongs.
#[derive(Debug, Clone)]
pub(super) enum Key {
    /// `sb_...`: the gateway knows it, and takes it in `apikey` alone.
    Opaque(Secret),
    /// Signed with the project's secret: a gateway and PostgREST both take it.
    Jwt(Secret),
}

/// What API keys of the older kind say of themselves.
#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    #[serde(rename = "ref")]
    project: Option<String>,
    exp: Option<i64>,
}

impl Key {
    /// Reads a key, and refuses one that belongs elsewhere.
    pub(super) fn of(
        secret: Secret,
        purpose: Purpose,
        project: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Self, ProjectMistake> {
        let text = secret.expose();
        if text.starts_with(PUBLISHABLE) || text.starts_with(SECRET) {
            let found = if text.starts_with(SECRET) { Purpose::Service } else { Purpose::Anon };
            if found != purpose {
                return Err(misplaced(purpose, found.opaque(), purpose.opaque()));
            }
            if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
                return Err(unknown(purpose));
            }
            return Ok(Self::Opaque(secret));
        }
        let claims = claims(text).ok_or_else(|| unknown(purpose))?;
        claims.check(purpose, project, now)?;
        Ok(Self::Jwt(secret))
    }
}

impl Claims {
    fn check(self, purpose: Purpose, project: Option<&str>, now: OffsetDateTime) -> Result<(), ProjectMistake> {
        let (name, role) = (purpose.variable(), self.role.unwrap_or_default());
        match role.as_str() {
            found if found == purpose.role() => {}
            "anon" | "service_role" => {
                let found = if role == "anon" { Purpose::Anon } else { Purpose::Service };
                return Err(misplaced(purpose, found.role(), purpose.role()));
            }
            _ => return Err(ProjectMistake::Role { name, role, wanted: purpose.role() }),
        }
        if let (Some(found), Some(wanted)) = (self.project, project)
            && found != wanted
        {
            return Err(ProjectMistake::OtherProject { name, found, wanted: wanted.to_owned() });
        }
        let since = self.exp.and_then(|exp| OffsetDateTime::from_unix_timestamp(exp).ok());
        match since {
            Some(since) if since <= now => Err(ProjectMistake::Over { name, since }),
            _ => Ok(()),
        }
    }
}

/// The claims of a JWT, unverified: the key is ours, and it is read to find mistakes.
fn claims(text: &str) -> Option<Claims> {
    let mut parts = text.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    // It goes into a header, so that every part is looked at.
    URL_SAFE_NO_PAD.decode(header).and(URL_SAFE_NO_PAD.decode(signature)).ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn misplaced(purpose: Purpose, found: &'static str, wanted: &'static str) -> ProjectMistake {
    match purpose {
        Purpose::Anon => ProjectMistake::ServiceAsAnon { found, wanted },
        Purpose::Service => ProjectMistake::AnonAsService { found, wanted },
    }
}

fn unknown(purpose: Purpose) -> ProjectMistake {
    ProjectMistake::Unknown { name: purpose.variable(), kind: purpose.opaque() }
}
