//! The command line: what can be said, and what it says about itself. Nothing here does anything.

mod audit;
mod organization;
mod sandbox_policy;
mod session;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::failure::EXIT_CODES_HELP;

pub(crate) use audit::*;
pub(crate) use organization::*;
pub(crate) use sandbox_policy::*;
pub(crate) use session::*;

/// Runs coding agents in terminals of their own, on this machine and on others.
#[derive(Debug, Parser)]
#[command(name = "agentapi", version, max_term_width = 110, after_help = TOP_EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const TOP_EXAMPLES: &str = "\
Examples:
  agentapi up                                   start AgentAPI here, in the foreground
  agentapi session create claude --attach       start an agent and look at it
  agentapi session create -- bash -l            any command can be an agent
  agentapi session list
  agentapi session attach 5c7b1a2e

Server and token come from --url and --token-file, then AGENTAPI_URL and AGENTAPI_TOKEN,
then credentials.json of the data dir. Exit codes: agentapi help exit-codes.";

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GlobalArgs {
    /// The server, such as https://agents.example.org [env: AGENTAPI_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    pub(crate) url: Option<String>,
    /// File that holds the token [env: AGENTAPI_TOKEN holds the token itself]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub(crate) token_file: Option<PathBuf>,
    /// Data of this machine [env: AGENTAPI_DATA_DIR] [default: /var/lib/agentapi for root, else ~/.local/share/agentapi]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Server")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Send the token to another machine without TLS [env: AGENTAPI_ALLOW_PLAIN_HTTP=1]
    #[arg(long, global = true, help_heading = "Server")]
    pub(crate) allow_plain_http: bool,
    /// Answer in JSON, in the shapes of the REST API
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run AgentAPI on this machine
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Stop what `up` runs: sessions, supervisor and control plane, in this order
    Down(DownArgs),
    /// Say whether AgentAPI runs on this machine, and what it runs
    Status,
    /// Make a login link for the web console, and open it
    Open(OpenArgs),
    /// Check what this machine has and what is missing
    Doctor(DoctorArgs),
    /// Sessions: agents that run, or ran
    #[command(subcommand, alias = "sessions")]
    Session(SessionCommand),
    /// Agents that sessions can run
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Hosts that run sessions
    #[command(subcommand)]
    Host(HostCommand),
    /// Organisations: settings, quotas
    #[command(subcommand, alias = "organization")]
    Org(OrgCommand),
    /// Who is in your organisation
    #[command(subcommand, alias = "members")]
    Member(MemberCommand),
    /// Invitations to your organisation
    #[command(subcommand)]
    Invite(InviteCommand),
    /// API keys
    #[command(subcommand, alias = "keys")]
    Key(KeyCommand),
    /// The audit trail: who did what, and whether it is whole
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the version
    Version,
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  agentapi completions bash > ~/.local/share/bash-completion/completions/agentapi"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The exit codes of every command
    #[command(long_about = EXIT_CODES_HELP)]
    ExitCodes,
}

const UP_EXAMPLES: &str = "\
Examples:
  agentapi up
  agentapi up --detach --listen 127.0.0.1:0     in the background, on any free port
  agentapi up --workspace-root ~/src            sessions may work below ~/src

Ctrl-C and `agentapi down` stop the sessions, then the daemons; a second Ctrl-C does not
wait for the agents. Killed with -9, both daemons end too, and the sessions run on: the
next `agentapi up` finds them.";

