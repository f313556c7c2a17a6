//! The command line.

use std::path::PathBuf;

use agentapi_shared::jail::SLOT_UID_BASE;
use clap::Parser;
use ipnet::IpNet;

/// The user and group it becomes: the last id below those of sessions, and above every distribution's users and subordinate ids. It needs no
/// entry in /etc/passwd, owns no file, and is in no session's block.
const ID_DEFAULT: u32 = SLOT_UID_BASE - 1;

/// Serves the egress of sessions. Started by agentapi-supervisor.
#[derive(Debug, Clone, Parser)]
#[command(name = "agentapi-egress", version)]
pub struct Args {
    /// Where the supervisor connects; made here, in a directory that only the supervisor's user reaches.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// User to become, if started as root.
    #[arg(long, default_value_t = ID_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uid: u32,
    /// Group to become, if started as root.
    #[arg(long, default_value_t = ID_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) gid: u32,
    /// Addresses that names may lead to although they are private, such as those of a registry inside; metadata services stay refused. May be
    /// given several times.
    #[arg(long = "allow-address", value_name = "CIDR")]
    pub(crate) allow_addresses: Vec<IpNet>,
    /// Said to every supervisor that comes, so that it sees whether this gateway is the one that it would start.
    #[arg(long, default_value = "")]
    pub(crate) configuration: String,
    /// What to log, as a tracing filter.
    #[arg(long, default_value = "info")]
    pub(crate) log: String,
}
