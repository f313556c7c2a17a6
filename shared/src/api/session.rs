//! Sessions as the API shows and takes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::api::{Posture, SandboxRequest};
use crate::exit::Exit;
use crate::id::{HostId, SessionId, UserId};
use crate::size::WindowSize;
use crate::state::SpawnState;

/// Name of the agent that brings its own command.
pub const CUSTOM_AGENT: &str = "custom";

/// Characters in a session's name.
pub const NAME_CHARS_MAX: usize = 100;
/// Labels of one session.
pub const LABELS_MAX: usize = 32;
/// Characters of a label's key; and of its value.
pub const LABEL_CHARS_MAX: usize = 128;
/// Words of a command. Linux takes far more; a person does not.
pub const COMMAND_WORDS_MAX: usize = 256;
/// Bytes of a command or an environment together: below the kernel's 2 MiB for both, above every real one.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Variables of a session's environment.
pub const ENV_MAX: usize = 256;
/// Rows of scrollback that a screen request may ask for.
pub const SCROLLBACK_ROWS_MAX: u32 = 10_000;
/// Input of one request.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Grace period of a stop when nobody says otherwise, in milliseconds.
pub const STOP_GRACE_MS: u64 = 5_000;
/// The longest grace period, in milliseconds.
pub const STOP_GRACE_MS_MAX: u64 = 300_000;

/// Body of `POST /api/v1/sessions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// `custom`, or the name of an agent of `GET /api/v1/agents`.
    pub agent: String,
    /// Program and arguments; required for `custom`, refused for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments after the agent's own; refused for `custom`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// For people; up to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Environment of the agent. Write-only: never returned, never logged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// 120x40 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Size>))]
    pub size: Option<WindowSize>,
    /// A new empty directory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// How it is isolated; by the host's profile `dev` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxRequest>,
    /// Who sees it; `private` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// Who of an organisation sees a session, beside those who see every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Whoever made it.
    #[default]
    Private,
    /// Everybody.
    Organization,
}

impl Visibility {
    /// The word of it, everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Organization => "organization",
        }
    }
}

/// No visibility has this name.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("expected private or organization")]
pub struct NoSuchVisibility;

impl std::str::FromStr for Visibility {
    type Err = NoSuchVisibility;

    fn from_str(text: &str) -> Result<Self, NoSuchVisibility> {
        [Self::Private, Self::Organization].into_iter().find(|one| one.as_str() == text).ok_or(NoSuchVisibility)
    }
}

/// Columns and rows, for the schema; see [`WindowSize`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Size {
    /// 2 to 500.
    pub cols: u16,
    /// 1 to 500.
    pub rows: u16,
}

/// Where the agent works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// `empty` or `path`.
    #[serde(default)]
    pub source: WorkspaceSource,
    /// For `path`: an absolute directory below one of the host's workspace roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Kind of workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceSource {
    /// A private directory of the session, gone with it.
    #[default]
    Empty,
    /// A directory of the host, never removed.
    Path,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: SessionId,
    /// Rises with each change, so that of two answers the newer one can be told, in whatever order they come.
    pub revision: u64,
    /// For people.
    pub name: Option<String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// Name of the agent.
    pub agent: String,
    /// What is run.
    pub command: Vec<String>,
    /// State of the newest spawn.
    pub state: SpawnState,
    /// Why it is in that state, where that needs saying.
    pub state_reason: Option<String>,
    /// What the agent does, where that is known.
    pub agent_status: Option<AgentStatus>,
    /// True while the host that holds it is not connected: the state is the last one known.
    pub unreachable: bool,
    /// Size of the terminal.
    #[cfg_attr(feature = "openapi", schema(value_type = Size))]
    pub size: WindowSize,
    /// Where the agent works.
    pub workspace: Workspace,
    /// How the newest spawn is isolated, as its host built it; null until it runs.
    pub sandbox: Option<Posture>,
    /// The host, once placed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub host_id: Option<HostId>,
    /// Every run, oldest first.
    pub spawns: Vec<Spawn>,
    /// Who made it.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub created_by: UserId,
    /// Who sees it.
    #[serde(default)]
    pub visibility: Visibility,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// How the newest spawn ended.
    pub exit: Option<Exit>,
}

/// What an agent does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStatus {
    /// `running` or `stable`.
    pub status: String,
    /// Such as `working` or `waiting_for_input`.
    pub reason: Option<String>,
}

/// One run of a session's agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spawn {
    /// 1 for the first.
    pub number: u32,
    /// Its state.
    pub state: SpawnState,
    /// When the program was executed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended: Option<OffsetDateTime>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// Body of `PATCH /api/v1/sessions/{id}`; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateSession {
    /// New name; null removes it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<Option<String>>,
    /// New labels, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Who sees it from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// Tells a null from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Body of `POST /api/v1/sessions/{id}/restart`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestartSession {
    /// Stop a living spawn first, instead of answering 409.
    #[serde(default)]
    pub stop: bool,
}

/// Body of `POST /api/v1/sessions/{id}/input`: exactly one of the fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SendInput {
    /// Typed as it is; no newline is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Names of keys, such as `Enter`, `C-c`, `Up`, `F5`, `M-x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Any bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_base64: Option<String>,
}

/// Answer to input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InputWritten {
    /// Bytes written to the terminal.
    pub written: u64,
    /// Offset of the output at that moment.
    pub offset: u64,
}

/// Body of `POST /api/v1/sessions/{id}/resize`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResizeSession {
    /// 2 to 500.
    pub cols: u64,
    /// 1 to 500.
    pub rows: u64,
}

/// How a screen is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ScreenFormat {
    /// Characters only.
    #[default]
    Text,
    /// With SGR sequences for colours and styles.
    Ansi,
}

/// Answer of `GET /api/v1/sessions/{id}/screen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScreenResponse {
    /// Columns and rows.
    #[cfg_attr(feature = "openapi", schema(value_type = Size))]
    pub size: WindowSize,
    /// Where the cursor is.
    pub cursor: Cursor,
    /// The title that the program set.
    pub title: String,
    /// The spawn this is the screen of.
    pub spawn: u32,
    /// Output up to here is on it.
    pub offset: u64,
    /// Rows joined by newlines, scrollback first, spaces at the ends of rows removed.
    pub text: String,
}

/// A cursor; row and column count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cursor {
    /// Row from the top of the screen.
    pub row: u16,
    /// Column from the left.
    pub col: u16,
    /// Whether the program shows it.
    pub visible: bool,
}
