//! The one function that decides who may do what. Every handler asks it, and what it does not name is refused.
//!
//! Rights on a session are separate verbs: who may type may not thereby stop it. What one does not see does not exist (404); what one
//! sees and may not do is forbidden (403). Rows of another organisation are never reached at all, so this speaks of roles within one.

use agentapi_shared::api::{KeyScope, Visibility};
use agentapi_shared::audit::PLATFORM;
use agentapi_shared::{ApiKeyId, UserId};
use clap::ValueEnum;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::capability::{Capability, Role};
use crate::store::records::{CallerToken, SessionFacts, SessionRecord, TenantContext, UserHolder};

use super::DomainError;
use crate::sockets::{Owner, Proof, Who};

/// Enough to tell credentials apart.
const CREDENTIAL_ID_CHARS: usize = 16;

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The person.
    pub holder: UserHolder,
    /// How they proved it.
    pub credential: Credential,
}

/// How a caller proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token; its hash.
    Token(String),
    /// A token of an issuer.
    Issuer {
        /// Its hash.
        hash: String,
        /// When it is over.
        expires_at: OffsetDateTime,
    },
    /// A browser session.
    Browser {
        /// The hash of its cookie.
        hash: String,
        /// When it is over.
        expires_at: OffsetDateTime,
        /// The API key that it was made with, and ends with.
        made_by: Option<ApiKeyId>,
    },
}

impl Credential {
    /// The channel, as the audit trail names it.
    #[must_use]
    pub fn channel(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::Issuer { .. } => "api",
            Self::Browser { .. } => "web",
        }
    }

    /// Its hash: what is revoked when it is.
    #[must_use]
    pub fn hash(&self) -> &str {
        match self {
            Self::Token(hash) | Self::Issuer { hash, .. } | Self::Browser { hash, .. } => hash,
        }
    }
}

/// Who may found an organisation, beside those who own one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignUp {
    /// Nobody: one comes in by invitation.
    Invite,
    /// Whoever is in none, with an address that was shown to be theirs.
    Open,
}

impl SignUp {
    /// The word of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Open => "open",
        }
    }
}

/// Somebody who proved who they are and is in no organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// The token that they brought, if the database takes it.
    pub token: Option<CallerToken>,
    /// How they proved it.
    pub credential: Credential,
}

/// Whoever proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// In an organisation.
    Member(Principal),
    /// In none.
    Newcomer(Newcomer),
}

impl Newcomer {
    /// In whose name rows are reached: in no organisation, so none.
    #[must_use]
    pub fn tenant(&self) -> TenantContext {
        TenantContext { org: PLATFORM, user: self.user, role: Role::Viewer, token: self.token.clone() }
    }
}

impl Visitor {
    /// In whose name rows are reached.
    #[must_use]
    pub fn tenant(&self) -> TenantContext {
        match self {
            Self::Member(principal) => principal.tenant(),
            Self::Newcomer(newcomer) => newcomer.tenant(),
        }
    }

    /// How they proved who they are.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        match self {
            Self::Member(principal) => &principal.credential,
            Self::Newcomer(newcomer) => &newcomer.credential,
        }
    }

    /// What kind of caller it is, where founding is for these.
    #[must_use]
    pub fn actor(&self, sign_up: SignUp) -> Actor {
        match self {
            Self::Member(principal) => principal.actor(),
            Self::Newcomer(_) => Actor::Newcomer { sign_up },
        }
    }
}

impl Principal {
    /// In whose name rows are reached.
    #[must_use]
    pub fn tenant(&self) -> TenantContext {
        self.holder.tenant()
    }

    /// What kind of caller it is.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let reach = self.holder.key.as_ref().map_or(Reach::Everything, |key| Reach::of(&key.scopes));
        Actor::Member { user: self.holder.user, role: self.holder.role, reach }
    }

    /// Whose its sockets are.
    #[must_use]
    pub fn socket_owner(&self) -> Owner {
        let UserHolder { org, user, role, ref key, .. } = self.holder;
        let who = Who::Member { org, user, role, key: key.as_ref().map(|key| key.id) };
        let proof = match &self.credential {
            Credential::Token(hash) => Proof::Token(hash.clone()),
            Credential::Issuer { hash, .. } => Proof::Issuer(hash.clone()),
            Credential::Browser { hash, .. } => Proof::Browser(hash.clone()),
        };
        Owner { proof, who }
    }

    /// In whose name it is recorded what they did some time ago: a token of then may be over.
    #[must_use]
    pub fn tenant_of_late(&self) -> TenantContext {
        TenantContext { token: None, ..self.tenant() }
    }

    /// The channel, as the audit trail names it.
    #[must_use]
    pub fn channel(&self) -> &'static str {
        self.credential.channel()
    }

    /// The API key that whatever this caller makes is made with, if they came with one, or with what it had made.
    #[must_use]
    pub fn made_by(&self) -> Option<ApiKeyId> {
        match self.credential {
            Credential::Browser { made_by, .. } => made_by,
            Credential::Token(_) | Credential::Issuer { .. } => self.holder.key.as_ref().map(|key| key.id),
        }
    }

    /// Hash of the credential: what is revoked when it is.
    #[must_use]
    pub fn credential_hash(&self) -> &str {
        self.credential.hash()
    }

    /// Names the credential in the audit trail: a part of its hash, with which nothing can be opened.
    #[must_use]
    pub fn credential_id(&self) -> String {
        self.credential_hash().chars().take(CREDENTIAL_ID_CHARS).collect()
    }

    /// When the credential is over by itself, if it ever is.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        match self.credential {
            Credential::Token(_) => self.holder.key.as_ref().and_then(|key| key.expires_at),
            Credential::Issuer { expires_at, .. } | Credential::Browser { expires_at, .. } => Some(expires_at),
        }
    }
}

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person or a program in the organisation that the request is about.
    Member {
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
        /// For what, beside reading.
        reach: Reach,
    },
    /// Somebody who is in no organisation: comes into one, and does nothing else.
    Newcomer {
        /// Whether they may found one.
        sign_up: SignUp,
    },
    /// Whoever runs the platform: sets it up, and has no tenant's data.
    Operator,
    /// A worker machine: has its link, and nothing else.
    Host,
}

