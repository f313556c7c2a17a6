//! `agentapi`: runs AgentAPI on this machine, and talks to it here and elsewhere.
//!
//! One thread runs everything: `up` needs it (its daemons end with the thread that started them), and nothing here would gain from more.

mod args;
mod attach;
mod audit;
mod backoff;
mod client;
mod config;
mod datadir;
mod doctor;
mod failure;
mod fleet;
mod open;
mod organization;
mod output;
mod session;
mod sys;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use config::Environment;

fn main() -> ExitCode {
    let cli = Cli::parse();
    install_tls_provider();
    let ended = run(cli);
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let (code, words) = failure::describe(&error);
    if let Some(words) = words {
        output::note(&format!("agentapi: {words}"));
    }
    ExitCode::from(code)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let env = Environment::of_process();
    let ended = runtime.block_on(dispatch(cli, &env));
    // A name that is being resolved in a blocking thread must not hold up the end.
    runtime.shutdown_background();
    ended
}

async fn dispatch(cli: Cli, env: &Environment) -> anyhow::Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => up::up(args, global, env).await,
        Command::Down(args) => up::down(args, global, env).await,
        Command::Status => up::status(global, env).await,
        Command::Open(args) => open::open(args, global, env).await,
        Command::Doctor(args) => doctor::doctor(args, global, env).await,
        Command::Session(command) => session::session(command, global, env).await,
        Command::Agent(command) => fleet::agent(command, global, env).await,
        Command::Host(command) => fleet::host(command, global, env).await,
        Command::Org(command) => organization::org(command, global, env).await,
        Command::Member(command) => organization::member(command, global, env).await,
        Command::Invite(command) => organization::invite(command, global, env).await,
        Command::Key(command) => organization::key(command, global, env).await,
        Command::Audit(command) => audit::audit(command, global, env).await,
        Command::Version => version(global.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "agentapi", &mut script);
            output::bytes(&script);
            Ok(())
        }
        Command::ExitCodes => {
            output::line(failure::EXIT_CODES_HELP);
            Ok(())
        }
    }
}

fn version(json: bool) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        return output::json(&serde_json::json!({ "version": version }));
    }
    output::line(&format!("agentapi {version}"));
    Ok(())
}

/// TLS needs its cryptography chosen once per process, before the first connection.
fn install_tls_provider() {
    // A second call (tests) keeps the first choice.
    let _kept = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
