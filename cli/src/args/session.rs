//! The command line of `agentapi session`.

use std::path::PathBuf;
use std::time::Duration;

use agentapi_shared::api::{MountRequest, NetworkMode};
use agentapi_shared::egress::EgressVerdict;
use agentapi_shared::{SpawnState, WindowSize};
use clap::{Args, Subcommand, ValueEnum};

use crate::attach::DetachKeys;

/// `agentapi session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Start an agent in a new session
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<CreateArgs>),
    /// List sessions
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one session
    Show(OneSession),
    /// Look at a session's terminal and type into it
    #[command(after_help = ATTACH_EXAMPLES)]
    Attach(AttachArgs),
    /// Type into a session
    #[command(after_help = INPUT_EXAMPLES)]
    Input(InputArgs),
    /// Print a session's screen
    Screen(ScreenArgs),
    /// List where a session's programs connected to, and what they were refused
    #[command(after_help = EGRESS_EXAMPLES)]
    Egress(EgressArgs),
    /// Wait until a session runs, ends, or shows a text
    #[command(after_help = WAIT_EXAMPLES)]
    Wait(WaitArgs),
    /// Run the agent of a session again, in the same workspace
    Restart(RestartArgs),
    /// End the agent of a session; its record and last screen stay
    Stop(StopArgs),
    /// Remove a session with its record, output and private workspace
    #[command(visible_alias = "rm")]
    Purge(PurgeArgs),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  agentapi session create claude --attach
  agentapi session create claude --workspace . --name fix-login -- --model opus
  agentapi session create --label team=web --env ANTHROPIC_API_KEY -- bash -l

Without an agent, the words after -- are the command; with one, they are arguments for
it. `--env NAME` takes the value from your own environment, so that a secret stands in no
command line.";

const LIST_EXAMPLES: &str = "\
Examples:
  agentapi session list --all
  agentapi session list --label team=web --json

An id is shown by its last characters, which tell sessions apart; every command takes
those, the whole id, its first characters, or the name.";

const ATTACH_EXAMPLES: &str = "\
Examples:
  agentapi session attach fix-login
  agentapi session attach 5c7b1a2e --read-only
  agentapi session attach 5c7b1a2e --detach-keys ctrl-p,ctrl-q

Ctrl-\\ detaches and leaves the agent running. While the connection is lost the terminal
says so, and tries again.";

const INPUT_EXAMPLES: &str = "\
Examples:
  agentapi session input 5c7b1a2e --text 'run the tests' --keys Enter
  agentapi session input 5c7b1a2e --keys C-c
  echo ls | agentapi session input 5c7b1a2e";

const WAIT_EXAMPLES: &str = "\
Examples:
  agentapi session wait build --for ended --exit-status
  agentapi session wait 5c7b1a2e --text 'Do you want to proceed?' --timeout 60s";

const EGRESS_EXAMPLES: &str = "\
Examples:
  agentapi session egress fix-login
  agentapi session egress 5c7b1a2e --verdict denied --json";

/// A session by id, part of an id, or name.
#[derive(Debug, Clone, Args)]
pub(crate) struct OneSession {
    /// Id, first or last characters of it, or name
    pub(crate) session: String,
}

