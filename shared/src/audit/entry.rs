//! The exact text of a record: JSON with every field always there, in one order, so that the same facts give the same bytes.
//!
//! It names whoever acted by id only, and holds no secret. What is personal (names, addresses) is [`Personal`], which stands beside the text
//! and can be erased without touching it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset};

use crate::id::{EventId, HostId, OrgId, SessionId};

/// A text is never longer; the database refuses more.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// An action's name is never longer; hosts send some of them.
const ACTION_CHARS_MAX: usize = 64;
/// A name, or what a client says of itself, is cut here.
const PERSONAL_CHARS_MAX: usize = 256;

/// Who acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A person, or a program with a key of theirs.
    User,
    /// A host.
    Host,
    /// The control plane itself, or somebody that it does not know.
    System,
    /// Somebody who changed rows by hand.
    Database,
}

impl ActorKind {
    /// The word of it, everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::System => "system",
            Self::Database => "database",
        }
    }
}

/// Who acted, and with which credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Actor<'a> {
    /// What it is.
    pub kind: ActorKind,
    /// Its id; of the system, the name of the job.
    pub id: &'a str,
    /// Names a credential without giving it away.
    pub credential: Option<&'a str>,
}

/// What a record says.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its id.
    pub id: EventId,
    /// Whose chain it stands in.
    pub org: OrgId,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What was done, such as `session.create`.
    pub action: &'a str,
    /// How: `api`, `web`, `link`, `system` or `database`.
    pub channel: &'a str,
    /// Who.
    pub actor: Actor<'a>,
    /// To which session.
    pub session: Option<SessionId>,
    /// On which host.
    pub host: Option<HostId>,
    /// The request that did it.
    pub request: Option<EventId>,
    /// More, without secrets.
    pub detail: &'a Value,
}

/// The order of the fields is the order of the text.
#[derive(Serialize)]
struct Text<'a> {
    id: EventId,
    org_id: OrgId,
    at: &'a str,
    action: &'a str,
    channel: &'a str,
    actor: &'a Actor<'a>,
    session_id: Option<SessionId>,
    host_id: Option<HostId>,
    request_id: Option<EventId>,
    detail: &'a Value,
}

impl Entry<'_> {
    /// The text that is stored and hashed. A detail that is too large gives way to its size: the record itself must not fail.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.with_detail(&printable(self.detail));
        if text.len() <= TEXT_BYTES_MAX {
            return text;
        }
        self.with_detail(&json!({ "left_out_bytes": text.len() }))
    }

    fn with_detail(&self, detail: &Value) -> String {
        let text = Text {
            id: self.id,
            org_id: self.org,
            at: &time_text(self.at),
            action: &cut(self.action, ACTION_CHARS_MAX),
            channel: self.channel,
            actor: &self.actor,
            session_id: self.session,
            host_id: self.host,
            request_id: self.request,
            detail,
        };
        // Ids, words and JSON values have no form that could fail.
        serde_json::to_string(&text).unwrap_or_default()
    }
}

/// What is personal of a record's actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personal {
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Their address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// What their client says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Personal {
    /// As it is stored; none if nothing is known.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let short = |field: &Option<String>| field.as_deref().map(|text| cut(text, PERSONAL_CHARS_MAX));
        let cut = Self {
            name: short(&self.name),
            email: short(&self.email),
            ip: short(&self.ip),
            user_agent: short(&self.user_agent),
        };
        (cut != Self::default()).then(|| serde_json::to_string(&cut).unwrap_or_default())
    }
}

/// A time as every store keeps it: to the microsecond, what is finer cut off.
#[must_use]
pub fn in_microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.microsecond() * 1000).unwrap_or(at)
}

/// RFC 3339 in UTC with microseconds always written: the order of texts is the order of times, and no store keeps more.
#[must_use]
pub fn time_text(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}

/// The first characters of a text, and none that a database cannot hold.
fn cut(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(chars_max).collect()
}

/// The same value without the one character that Postgres has no place for in JSON.
fn printable(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.iter().map(printable).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.replace('\0', "\u{fffd}"), printable(value))).collect()
        }
        other => other.clone(),
    }
}