/// What a credential is for, beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Whatever its holder may.
    Everything,
    /// Only this.
    Only {
        /// To make, change and type into sessions.
        sessions: bool,
        /// To change the organisation.
        organization: bool,
    },
}

impl Reach {
    /// What a key with these scopes is for.
    #[must_use]
    pub fn of(scopes: &[KeyScope]) -> Self {
        if scopes.is_empty() {
            return Self::Everything;
        }
        let has = |scope| scopes.contains(&scope);
        Self::Only { sessions: has(KeyScope::Sessions), organization: has(KeyScope::Organization) }
    }

    fn covers(self, class: Class) -> bool {
        match (self, class) {
            (Self::Everything, _) | (_, Class::Look) => true,
            (Self::Only { sessions, .. }, Class::Sessions) => sessions,
            (Self::Only { organization, .. }, Class::Organization) => organization,
            (Self::Only { .. }, Class::Whole) => false,
        }
    }
}

/// What kind of thing an action is, for keys that are not for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Look,
    Sessions,
    Organization,
    /// What would make more of a key than it is.
    Whole,
}

/// What is to be done. Those on a session are about one that the store gave, or about none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a session.
    SessionCreate,
    /// List the sessions that one sees, and follow their events.
    SessionList,
    /// See a session's record, and what it reached outside.
    SessionView,
    /// Change, stop, restart, purge a session.
    SessionManage,
    /// Look at a session's terminal.
    TerminalView,
    /// Write to it, or set its size.
    TerminalType,
    /// Answer an agent's questions.
    SessionApprove,
    /// Read and write files of a workspace.
    SessionFiles,
    /// Run commands beside the agent.
    SessionShell,
    /// See hosts, and the agents that are installed there.
    HostView,
    /// Enrol and revoke hosts.
    HostManage,
    /// Read the organisation's audit trail.
    AuditRead,
    /// See who one is and where, log out.
    Account,
    /// Log in with a browser.
    Login,
    /// Make an organisation.
    OrganizationCreate,
    /// Change the organisation's name and settings.
    OrganizationManage,
    /// See who is in it.
    MemberView,
    /// Invite, give roles, remove.
    MemberManage,
    /// Make and unmake owners.
    OwnerGrant,
    /// Leave an organisation, or accept an invitation to one.
    Membership,
    /// See API keys: one's own, or everybody's.
    ApiKeyView,
    /// Make one for oneself.
    ApiKeyCreate,
    /// End one.
    ApiKeyRevoke,
    /// Set up organisations, and how much each may have.
    Platform,
    /// Bring what a host has.
    Link,
}

/// What comes of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allowed,
    /// For this caller there is no such thing: 404.
    Hidden,
    /// They see it and may not do this: 403.
    Forbidden,
}

