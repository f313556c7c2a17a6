//! The command line of `agentapi org`, `member`, `invite`, `key` and `host`.

use std::path::PathBuf;

use super::sandbox_policy::PolicyArgs;
use agentapi_shared::api::KeyScope;
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId};
use clap::{Args, Subcommand, ValueEnum};

/// `agentapi org`.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// List the organisations that this key reaches
    #[command(visible_alias = "ls")]
    List,
    /// Show an organisation: settings, quotas
    Show(OneOrg),
    /// Make an organisation, as its owner
    #[command(after_help = "Example:\n  agentapi org create 'Analytical Engines'")]
    Create {
        /// Its name
        name: String,
    },
    /// Change name and settings; what is left out stays
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(OrgUpdateArgs),
}

const UPDATE_EXAMPLES: &str = "\
Examples:
  agentapi org update --idle 24h --retention-days 30
  agentapi org update --agent claude --agent codex       only these
  agentapi org update --idle none --agent any            no limits
  agentapi org update --sandbox-network filtered --sandbox-memory 4G --sandbox-mounts read-only

--idle stops sessions that nobody watched, typed into or changed for so long; --age stops
agents that were started so long ago, whatever they do.";

/// An organisation.
#[derive(Debug, Clone, Args)]
pub(crate) struct OneOrg {
    /// Its id [default: the one that the key is of]
    pub(crate) org: Option<OrgId>,
}

/// `org update`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrgUpdateArgs {
    #[command(flatten)]
    pub(crate) org: OneOrg,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Stop sessions that nobody had to do with for so long, such as 30m, 24h or 7d; none: never
    #[arg(long, value_name = "TIME", value_parser = limit)]
    pub(crate) idle: Option<Limit>,
    /// Stop agents that were started so long ago; none: never
    #[arg(long, value_name = "TIME", value_parser = limit)]
    pub(crate) age: Option<Limit>,
    /// Purge sessions so many days after their end; none: never
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) retention_days: Option<Limit>,
    /// An agent that may be started, of those alone that are named; repeatable; any: all may
    #[arg(long = "agent", value_name = "NAME")]
    pub(crate) agents: Vec<String>,
    #[command(flatten)]
    pub(crate) sandbox: PolicyArgs,
}

/// A number, or the word that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let wrong = || "expected a number with s, m, h or d, such as 24h, or none".to_owned();
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(|seconds| Limit(Some(seconds))).ok_or_else(wrong)
}

fn days(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    text.parse::<u32>().map(|days| Limit(Some(days.into()))).map_err(|_| "expected a number, or none".to_owned())
}

/// `agentapi member`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List who is in the organisation
    #[command(visible_alias = "ls")]
    List,
    /// Give a member another role
    #[command(after_help = "Example:\n  agentapi member role ada@example.com auditor")]
    Role {
        /// Id or mail address
        member: String,
        /// The role
        role: RoleName,
    },
    /// Remove a member; their keys and logins here end at once
    #[command(visible_alias = "rm")]
    Remove {
        /// Id or mail address
        member: String,
    },
}

/// What somebody is in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RoleName {
    /// Everything, and makes other owners
    Owner,
    /// Everything else
    Admin,
    /// Their own sessions and shared ones
    Member,
    /// Shared sessions, without typing
    Viewer,
    /// Records, without terminals
    Auditor,
    /// A program
    ServiceAccount,
}

impl RoleName {
    /// As the API has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// `agentapi invite`.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Invite the owner of a mail address; prints the link, this once
    #[command(after_help = "Example:\n  agentapi invite create ada@example.com --role member --expires 3d")]
    Create {
        /// Their address
        email: String,
        /// What they will be
        #[arg(long, default_value = "member")]
        role: RoleName,
        /// How long the link is good [default: 7d]
        #[arg(long, value_name = "TIME", value_parser = limit)]
        expires: Option<Limit>,
    },
    /// List invitations
    #[command(visible_alias = "ls")]
    List,
    /// Take an invitation back
    Revoke {
        /// Its id
        invitation: InvitationId,
    },
    /// Show which organisation an invitation is to, and as what, before it is accepted
    Show {
        /// The organisation of the link
        #[arg(long)]
        org: OrgId,
        /// File that holds the token of the link, so that it stands in no command line; - for standard input
        #[arg(value_name = "FILE")]
        token: PathBuf,
    },
    /// Accept an invitation to an address that is verified as yours
    Accept {
        /// The organisation of the link
        #[arg(long)]
        org: OrgId,
        /// File that holds the token of the link, so that it stands in no command line; - for standard input
        #[arg(value_name = "FILE")]
        token: PathBuf,
    },
}

/// `agentapi key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an API key that acts in your name; prints it, this once
    #[command(after_help = KEY_EXAMPLES)]
    Create {
        /// Its name
        name: String,
        /// What it is for, beside reading; repeatable [default: all that you may]
        #[arg(long = "scope", value_name = "read|sessions|organization", value_parser = scope)]
        scopes: Vec<KeyScope>,
        /// How long it is good, such as 90d [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = limit)]
        expires: Option<Limit>,
    },
    /// List your API keys; everybody's if you are owner or admin
    #[command(visible_alias = "ls")]
    List,
    /// End an API key, what was opened with it, and what was made with it: keys, login links, enrolment tokens
    Revoke {
        /// Its id
        key: ApiKeyId,
        /// Leave what was made with it, such as the key that takes its place
        #[arg(long)]
        keep_made: bool,
    },
}

const KEY_EXAMPLES: &str = "\
Examples:
  agentapi key create ci --scope sessions --expires 90d
  umask 077; agentapi key create laptop --json | jq -r .key > token

Two live keys may have one name: make the new one, change over, revoke the old one
(with --keep-made, if the old one made the new one).";

fn scope(text: &str) -> Result<KeyScope, String> {
    let all = [KeyScope::Read, KeyScope::Sessions, KeyScope::Organization];
    all.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| "expected read, sessions or organization".into())
}

/// `agentapi host`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List hosts
    #[command(visible_alias = "ls")]
    List,
    /// Make a token that one machine becomes a host of your organisation with; prints it, this once
    #[command(after_help = ENROL_EXAMPLES)]
    Enrol {
        /// The name that the host will have
        name: String,
        /// How long the token is good [default: 1h]
        #[arg(long, value_name = "TIME", value_parser = limit)]
        expires: Option<Limit>,
    },
    /// End a host of your organisation: its link closes, and its credential is good no longer
    Revoke {
        /// Its id
        host: HostId,
    },
}

const ENROL_EXAMPLES: &str = "\
Example:
  umask 077; agentapi host enrol worker-7 --json | jq -r .token > token
  scp token worker-7:
  ssh worker-7 agentapi-supervisor enrol --url https://agents.example.org --token-file token \\
    --credential-file /etc/agentapi/host-credential.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_nonsense_is_refused() {
        for (text, seconds) in [("60s", Some(60)), ("30m", Some(1800)), ("24h", Some(86400)), ("7d", Some(604_800))] {
            assert_eq!(limit(text), Ok(Limit(seconds)), "{text}");
        }
        assert_eq!((limit("none"), days("none"), days("30")), (Ok(Limit(None)), Ok(Limit(None)), Ok(Limit(Some(30)))));
        for text in ["", "5", "h", "-1h", "1.5h", "99999999999999999999d", "213503982334602d", "1é"] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert!(days("1d").is_err());
        assert_eq!(scope("read"), Ok(KeyScope::Read));
        assert!(scope("all").is_err());
    }
}
