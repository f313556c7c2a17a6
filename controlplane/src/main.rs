//! `agentapi-controlplane`: reads its options, serves until it is told to end.

use std::path::Path;
use std::process::ExitCode;

use agentapi_controlplane::admin::{self, AdminVerb};
use agentapi_controlplane::api::openapi_json;
use agentapi_controlplane::config::{Cli, Config, Verb};
use agentapi_controlplane::identity::project::ProjectKeys;
use agentapi_controlplane::migrate;
use agentapi_controlplane::server::Server;
use agentapi_shared::runtime::{Notice, exit_with_parent, init_telemetry, notify_manager};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // First of all: a parent that died meanwhile must not leave a server behind.
    if let Some(parent) = cli.options.exit_with_parent
        && let Err(error) = exit_with_parent(parent)
    {
        return fail(&error);
    }
    let admin = match cli.command {
        Some(Verb::Openapi) => return say(&openapi_json()),
        Some(Verb::Migrate { database_url, database_ca }) => {
            return run_migrations(database_url.as_deref(), database_ca.as_deref());
        }
        Some(Verb::Admin(verb)) => Some(verb),
        None => None,
    };
    let check_only = cli.options.check_config;
    let config = match Config::resolve(cli.options, |path| std::fs::read_to_string(path)) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let project = match ProjectKeys::open(|name| std::env::var(name).ok()) {
        Ok(project) => project,
        Err(error) => return fail(&error),
    };
    if check_only {
        return ExitCode::SUCCESS;
    }
    init_telemetry(&config.log_filter, config.log_format);
    match tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build() {
        Ok(runtime) => match admin {
            Some(verb) => runtime.block_on(administer(&config, project, verb)),
            None => runtime.block_on(serve(&config, project)),
        },
        Err(error) => fail(&error),
    }
}

/// Says which migrations are new, one a line.
fn run_migrations(database_url: Option<&str>, authority: Option<&Path>) -> ExitCode {
    let url = match migrate::database_url(database_url, std::env::var(migrate::URL_VARIABLE).ok()) {
        Ok(url) => url,
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // Nothing is lost if nobody reads it.
    let tell = |waiting: &migrate::Waiting| {
        let _written = note(&format!("agentapi-controlplane: {waiting}"));
    };
    match runtime.block_on(migrate::migrate(&url, authority, tell)) {
        Ok(applied) => {
            let lines = applied.new.iter().map(|new| format!("applied {}_{}\n", new.version, new.name));
            let end = format!("{} applied now, {} before", applied.new.len(), applied.before);
            say(&(lines.collect::<String>() + &end))
        }
        Err(error) => fail(&error),
    }
}

/// Half of the processors: one worker moves hundreds of megabytes a second, and agents on the same machine want the others.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

async fn administer(config: &Config, project: Option<ProjectKeys>, verb: AdminVerb) -> ExitCode {
    match admin::run(config, project, verb).await {
        Ok(answer) => answer.map_or(ExitCode::SUCCESS, |answer| say(&answer)),
        Err(error) => fail(&error),
    }
}

async fn serve(config: &Config, project: Option<ProjectKeys>) -> ExitCode {
    // Signals are taken from here on, so that one during the start is not lost.
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return fail(&error),
    };
    let server = match Server::bind(config, project).await {
        Ok(server) => server,
        Err(error) => return fail(&error),
    };
    let ready = serde_json::json!({ "ready": format!("http://{}", server.address()) });
    if say(&ready.to_string()) == ExitCode::FAILURE {
        return ExitCode::FAILURE;
    }
    notify_manager(Notice::Ready);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify_manager(Notice::Stopping);
    };
    server.run(stop).await;
    ExitCode::SUCCESS
}

/// One line on stdout.
fn say(line: &str) -> ExitCode {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line on stderr.
fn note(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{line}")
}

/// The whole chain of an error, once, on stderr: logging may not have begun.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("agentapi-controlplane: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // Nothing is left to be done if stderr is gone too.
    let _written = note(&text);
    ExitCode::FAILURE
}
