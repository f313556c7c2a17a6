//! The one function that decides who may do what. Every handler asks it, and what it does not name is refused.
//!
//! Rights on a session are separate verbs: who may type may not thereby stop it. Rows of another organisation are never reached at
//! all (the store answers as if they did not exist), so policy speaks only of roles within one.

use time::OffsetDateTime;

use crate::capability::Capability;
use crate::store::records::{TenantContext, UserHolder};

use super::DomainError;

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
    /// A browser session.
    Browser {
        /// The hash of its cookie.
        hash: String,
        /// When it is over.
        expires_at: OffsetDateTime,
    },
}

impl Principal {
    /// In whose name rows are reached.
    #[must_use]
    pub fn tenant(&self) -> TenantContext {
        TenantContext { org: self.holder.org, user: self.holder.user, role: self.holder.role, token: None }
    }

    /// The channel, as the audit trail names it.
    #[must_use]
    pub fn channel(&self) -> &'static str {
        match self.credential {
            Credential::Token(_) => "api",
            Credential::Browser { .. } => "web",
        }
    }

    /// Hash of the credential: what is revoked when it is.
    #[must_use]
    pub fn credential_hash(&self) -> &str {
        match &self.credential {
            Credential::Token(hash) | Credential::Browser { hash, .. } => hash,
        }
    }

    /// When the credential is over by itself, if it ever is.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        match self.credential {
            Credential::Token(_) => None,
            Credential::Browser { expires_at, .. } => Some(expires_at),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// See records, screens and terminals.
    View,
    /// Write to a terminal, or set its size.
    Type,
    /// Answer an agent's questions.
    Approve,
    /// Read and write files of a workspace.
    Files,
    /// Run commands beside the agent.
    Shell,
    /// Create, change, stop, restart, purge.
    Manage,
    /// Make credentials for oneself.
    Login,
}

/// To what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A session of the caller's organisation.
    Session,
    /// A host that the organisation may use.
    Host,
    /// The list of agents.
    Agent,
    /// The caller's own account.
    Account,
}

/// Allows or refuses.
pub fn allow(principal: &Principal, verb: Verb, resource: Resource) -> Result<(), DomainError> {
    let capability = match (resource, verb) {
        (Resource::Session, Verb::View) => Capability::SessionViewOwn,
        (Resource::Session, Verb::Type) => Capability::TerminalType,
        (Resource::Session, Verb::Approve) => Capability::SessionApprove,
        (Resource::Session, Verb::Files) => Capability::SessionFiles,
        (Resource::Session, Verb::Shell) => Capability::SessionShell,
        (Resource::Session, Verb::Manage) => Capability::SessionManageOwn,
        (Resource::Host | Resource::Agent, Verb::View) => Capability::HostView,
        (Resource::Host, Verb::Manage) => Capability::HostManage,
        (Resource::Account, Verb::View | Verb::Login) => return Ok(()),
        _ => return Err(DomainError::Forbidden),
    };
    if principal.holder.role.has(capability) { Ok(()) } else { Err(DomainError::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Role;
    use crate::store::records::{DEFAULT_ORG, LOCAL_ADMIN};

    fn with_role(role: Role) -> Principal {
        let holder = UserHolder {
            user: LOCAL_ADMIN,
            org: DEFAULT_ORG,
            name: "someone".to_owned(),
            organization: "default".to_owned(),
            role,
        };
        Principal { holder, credential: Credential::Token("hash".to_owned()) }
    }

    #[test]
    fn each_role_may_do_what_its_row_says_and_nothing_else() {
        const SESSION_VERBS: [Verb; 6] =
            [Verb::View, Verb::Type, Verb::Approve, Verb::Files, Verb::Shell, Verb::Manage];
        let table = [
            (Role::Owner, "yyyyyy"),
            (Role::Admin, "yyyyyy"),
            (Role::Member, "yyyyyy"),
            (Role::ServiceAccount, "yyyyyy"),
            (Role::Viewer, "ynnnnn"),
            (Role::Auditor, "ynnnnn"),
        ];
        for (role, expected) in table {
            let found: String = SESSION_VERBS
                .iter()
                .map(|verb| if allow(&with_role(role), *verb, Resource::Session).is_ok() { 'y' } else { 'n' })
                .collect();
            assert_eq!(found, expected, "{role:?}");
        }
        assert!(allow(&with_role(Role::Member), Verb::Manage, Resource::Host).is_err());
        assert!(allow(&with_role(Role::Owner), Verb::Shell, Resource::Agent).is_err());
    }
}