/// `session create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// An agent of `agentapi agent list`; none: the words after -- are the command
    pub(crate) agent: Option<String>,
    /// Look at it at once
    #[arg(long, conflicts_with = "wait")]
    pub(crate) attach: bool,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// A variable for the agent, or the name of one of yours; repeatable
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Columns and rows [default: 120x40; with --attach those of your terminal]
    #[arg(long, value_name = "COLSxROWS", value_parser = size)]
    pub(crate) size: Option<WindowSize>,
    /// Work in this directory of the host [default: a new private one]
    #[arg(long, value_name = "PATH")]
    pub(crate) workspace: Option<PathBuf>,
    /// Answer only when it runs, or could not
    #[arg(long)]
    pub(crate) wait: bool,
    /// Everybody of your organisation sees it [default: you, and those who see all]
    #[arg(long)]
    pub(crate) shared: bool,
    /// Command, or arguments for the agent
    #[arg(last = true, value_name = "COMMAND or ARGS")]
    pub(crate) words: Vec<String>,
    // Last: its heading in the help goes on to what follows.
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// How a session is isolated; each only ever tightens what the host's profile allows.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxArgs {
    /// A profile of the host, such as dev or strict [default: dev]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Where it may connect to [default: as the profile says]
    #[arg(long, value_name = "off|filtered|host", value_parser = network)]
    pub(crate) network: Option<NetworkMode>,
    /// A directory of the host; read-only without :rw; repeatable
    #[arg(long = "mount", value_name = "SOURCE[:TARGET][:rw]", value_parser = mount)]
    pub(crate) mounts: Vec<MountRequest>,
    /// Memory and swap, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Processors, such as 0.5 or 2
    #[arg(long, value_name = "NUMBER", value_parser = cpu_percent)]
    pub(crate) cpus: Option<u32>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<u32>,
    /// Private workspace and HOME together, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) disk: Option<u64>,
}

/// `session list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Ended ones too
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Only those in this state
    #[arg(long, value_parser = state)]
    pub(crate) state: Option<SpawnState>,
    /// Only those of this agent
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Only those on this host (its id)
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Only those with this label; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
}

/// `session attach`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// Look, and type nothing
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The keys that detach, one after the other
    #[arg(long, value_name = "KEY[,KEY]", default_value = "ctrl-\\")]
    pub(crate) detach_keys: DetachKeys,
    /// Let the agent write to your clipboard (OSC 52)
    #[arg(long)]
    pub(crate) clipboard: bool,
}

/// `session input`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InputArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// Text, typed as it is: no newline is added
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Keys such as Enter, C-c, Up, F5, M-x; typed after the text
    #[arg(long, value_name = "KEY[,KEY]", value_delimiter = ',')]
    pub(crate) keys: Vec<String>,
}

/// `session screen`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScreenArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// With colours and styles
    #[arg(long)]
    pub(crate) ansi: bool,
    /// Rows of scrollback before the screen
    #[arg(long, value_name = "ROWS")]
    pub(crate) scrollback: Option<u32>,
    /// The screen of an earlier run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) spawn: Option<u32>,
}

/// `session egress`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EgressArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// Only those: allowed, denied, would_deny or failed
    #[arg(long)]
    pub(crate) verdict: Option<EgressVerdict>,
    /// At most so many, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// `session wait`.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "ended", conflicts_with = "text")]
    pub(crate) target: WaitFor,
    /// Wait until this text stands on the screen or in the last 1,000 rows before it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Give up after this time, such as 90s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// End with the exit status of the program
    #[arg(long, conflicts_with = "text")]
    pub(crate) exit_status: bool,
}

/// What `session wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// The agent runs
    Running,
    /// The agent ended
    Ended,
}

/// `session restart`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) session: OneSession,
    /// Stop the agent first if it runs
    #[arg(long)]
    pub(crate) stop: bool,
}

/// `session stop`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StopArgs {
    /// Ids, first or last characters of them, or names
    #[arg(required = true)]
    pub(crate) sessions: Vec<String>,
    /// Kill at once
    #[arg(long)]
    pub(crate) force: bool,
    /// Time the agent gets to end by itself, such as 5s
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "force")]
    pub(crate) grace: Option<Duration>,
    /// Do not wait until it has ended
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `session purge`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PurgeArgs {
    /// Ids, first or last characters of them, or names
    #[arg(required = true)]
    pub(crate) sessions: Vec<String>,
    /// Kill the agent at once if it runs
    #[arg(long)]
    pub(crate) force: bool,
}

