//! The command line and its environment variables; every option has both.

use std::path::PathBuf;

use agentapi_shared::SessionId;
use clap::builder::BoolishValueParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::posture::Missing;
use crate::settings::{Settings, SettingsError};

/// What the journal of a spawn keeps on disk at most: a viewer may be this far behind and lose nothing.
const JOURNAL_MB_DEFAULT: u64 = 256;

/// Runs coding agents on this host for an AgentAPI control plane.
#[derive(Debug, Parser)]
#[command(name = "agentapi-supervisor", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon. SIGTERM ends it and leaves the sessions running.
    Run(RunOptions),
    /// Ask the running daemon to stop every session on this host.
    StopAll(StopAllOptions),
    /// Make a host of this machine: exchange an enrolment token for a credential of its own.
    Enrol(EnrolOptions),
    /// Change this host's credential; the one before is good for ten minutes more.
    Rotate(RotateOptions),
    /// Check what this host can isolate, and whether it does.
    Doctor(DoctorOptions),
    /// Try to get out of the jail that this runs in; the self-test runs it.
    #[command(name = crate::canary::COMMAND, hide = true)]
    Canary {
        /// What to try, as JSON.
        aims: String,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RunOptions {
    /// Where sessions and their records live.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_STATE_DIR", default_value = "/var/lib/agentapi/supervisor")]
    pub(crate) state_dir: PathBuf,
    /// File with the control plane's link URL and this host's token, as JSON: {"url": "...", "token": "..."}.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_CREDENTIAL_FILE", required_unless_present = "check_config")]
    pub(crate) credential_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) policy: Policy,
    /// Say whether the settings are sound, with every mistake in them, and do nothing else.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// The agentapi-shim program; by default the one beside this program.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_SHIM")]
    pub(crate) shim: Option<PathBuf>,
    /// The agentapi-egress program; by default the one beside this program.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_EGRESS")]
    pub(crate) egress: Option<PathBuf>,
    /// Private addresses that sessions may reach by names that their rules allow, such as those of a registry inside. May be given several times.
    #[arg(
        long = "egress-allow-address",
        env = "AGENTAPI_SUPERVISOR_EGRESS_ALLOW_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub(crate) egress_allow_addresses: Vec<ipnet::IpNet>,
    /// Start sessions without isolation where this host cannot isolate them. Never on a machine that others use.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_UNSAFE_NO_JAIL", value_parser = BoolishValueParser::new())]
    pub(crate) unsafe_no_jail: bool,
    /// Journal kept on disk per spawn, in MiB.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_JOURNAL_MB", default_value_t = JOURNAL_MB_DEFAULT, value_parser = clap::value_parser!(u64).range(8..=65_536))]
    pub(crate) journal_mb: u64,
    /// End with this process.
    #[arg(long, value_name = "PID")]
    pub(crate) exit_with_parent: Option<i32>,
    /// What to log, as a tracing filter.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_LOG", default_value = "info")]
    pub(crate) log: String,
    /// How log lines are written, on standard error.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) exposure: Exposure,
}

/// What sessions may do and lack.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Policy {
    /// Settings, as TOML [default: /etc/agentapi/supervisor.toml, if it is there]
    #[arg(long, env = "AGENTAPI_SUPERVISOR_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A layer of the sandbox that may be missing, beside those of the settings. May be given several times.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_ALLOW_DEGRADED", value_delimiter = ',', value_name = "WORD")]
    pub(crate) allow_degraded: Vec<Missing>,
}

impl Policy {
    /// The settings, with what the command line adds to them.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        let mut settings = Settings::load(self.config.as_deref())?;
        settings.allow_degraded.extend(&self.allow_degraded);
        Ok(settings)
    }
}

/// What of the host sessions may see.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Exposure {
    /// A directory below which a session's workspace may lie. May be given several times.
    #[arg(
        long = "workspace-root",
        env = "AGENTAPI_SUPERVISOR_WORKSPACE_ROOTS",
        value_delimiter = ':',
        value_name = "DIR"
    )]
    pub(crate) workspace_roots: Vec<PathBuf>,
    /// A directory that every session sees read-only, beside the system's own. May be given several times.
    #[arg(
        long = "read-only-path",
        env = "AGENTAPI_SUPERVISOR_READ_ONLY_PATHS",
        value_delimiter = ':',
        value_name = "DIR"
    )]
    pub(crate) read_only_paths: Vec<PathBuf>,
    /// A directory put in front of every session's PATH. May be given several times.
    #[arg(long = "agent-path", env = "AGENTAPI_SUPERVISOR_AGENT_PATHS", value_delimiter = ':', value_name = "DIR")]
    pub(crate) agent_paths: Vec<PathBuf>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct StopAllOptions {
    /// The daemon's state directory.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_STATE_DIR", default_value = "/var/lib/agentapi/supervisor")]
    pub(crate) state_dir: PathBuf,
    /// Time between asking and killing, in milliseconds.
    #[arg(long, default_value_t = agentapi_shared::api::STOP_GRACE_MS, value_parser = clap::value_parser!(u64).range(0..=agentapi_shared::api::STOP_GRACE_MS_MAX))]
    pub(crate) grace_ms: u64,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct EnrolOptions {
    /// The control plane, such as https://agents.example.org.
    #[arg(long, env = "AGENTAPI_URL")]
    pub(crate) url: String,
    /// File with the token that `agentapi host enrol` made.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// Where the credential is written, for `run`; it must not be there yet.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_CREDENTIAL_FILE", value_name = "FILE")]
    pub(crate) credential_file: PathBuf,
    /// Send the token to another machine without TLS.
    #[arg(long)]
    pub(crate) allow_plain_http: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RotateOptions {
    /// The credential that `enrol` wrote; it is replaced as a whole.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_CREDENTIAL_FILE", value_name = "FILE")]
    pub(crate) credential_file: PathBuf,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DoctorOptions {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Compare a running session of this host with what it was given, instead; needs --state-dir.
    #[arg(long, value_name = "ID", requires = "state_dir")]
    pub(crate) session: Option<SessionId>,
    /// Only look what this host has, without trying it out in a jail.
    #[arg(long)]
    pub(crate) skip_canary: bool,
    /// The agentapi-shim program; by default the one beside this program.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_SHIM")]
    pub(crate) shim: Option<PathBuf>,
    /// A daemon's state directory: what agents told it of their versions is told here.
    #[arg(long, env = "AGENTAPI_SUPERVISOR_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) policy: Policy,
    #[command(flatten)]
    pub(crate) exposure: Exposure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

impl From<LogFormat> for agentapi_shared::runtime::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}
