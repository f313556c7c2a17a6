//! What the store keeps, as types. No rules: what may follow what is decided in `domain`.

mod audit;
mod logins;
mod operator;
mod organizations;

use std::collections::BTreeMap;

use agentapi_shared::api::{Posture, STOP_GRACE_MS, SandboxPolicy, SandboxRequest, Visibility, Workspace};
use agentapi_shared::audit::entry::in_microseconds;
use agentapi_shared::egress::EgressVerdict;
use agentapi_shared::link::HostFacts;
use agentapi_shared::{ApiKeyId, EventId, Exit, HostId, OrgId, SessionId, SpawnNumber, SpawnState, UserId, WindowSize};
use time::OffsetDateTime;

use crate::capability::Role;

pub use audit::{AuditEntry, AuditFilter, AuditHead, AuditPage, AuditPosition, SealedRecord};
pub use logins::{LoginHolder, NewLogin, NewLoginCode, NewcomerHolder, RefreshTaken, Sealed, Sight};
pub use operator::{Erased, LastOwner, OrganizationOverview, Owner, PersonIn, PersonRecord, Who};
pub use organizations::{
    ApiKeyRecord, Expiry, Founding, FoundingTerms, Identity, InvitationRecord, KeyFacts, MadeByKey, MemberRecord,
    NewApiKey, NewEnrolment, NewInvitation, NewViewer, OrganizationChange, OrganizationRecord, Overdue, Rotation,
};

/// The organisation that exists from the first migration on.
pub const DEFAULT_ORG: OrgId = OrgId::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);
/// The person that exists from the first migration on.
pub const LOCAL_ADMIN: UserId = UserId::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0002);
/// The host that exists from the first migration on.
pub const LOCAL_HOST: HostId = HostId::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0003);

/// In whose name a tenant's rows are read and changed. Rows of another organisation do not exist for it, and of its own it sees what its role may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantContext {
    /// The organisation.
    pub org: OrgId,
    /// Who acts.
    pub user: UserId,
    /// As what. A database that decides itself asks itself instead.
    pub role: Role,
    /// With what a database that decides itself is asked; none: what the store makes for this user.
    pub token: Option<CallerToken>,
}

/// A token that a caller brought and that the database takes: a JWT of its project. No log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerToken(std::sync::Arc<str>);

impl CallerToken {
    /// One that was verified.
    #[must_use]
    pub fn new(jwt: &str) -> Self {
        Self(jwt.into())
    }

    /// The token itself, for the header of a request to the database.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallerToken(..)")
    }
}

/// What the control plane wants of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// Its newest spawn runs.
    Run,
    /// Nothing of it runs.
    Stop,
}

/// How a stop is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRequest {
    /// Time between asking and killing.
    pub grace_ms: u64,
    /// Kill at once.
    pub force: bool,
}

/// A session to be made, already validated.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Now.
    pub at: OffsetDateTime,
    /// For people.
    pub name: Option<String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// Name of the agent.
    pub agent: String,
    /// For `custom`.
    pub command: Vec<String>,
    /// For other agents.
    pub args: Vec<String>,
    /// Size of the terminal.
    pub size: WindowSize,
    /// Where the agent works.
    pub workspace: Workspace,
    /// How it is to be isolated.
    pub sandbox: SandboxRequest,
    /// Whether an environment came with it.
    pub has_env: bool,
    /// Who sees it.
    pub visibility: Visibility,
}

/// A session with all its spawns.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub org: OrgId,
    /// Who made it.
    pub created_by: UserId,
    /// Who sees it beside them.
    pub visibility: Visibility,
    /// When.
    pub created_at: OffsetDateTime,
    /// For people.
    pub name: Option<String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// Name of the agent.
    pub agent: String,
    /// For `custom`.
    pub command: Vec<String>,
    /// For other agents.
    pub args: Vec<String>,
    /// As the host ran it, once known.
    pub run_command: Option<Vec<String>>,
    /// Size of the terminal.
    pub size: WindowSize,
    /// Where the agent works.
    pub workspace: Workspace,
    /// How it is to be isolated, in every spawn.
    pub sandbox: SandboxRequest,
    /// The host, once placed.
    pub host: Option<HostId>,
    /// What is wanted.
    pub desired: Desired,
    /// Raised by one at each change of `desired`.
    pub generation: u64,
    /// How the last stop was asked for.
    pub stop: StopRequest,
    /// To be removed as soon as it is over.
    pub purging: bool,
    /// To be started again as soon as it is over.
    pub restarting: bool,
    /// Grows with each change.
    pub revision: u64,
    /// Oldest first; never empty.
    pub spawns: Vec<SpawnRecord>,
}

impl SessionRecord {
    /// What a store wrote as it made a session, so that it need not be read again.
    #[must_use]
    pub fn made(tenant: &TenantContext, new: &NewSession, sandbox_policy: SandboxPolicy) -> Self {
        let new = new.clone();
        let spawn = SpawnRecord {
            number: 1,
            state: SpawnState::Pending,
            accepted: false,
            has_env: new.has_env,
            report: (0, 0),
            boot_id: None,
            started: None,
            ended: None,
            exit: None,
            posture: None,
            sandbox_policy,
        };
        Self {
            id: new.id,
            org: tenant.org,
            created_by: tenant.user,
            visibility: new.visibility,
            created_at: in_microseconds(new.at),
            name: new.name,
            labels: new.labels,
            agent: new.agent,
            command: new.command,
            args: new.args,
            run_command: None,
            size: new.size,
            workspace: new.workspace,
            sandbox: new.sandbox,
            host: None,
            desired: Desired::Run,
            generation: 1,
            stop: StopRequest { grace_ms: STOP_GRACE_MS, force: false },
            purging: false,
            restarting: false,
            revision: 1,
            spawns: vec![spawn],
        }
    }