/// What an action asks of a member.
enum Needs {
    /// To be one.
    Membership,
    /// One of these.
    AnyOf(&'static [Capability]),
    /// To see the session, and this.
    OnSession(Capability),
    /// To see the session.
    SightOfSession,
    /// To be allowed to change the session.
    ControlOfSession,
    /// To be something else.
    NoMember,
}

impl Action {
    fn needs(self) -> Needs {
        match self {
            Self::Account | Self::Login | Self::Membership => Needs::Membership,
            // A new organisation has no quotas and runs on shared hosts: not for whoever was only invited somewhere. Where signing up is open it
            // is for newcomers as well.
            Self::OrganizationCreate => Needs::AnyOf(&[Capability::OwnerGrant]),
            Self::OrganizationManage => Needs::AnyOf(&[Capability::OrganizationManage]),
            Self::MemberView => Needs::AnyOf(&[Capability::MemberView]),
            Self::MemberManage => Needs::AnyOf(&[Capability::MemberManage]),
            Self::OwnerGrant => Needs::AnyOf(&[Capability::OwnerGrant]),
            Self::ApiKeyView | Self::ApiKeyRevoke => {
                Needs::AnyOf(&[Capability::ApiKeyCreate, Capability::ApiKeyManage])
            }
            Self::ApiKeyCreate => Needs::AnyOf(&[Capability::ApiKeyCreate]),
            Self::SessionCreate => Needs::AnyOf(&[Capability::SessionCreate]),
            Self::SessionList => {
                Needs::AnyOf(&[Capability::SessionViewOwn, Capability::SessionViewShared, Capability::SessionViewAll])
            }
            Self::SessionView => Needs::SightOfSession,
            Self::SessionManage => Needs::ControlOfSession,
            Self::TerminalView => Needs::OnSession(Capability::TerminalView),
            Self::TerminalType => Needs::OnSession(Capability::TerminalType),
            Self::SessionApprove => Needs::OnSession(Capability::SessionApprove),
            Self::SessionFiles => Needs::OnSession(Capability::SessionFiles),
            Self::SessionShell => Needs::OnSession(Capability::SessionShell),
            Self::HostView => Needs::AnyOf(&[Capability::HostView]),
            Self::HostManage => Needs::AnyOf(&[Capability::HostManage]),
            Self::AuditRead => Needs::AnyOf(&[Capability::AuditRead]),
            Self::Link | Self::Platform => Needs::NoMember,
        }
    }

    fn class(self) -> Class {
        match self {
            Self::SessionList
            | Self::SessionView
            | Self::TerminalView
            | Self::HostView
            | Self::Account
            | Self::MemberView
            | Self::ApiKeyView
            | Self::AuditRead => Class::Look,
            Self::SessionCreate
            | Self::SessionManage
            | Self::TerminalType
            | Self::SessionApprove
            | Self::SessionFiles
            | Self::SessionShell => Class::Sessions,
            Self::HostManage
            | Self::OrganizationManage
            | Self::MemberManage
            | Self::OwnerGrant
            | Self::ApiKeyCreate
            | Self::ApiKeyRevoke => Class::Organization,
            Self::Login | Self::OrganizationCreate | Self::Membership | Self::Link | Self::Platform => Class::Whole,
        }
    }
}

/// Decides. `session`: the one that it is about, if the organisation has it.
#[must_use]
pub fn decide(actor: Actor, action: Action, session: Option<SessionFacts>) -> Decision {
    let needs = action.needs();
    let Actor::Member { user, role, reach } = actor else { return decide_for_others(actor, action, &needs) };
    let allowed = match needs {
        Needs::Membership => true,
        Needs::NoMember => false,
        Needs::AnyOf(capabilities) => capabilities.iter().any(|capability| role.has(*capability)),
        Needs::OnSession(_) | Needs::SightOfSession | Needs::ControlOfSession => {
            let Some(facts) = session.filter(|facts| sees(user, role, *facts)) else { return Decision::Hidden };
            match needs {
                Needs::OnSession(capability) => role.has(capability),
                Needs::ControlOfSession => {
                    let own = facts.created_by == user && role.has(Capability::SessionManageOwn);
                    own || role.has(Capability::SessionManageAll)
                }
                _ => true,
            }
        }
    };
    if allowed && reach.covers(action.class()) { Decision::Allowed } else { Decision::Forbidden }
}

fn sees(user: UserId, role: Role, facts: SessionFacts) -> bool {
    role.has(Capability::SessionViewAll)
        || (facts.created_by == user && role.has(Capability::SessionViewOwn))
        || (facts.visibility == Visibility::Organization && role.has(Capability::SessionViewShared))
}

/// Those who are no members see no session at all.
fn decide_for_others(actor: Actor, action: Action, needs: &Needs) -> Decision {
    match (actor, action) {
        (Actor::Host, Action::Link)
        | (Actor::Operator, Action::Account | Action::Platform)
        | (Actor::Newcomer { .. }, Action::Membership)
        | (Actor::Newcomer { sign_up: SignUp::Open }, Action::OrganizationCreate) => Decision::Allowed,
        _ if matches!(needs, Needs::OnSession(_) | Needs::SightOfSession | Needs::ControlOfSession) => Decision::Hidden,
        _ => Decision::Forbidden,
    }
}

/// Passes what is about no certain session.
pub fn check(principal: &Principal, action: Action) -> Result<(), DomainError> {
    result(decide(principal.actor(), action, None))
}

/// Passes what a visitor may do in no organisation's name.
pub fn check_visitor(visitor: &Visitor, sign_up: SignUp, action: Action) -> Result<(), DomainError> {
    result(decide(visitor.actor(sign_up), action, None))
}

/// Passes what is about one session.
pub fn check_session(principal: &Principal, action: Action, record: &SessionRecord) -> Result<(), DomainError> {
    result(decide(principal.actor(), action, Some(record.into())))
}

fn result(decision: Decision) -> Result<(), DomainError> {
    match decision {
        Decision::Allowed => Ok(()),
        Decision::Hidden => Err(DomainError::SessionNotFound),
        Decision::Forbidden => Err(DomainError::Forbidden),
    }
}

#[cfg(test)]
mod tests;
