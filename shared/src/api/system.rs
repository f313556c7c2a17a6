//! Hosts, agents, lists, login and the event stream.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::api::{AcceptInvitation, Membership, Session};
use crate::id::{HostId, OrgId, SessionId, UserId};
use crate::link::HostFacts;

/// The most items of one page.
pub const LIMIT_MAX: u32 = 200;
/// Items of a page when nobody says otherwise.
pub const LIMIT_DEFAULT: u32 = 50;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A worker host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: HostId,
    /// The name that it was enrolled with.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it serves every organisation.
    #[serde(default)]
    pub shared: bool,
    /// Whether its link is up.
    pub connected: bool,
    /// When it was last heard of.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    /// Version of its supervisor.
    pub version: Option<String>,
    /// What it said of itself.
    pub facts: Option<HostFacts>,
    /// Spawns that live there.
    pub sessions_running: u32,
}

/// An agent that sessions can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// Name in `POST /sessions`.
    pub name: String,
    /// For people.
    pub title: String,
    /// What is run, before `args`.
    pub command: Vec<String>,
    /// Hosts that have it installed.
    pub installed_on: Vec<AgentInstallation>,
    /// The command that installs it.
    pub install: Option<String>,
}

/// An agent found on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentInstallation {
    /// The host.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub host_id: HostId,
    /// What it says of its version.
    pub version: Option<String>,
}

/// Answer of `POST /api/v1/login-codes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginCode {
    /// Good for one login.
    pub code: String,
    /// The console with the code in the fragment, which browsers do not send.
    pub url: String,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Body of `POST /api/v1/login`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// From the login link.
    pub code: String,
}

/// Body of `POST /api/v1/login/password`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PasswordLogin {
    /// Whose.
    pub email: String,
    /// As the project's Supabase Auth knows it.
    pub password: String,
    /// For whoever is invited.
    #[serde(default)]
    pub invitation: Option<AcceptInvitation>,
}

/// Which ways there are to log in with a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginMethods {
    /// With an address and a password.
    pub password: bool,
    /// At this issuer; null: at none.
    pub issuer: Option<String>,
    /// With a link of `agentapi open`.
    pub links: bool,
    /// Whether programs are served with API keys.
    pub api_keys: bool,
    /// Who may found an organisation: `invite`, nobody but those who own one; `open`, whoever is in none as well.
    pub sign_up: String,
}

/// Answer of `GET /api/v1/me`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Me {
    /// Who one is.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// The organisation that the request is in.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub organization_id: OrgId,
    /// Its name.
    pub organization: String,
    /// One's role in it; `owner` on a machine of one's own.
    pub role: String,
    /// Every organisation that one is in and that this credential reaches.
    #[serde(default)]
    pub memberships: Vec<Membership>,
    /// Version of the control plane.
    pub version: String,
}

/// The `data` of one server-sent event of `GET /api/v1/events`; the event's name is the tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServerEvent {
    /// The first event. `resumed`: everything since `Last-Event-ID` follows. `gap`: fetch the lists again.
    Hello {
        /// `resumed` or `gap`.
        resume: String,
    },
    /// A session was created or changed.
    Session {
        /// As it is now.
        session: Box<Session>,
    },
    /// A session was purged.
    SessionPurged {
        /// Its id.
        #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
        id: SessionId,
    },
    /// A session is shown to you no longer: its id is unknown to you from now on.
    SessionHidden {
        /// Its id.
        #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
        id: SessionId,
    },
    /// A host connected, disconnected or changed.
    Host {
        /// As it is now.
        host: Box<Host>,
    },
}