    /// The newest spawn; a session without one cannot be stored.
    #[must_use]
    pub fn newest(&self) -> Option<&SpawnRecord> {
        self.spawns.last()
    }

    /// Its number; 0 never occurs.
    #[must_use]
    pub fn spawn(&self) -> SpawnNumber {
        self.newest().map_or(0, |spawn| spawn.number)
    }

    /// State of the newest spawn.
    #[must_use]
    pub fn state(&self) -> SpawnState {
        self.newest().map_or(SpawnState::Failed, |spawn| spawn.state)
    }
}

/// What policy has to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFacts {
    /// Who made it.
    pub created_by: UserId,
    /// Who sees it beside them.
    pub visibility: Visibility,
}

impl From<&SessionRecord> for SessionFacts {
    fn from(record: &SessionRecord) -> Self {
        Self { created_by: record.created_by, visibility: record.visibility }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct SpawnRecord {
    /// 1 for the first.
    pub number: SpawnNumber,
    /// Its state.
    pub state: SpawnState,
    /// Whether a host said that it has it.
    pub accepted: bool,
    /// Whether its environment came with the request.
    pub has_env: bool,
    /// (generation, seq) of the newest report taken.
    pub report: (u64, u64),
    /// Boot of the host that accepted it.
    pub boot_id: Option<String>,
    /// When the program was executed.
    pub started: Option<OffsetDateTime>,
    /// When it ended.
    pub ended: Option<OffsetDateTime>,
    /// How.
    pub exit: Option<Exit>,
    /// How it is isolated, once its host said so.
    pub posture: Option<Posture>,
    /// What its organisation allowed when it began. The store writes it.
    pub sandbox_policy: SandboxPolicy,
}

/// A change of one session, computed by `domain` from the record as it was at a revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionChange {
    /// New name.
    pub name: Option<Option<String>>,
    /// New labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Who sees it from now on.
    pub visibility: Option<Visibility>,
    /// New size.
    pub size: Option<WindowSize>,
    /// Placed on this host.
    pub host: Option<HostId>,
    /// As the host ran it.
    pub run_command: Option<Vec<String>>,
    /// What is wanted from now on; raises the generation.
    pub desired: Option<Desired>,
    /// How to stop.
    pub stop: Option<StopRequest>,
    /// To be removed when over.
    pub purging: Option<bool>,
    /// To be started again when over.
    pub restarting: Option<bool>,
    /// A changed spawn.
    pub spawn: Option<SpawnRecord>,
    /// A new spawn.
    pub new_spawn: Option<SpawnRecord>,
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRecord {
    /// Its id.
    pub id: HostId,
    /// Whose it is; none: shared by all.
    pub org: Option<OrgId>,
    /// The name that it was enrolled with.
    pub name: Option<String>,
    /// Version of its supervisor.
    pub version: Option<String>,
    /// What it said of itself.
    pub facts: Option<HostFacts>,
    /// When it was last heard of.
    pub last_seen_at: Option<OffsetDateTime>,
    /// Living spawns placed there.
    pub sessions_running: u32,
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A person or a program of theirs.
    User(UserHolder),
    /// A host.
    Host(HostId),
}

/// Whom a token is made good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHolder {
    /// A person, in one organisation.
    User {
        /// Which organisation.
        org: OrgId,
        /// Who.
        user: UserId,
    },
    /// A host.
    Host(HostId),
}

/// A person, as policy needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserHolder {
    /// Who.
    pub user: UserId,
    /// Of which organisation.
    pub org: OrgId,
    /// Their name.
    pub name: String,
    /// Their organisation's name.
    pub organization: String,
    /// Their role.
    pub role: Role,
    /// The API key that it was asked with, if it was one.
    pub key: Option<KeyFacts>,
    /// The token that they brought, if the database takes it.
    pub token: Option<CallerToken>,
}

impl UserHolder {
    /// In whose name rows are reached.
    #[must_use]
    pub fn tenant(&self) -> TenantContext {
        TenantContext { org: self.org, user: self.user, role: self.role, token: self.token.clone() }
    }
}

/// A login of a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserSession {
    /// Whose.
    pub holder: LoginHolder,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// The API key that it was made with, if it was made with one, and ends with.
    pub made_by: Option<ApiKeyId>,
}

/// Which sessions a list shows.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only in this state.
    pub state: Option<SpawnState>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only on this host.
    pub host: Option<HostId>,
    /// Only with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only ones made before this one: lists show the newest first.
    pub before: Option<SessionId>,
    /// At most so many.
    pub limit: u32,
}

/// Which egress decisions a list shows.
#[derive(Debug, Clone, Default)]
pub struct EgressFilter {
    /// Only with this verdict.
    pub verdict: Option<EgressVerdict>,
    /// Only ones made before this one.
    pub before: Option<EventId>,
    /// At most so many.
    pub limit: u32,
}

/// A request that must have one effect however often it is sent.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// Of what, such as `POST /sessions`.
    pub route: String,
    /// As the client chose it.
    pub key: String,
    /// SHA-256 of the request.
    pub request_hash: String,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub enum Replay {
    /// Never seen; now taken.
    Fresh,
    /// Done before, with this answer.
    Done {
        /// HTTP status.
        status: u16,
        /// JSON.
        body: String,
    },
    /// Taken, and no answer is known.
    InFlight,
    /// Taken by another request.
    Mismatch,
}
