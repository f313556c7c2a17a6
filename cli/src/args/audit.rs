//! `agentapi audit`: what can be said.

use std::path::PathBuf;

use agentapi_shared::audit::PublicKey;
use clap::{Args, Subcommand, ValueEnum};

/// `agentapi audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List records: who did what, when
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(AuditListArgs),
    /// Write the trail to a file that `verify` reads
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(AuditExportArgs),
    /// Say whether an exported trail is what was recorded, and how far
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(AuditVerifyArgs),
    /// Show the public key that the server signs exports and checkpoints with
    Key,
}

const LIST_EXAMPLES: &str = "\
Examples:
  agentapi audit list --action request.refused
  agentapi audit list --session 0197c1a2-7d4e-7c3b-9f52-3d5c7b1a2e4f --order oldest
  agentapi audit list --from 2026-01-31T00:00:00Z --json";

const EXPORT_EXAMPLES: &str = "\
Examples:
  agentapi audit export --output trail.ndjson
  agentapi audit export | agentapi audit verify -
  agentapi audit export --after 12034 --output since.ndjson";

const VERIFY_EXAMPLES: &str = "\
Examples:
  agentapi audit verify trail.ndjson
  agentapi audit key > server.pub
  agentapi audit verify trail.ndjson --key server.pub
  agentapi audit verify trail.ndjson --key server.pub --checkpoints audit-checkpoints.jsonl

Asks no server. An export is signed: with the server's key, no change of the file goes
unseen, nor that it was cut or dated anew. A checkpoint is the signed end of a chain, kept
outside the database: up to the last one, no change of the trail goes unseen either, not
even by whoever owns the database. Take key and checkpoints from where the server keeps
them, not from the export: without them the file vouches for itself. Ends with 0 if nothing
is wrong, with 8 if the trail is not what was recorded (the first bad record is named), with
1 if it cannot be read.";

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
}

impl Order {
    /// As the API has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        }
    }
}

/// `audit list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditListArgs {
    /// Only of this user, host, job or database role
    #[arg(long, value_name = "ID")]
    pub(crate) actor: Option<String>,
    /// Only this action, such as session.create
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only about this session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only about this host
    #[arg(long, value_name = "ID")]
    pub(crate) host: Option<String>,
    /// Only what happened then or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only what happened before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// What comes first
    #[arg(long, value_enum, default_value = "newest")]
    pub(crate) order: Order,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// `audit export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditExportArgs {
    /// Only what comes after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
    /// Where to; standard output if absent
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `audit verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditVerifyArgs {
    /// An exported trail; - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Checkpoints that were kept elsewhere: audit-checkpoints.jsonl of the server
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoints: Option<PathBuf>,
    /// The key that the export and its checkpoints must be signed with: audit-checkpoints.pub of the server, or the key itself
    #[arg(long, alias = "public-key", value_name = "FILE|KEY")]
    pub(crate) key: Option<KeySource>,
}

/// Where a key is.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// Here.
    Key(PublicKey),
    /// In a file.
    File(PathBuf),
}

impl std::str::FromStr for KeySource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Key))
    }
}