pub(super) fn network(text: &str) -> Result<NetworkMode, String> {
    let found = NetworkMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    found.ok_or_else(|| "expected off, filtered or host".to_owned())
}

/// `SOURCE`, `SOURCE:TARGET`, either with `:rw` or `:ro` behind it.
fn mount(text: &str) -> Result<MountRequest, String> {
    let (paths, writable) = match (text.strip_suffix(":rw"), text.strip_suffix(":ro")) {
        (Some(paths), _) => (paths, true),
        (None, Some(paths)) => (paths, false),
        (None, None) => (text, false),
    };
    let (source, target) = paths.split_once(':').map_or((paths, None), |(source, target)| (source, Some(target)));
    let absolute = |path: &str| path.starts_with('/') && !path.contains(':');
    if !absolute(source) || !target.is_none_or(absolute) {
        return Err("expected SOURCE[:TARGET][:rw] with absolute paths".to_owned());
    }
    Ok(MountRequest { source: source.to_owned(), target: target.map(str::to_owned), writable })
}

/// `4G`, `512M`, `64K`, or bytes; powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 512M or 4G".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// `2`, `1.5`, `0.25`: percent of one processor, exactly.
pub(super) fn cpu_percent(text: &str) -> Result<u32, String> {
    let wrong = || "expected a number of processors such as 0.5 or 2".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 2 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let hundredths: u32 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
    whole.checked_mul(100).and_then(|percent| percent.checked_add(hundredths)).filter(|all| *all > 0).ok_or_else(wrong)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn size(text: &str) -> Result<WindowSize, String> {
    let (cols, rows) = text.split_once('x').ok_or("expected COLSxROWS, such as 120x40")?;
    let number = |text: &str| text.parse::<u16>().map_err(|_| "expected COLSxROWS, such as 120x40".to_owned());
    WindowSize::new(number(cols)?, number(rows)?).map_err(|error| error.to_string())
}

fn state(text: &str) -> Result<SpawnState, String> {
    let words = SpawnState::ALL.map(SpawnState::as_str).join(", ");
    SpawnState::parse(text).ok_or(format!("expected one of {words}"))
}

/// `90s`, `5m`, `1h`, `250ms`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let wrong = || "expected a time such as 90s, 5m, 1h or 250ms".to_owned();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_or_refused() {
        assert_eq!(size("120x40").unwrap(), WindowSize::DEFAULT);
        for bad in ["120", "0x40", "120x70000", "x", "120x-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        let times = ["250ms", "90s", "90", "5m", "1h"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(times, [250, 90_000, 90_000, 300_000, 3_600_000]);
        for bad in ["", "s", "5d", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_sandbox_is_given_is_read_or_refused() {
        let read = |text: &str| mount(text).map(|mount| (mount.source, mount.target, mount.writable)).unwrap();
        assert_eq!(read("/srv/data"), ("/srv/data".into(), None, false));
        assert_eq!(read("/srv/data:rw"), ("/srv/data".into(), None, true));
        assert_eq!(read("/srv/data:/data:ro"), ("/srv/data".into(), Some("/data".into()), false));
        assert_eq!(read("/srv/data:/data:rw"), ("/srv/data".into(), Some("/data".into()), true));
        for bad in ["srv", ":rw", "/a:b", "/a:/b:/c", "/a:/b:wr"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert_eq!(
            ["64K", "512M", "4G", "4GiB", "10"].map(|text| bytes(text).unwrap()),
            [65_536, 1 << 29, 1 << 32, 1 << 32, 10]
        );
        assert_eq!(["2", "0.5", "1.25", "0.01"].map(|text| cpu_percent(text).unwrap()), [200, 50, 125, 1]);
        for bad in ["", "G", "4X", "-1G", "99999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "0.0", "0.001", "-1", "1.x", "99999999"] {
            assert!(cpu_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_keep_everything_after_the_first_sign() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(pair("=b").is_err());
        assert!(pair("ab").is_err());
    }
}