/// `agentapi up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Address of API and console; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3284")]
    pub(crate) listen: String,
    /// Run in the background
    #[arg(long)]
    pub(crate) detach: bool,
    /// Leave the sessions running at the end, for the next `up`
    #[arg(long)]
    pub(crate) keep_sessions: bool,
    /// Run sessions without isolation: every agent can do what you can do
    #[arg(long)]
    pub(crate) unsafe_no_jail: bool,
    /// Directory below which sessions may work; repeatable [default: the current directory]
    #[arg(long = "workspace-root", value_name = "DIR")]
    pub(crate) workspace_roots: Vec<PathBuf>,
    /// This process is the background one that `--detach` started
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// `agentapi down`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DownArgs {
    /// Leave the sessions running, for the next `up`
    #[arg(long)]
    pub(crate) keep_sessions: bool,
    /// Kill the sessions at once
    #[arg(long, conflicts_with = "keep_sessions")]
    pub(crate) force: bool,
}

/// `agentapi open`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArgs {
    /// Only print the link
    #[arg(long)]
    pub(crate) no_browser: bool,
}

/// `agentapi doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArgs {
    /// Address that `up` would listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3284")]
    pub(crate) listen: String,
    /// Directory below which sessions may work; repeatable [default: the current directory]
    #[arg(long = "workspace-root", value_name = "DIR")]
    pub(crate) workspace_roots: Vec<PathBuf>,
}

/// `agentapi agent`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// List agents, and where they are installed
    List,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// What of a command and those below it no page tells.
    fn untold(command: &clap::Command, told: &HashSet<&str>, missing: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let shown = below.get_arguments().filter(|argument| !argument.is_hide_set());
            let options = shown.filter_map(clap::Arg::get_long).map(|long| format!("--{long}"));
            let words = options.chain([below.get_name().to_owned()]);
            let is_told = |word: &str| told.contains(word);
            let name = below.get_name();
            missing.extend(words.filter(|word| !is_told(word)).map(|word| format!("{name}: {word}")));
            untold(below, told, missing);
        }
    }

    /// The words of a page that stand in code, as spans and as blocks. Prose has many a word that is a command's name too.
    fn words_in_code(page: &str) -> HashSet<&str> {
        let (mut code, mut in_block) = (Vec::new(), false);
        for line in page.lines() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            } else if in_block {
                code.push(line);
            } else {
                code.extend(line.split('`').skip(1).step_by(2));
            }
        }
        let is_of_a_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        code.into_iter().flat_map(|text| text.split(move |c| !is_of_a_word(c))).collect()
    }

    #[test]
    fn words_of_prose_are_in_no_code() {
        let page = "say show, and `list --all`\n```sh\nagentapi key revoke\n```\nor wait `exit`";
        let mut words: Vec<&str> = words_in_code(page).into_iter().filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        assert_eq!(words, ["--all", "agentapi", "exit", "key", "list", "revoke"]);
    }

    #[test]
    fn every_command_and_option_is_told() {
        let told = [include_str!("../../docs/cli.md"), include_str!("../../docs/configuration.md")].concat();
        let mut missing = Vec::new();
        untold(&Cli::command(), &words_in_code(&told), &mut missing);
        assert!(missing.is_empty(), "in neither docs/cli.md nor docs/configuration.md: {missing:?}");
    }

    #[test]
    fn words_after_two_dashes_are_the_agents() {
        let cli = Cli::try_parse_from(["agentapi", "session", "create", "--", "bash", "-l", "--json"]).unwrap();
        assert!(!cli.global.json);
        let Command::Session(SessionCommand::Create(create)) = cli.command else { panic!("not create") };
        assert_eq!((create.agent, create.words), (None, vec!["bash".into(), "-l".into(), "--json".into()]));
        let cli = Cli::try_parse_from(["agentapi", "session", "create", "claude", "--json", "--", "-p", "x"]).unwrap();
        assert!(cli.global.json);
        let Command::Session(SessionCommand::Create(create)) = cli.command else { panic!("not create") };
        assert_eq!((create.agent.as_deref(), create.words), (Some("claude"), vec!["-p".into(), "x".into()]));
    }

    #[test]
    fn a_token_has_no_place_in_argv() {
        assert!(Cli::try_parse_from(["agentapi", "--token", "x", "status"]).is_err());
    }
}
