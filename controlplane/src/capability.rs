//! Roles and what each may do: the table in `shared/policy/capabilities.toml`, which the Postgres schema has as well.
//!
//! Roles are no ladder: an auditor reads every session's record and has no terminal. What a caller may do with one certain session is decided in
//! `domain`; this is only the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What somebody is in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, and makes other owners.
    Owner,
    /// Everything else.
    Admin,
    /// Their own sessions and shared ones.
    Member,
    /// Shared sessions, without typing.
    Viewer,
    /// Records, without terminals.
    Auditor,
    /// A program.
    ServiceAccount,
}

impl Role {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Admin, Self::Member, Self::Viewer, Self::Auditor, Self::ServiceAccount];

    /// The word of it, everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::ServiceAccount => "service_account",
        }
    }

    /// Whether it has a capability.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        TABLE.get(&capability).is_some_and(|roles| roles.contains(&self))
    }
}

/// No role has this name.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no such role")]
pub struct NoSuchRole;

impl std::str::FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NoSuchRole)
    }
}

/// Something that roles may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Capability {
    /// Make sessions.
    #[serde(rename = "session.create")]
    SessionCreate,
    /// See those of one's own.
    #[serde(rename = "session.view_own")]
    SessionViewOwn,
    /// See what the whole organisation is shown.
    #[serde(rename = "session.view_shared")]
    SessionViewShared,
    /// See every one.
    #[serde(rename = "session.view_all")]
    SessionViewAll,
    /// Change, stop, restart and purge those of one's own.
    #[serde(rename = "session.manage_own")]
    SessionManageOwn,
    /// The same with every one.
    #[serde(rename = "session.manage_all")]
    SessionManageAll,
    /// Look at the terminals of sessions that one sees.
    #[serde(rename = "terminal.view")]
    TerminalView,
    /// Type into them.
    #[serde(rename = "terminal.type")]
    TerminalType,
    /// Answer an agent's questions.
    #[serde(rename = "session.approve")]
    SessionApprove,
    /// Read and write files of a workspace.
    #[serde(rename = "session.files")]
    SessionFiles,
    /// Run commands beside the agent.
    #[serde(rename = "session.shell")]
    SessionShell,
    /// See the organisation.
    #[serde(rename = "organization.view")]
    OrganizationView,
    /// Change its settings.
    #[serde(rename = "organization.manage")]
    OrganizationManage,
    /// See who is in it.
    #[serde(rename = "member.view")]
    MemberView,
    /// Invite, remove, and give roles.
    #[serde(rename = "member.manage")]
    MemberManage,
    /// Make and unmake owners.
    #[serde(rename = "owner.grant")]
    OwnerGrant,
    /// Make keys for oneself.
    #[serde(rename = "api_key.create")]
    ApiKeyCreate,
    /// See and revoke everybody's keys.
    #[serde(rename = "api_key.manage")]
    ApiKeyManage,
    /// See hosts.
    #[serde(rename = "host.view")]
    HostView,
    /// Enrol and revoke them.
    #[serde(rename = "host.manage")]
    HostManage,
    /// See MCP servers.
    #[serde(rename = "mcp.view")]
    McpView,
    /// Change them.
    #[serde(rename = "mcp.manage")]
    McpManage,
    /// See system prompts.
    #[serde(rename = "prompt.view")]
    PromptView,
    /// Change them.
    #[serde(rename = "prompt.manage")]
    PromptManage,
    /// Read the audit trail.
    #[serde(rename = "audit.read")]
    AuditRead,
}

/// Who has what. A table that cannot be read gives nobody anything; a test reads it.
static TABLE: LazyLock<BTreeMap<Capability, BTreeSet<Role>>> =
    LazyLock::new(|| toml::from_str(include_str!("../../shared/policy/capabilities.toml")).unwrap_or_default());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_whole_and_roles_are_no_ladder() {
        let lines = include_str!("../../shared/policy/capabilities.toml").lines();
        assert_eq!(TABLE.len(), lines.filter(|line| line.starts_with('"')).count());
        assert!(Role::ALL.iter().all(|role| role.as_str().parse::<Role>().unwrap() == *role));
        assert!("root".parse::<Role>().is_err() && "".parse::<Role>().is_err());
        assert!(Role::Auditor.has(Capability::SessionViewAll) && !Role::Auditor.has(Capability::TerminalView));
        assert!(Role::Viewer.has(Capability::TerminalView) && !Role::Viewer.has(Capability::SessionViewAll));
        assert!(!Role::Admin.has(Capability::OwnerGrant));
    }
}
