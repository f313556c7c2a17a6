//! `session create`.

use std::collections::BTreeMap;

use agentapi_shared::api::{
    CUSTOM_AGENT, CreateSession, Limits, SandboxRequest, Session, Visibility, Workspace, WorkspaceSource,
};
use agentapi_shared::{SpawnState, WindowSize};
use anyhow::Context as _;

use super::Context;
use crate::args::{CreateArgs, SandboxArgs};
use crate::attach::{self, DetachKeys};
use crate::config::Environment;
use crate::failure::{ExitKind, Failure};
use crate::output::{self, Format, clean};

pub(super) async fn create(context: &Context<'_>, args: &CreateArgs) -> anyhow::Result<()> {
    let own_size = if args.attach {
        if !super::at_a_terminal() {
            return Err(Failure::new(ExitKind::Usage, "--attach needs a terminal; leave it out in scripts").into());
        }
        attach::own_size()
    } else {
        None
    };
    let body = body(args, context.env, own_size)?;
    let session = context.client.create(&body, args.wait).await?;
    if args.attach {
        let options = attach::Options { read_only: false, detach_keys: DetachKeys::default(), clipboard: false };
        return attach::attach(&context.client, session.id, &options).await;
    }
    match context.format {
        Format::Json => output::json(&session)?,
        Format::Text => output::line(&session.id.to_string()),
    }
    if args.wait { ran(&session) } else { Ok(()) }
}

/// A failure if the session was to run and could not.
fn ran(session: &Session) -> anyhow::Result<()> {
    match session.state {
        SpawnState::Failed | SpawnState::Lost => {
            Err(Failure::new(ExitKind::Failure, format!("the session could not run: {}", why(session))).into())
        }
        SpawnState::Pending | SpawnState::Starting => {
            Err(Failure::new(ExitKind::TimedOut, format!("the session does not run yet: {}", why(session))).into())
        }
        _ => Ok(()),
    }
}

/// Why a session is as it is, for people.
pub(super) fn why(session: &Session) -> String {
    let said = session.exit.as_ref().map(|exit| exit.detail.as_str()).filter(|detail| !detail.is_empty());
    clean(said.or(session.state_reason.as_deref()).unwrap_or(session.state.as_str()))
}

fn body(args: &CreateArgs, env: &Environment, own_size: Option<WindowSize>) -> anyhow::Result<CreateSession> {
    let agent = args.agent.clone().unwrap_or_else(|| CUSTOM_AGENT.to_owned());
    let custom = agent == CUSTOM_AGENT;
    if custom && args.words.is_empty() {
        let words =
            "which agent? Name one of `agentapi agent list`, or give a command: agentapi session create -- bash -l";
        return Err(Failure::new(ExitKind::Usage, words).into());
    }
    let (command, words) = if custom { (args.words.clone(), Vec::new()) } else { (Vec::new(), args.words.clone()) };
    Ok(CreateSession {
        agent,
        command,
        args: words,
        name: args.name.clone(),
        labels: args.labels.iter().cloned().collect(),
        env: variables(&args.env, env)?,
        size: args.size.or(own_size),
        workspace: workspace(args)?,
        sandbox: sandbox(&args.sandbox),
        visibility: args.shared.then_some(Visibility::Organization),
    })
}

/// None if nothing was asked for.
fn sandbox(args: &SandboxArgs) -> Option<SandboxRequest> {
    let asked = SandboxRequest {
        profile: args.profile.clone(),
        network: args.network,
        mounts: args.mounts.clone(),
        limits: Limits {
            memory_bytes: args.memory,
            pids: args.pids,
            cpu_percent: args.cpus,
            disk_bytes: args.disk,
            io_bytes_per_second: None,
        },
    };
    (asked != SandboxRequest::default()).then_some(asked)
}

/// A relative path is one of this machine, and made absolute here: the server could not know what it is relative to.
fn workspace(args: &CreateArgs) -> anyhow::Result<Option<Workspace>> {
    let Some(path) = &args.workspace else { return Ok(None) };
    let path = if path.is_absolute() {
        path.clone()
    } else {
        std::fs::canonicalize(path).with_context(|| format!("workspace {}", path.display()))?
    };
    let path = path.to_str().context("the workspace's path is not UTF-8")?.to_owned();
    Ok(Some(Workspace { source: WorkspaceSource::Path, path: Some(path) }))
}

/// `NAME=VALUE`, or `NAME` with the value of our own environment.
fn variables(given: &[String], env: &Environment) -> Result<BTreeMap<String, String>, Failure> {
    let usage = |words: String| Failure::new(ExitKind::Usage, words);
    let one = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(usage("--env needs NAME or NAME=VALUE".to_owned())),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            let value =
                env.raw(word).ok_or_else(|| usage(format!("--env {word}: it is not set in your environment")))?;
            let value = value.to_str().ok_or_else(|| usage(format!("--env {word}: its value is not UTF-8")))?;
            Ok((word.clone(), value.to_owned()))
        }
    };
    given.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, SessionCommand};
    use agentapi_shared::api::NetworkMode;
    use clap::Parser as _;

    fn parse(words: &[&str]) -> anyhow::Result<CreateSession> {
        let all = ["agentapi", "session", "create"].iter().chain(words);
        let Command::Session(SessionCommand::Create(args)) = Cli::try_parse_from(all)?.command else {
            panic!("not create")
        };
        body(&args, &Environment::with(&[("KEY", "secret"), ("EMPTY", "")]), None)
    }

    #[test]
    fn a_command_makes_it_custom_and_an_agent_takes_arguments() {
        let custom = parse(&["--", "bash", "-l"]).unwrap();
        assert_eq!((custom.agent.as_str(), custom.command.len(), custom.args.len()), ("custom", 2, 0));
        let claude = parse(&["claude", "--", "-p"]).unwrap();
        assert_eq!((claude.agent.as_str(), claude.command.len(), claude.args), ("claude", 0, vec!["-p".to_owned()]));
        assert!(parse(&[]).is_err());
        assert!(parse(&["custom"]).is_err());
    }

    #[test]
    fn values_come_from_the_command_line_or_the_environment() {
        let body = parse(&["claude", "--env", "A=b=c", "--env", "KEY", "--env", "EMPTY", "--label", "k=v"]).unwrap();
        let wanted = [("A", "b=c"), ("EMPTY", ""), ("KEY", "secret")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(body.env, BTreeMap::from(wanted));
        assert_eq!(body.labels["k"], "v");
        let words = parse(&["claude", "--env", "MISSING"]).unwrap_err().to_string();
        assert!(words.contains("MISSING"), "{words}");
    }

    #[test]
    fn a_sandbox_is_asked_for_only_if_something_is_said_of_it() {
        assert_eq!(parse(&["claude"]).unwrap().sandbox, None);
        let words = ["claude", "--profile", "strict", "--network", "off", "--memory", "1G", "--cpus", "0.5"];
        let asked = parse(&words).unwrap().sandbox.unwrap();
        assert_eq!((asked.profile.as_deref(), asked.network), (Some("strict"), Some(NetworkMode::Off)));
        assert_eq!((asked.limits.memory_bytes, asked.limits.cpu_percent), (Some(1 << 30), Some(50)));
    }

    #[test]
    fn a_relative_workspace_is_one_of_this_machine() {
        let body = parse(&["claude", "--workspace", "."]).unwrap();
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(body.workspace.unwrap().path.as_deref(), here.to_str());
        assert_eq!(
            parse(&["claude", "--workspace", "/srv/x"]).unwrap().workspace.unwrap().path.as_deref(),
            Some("/srv/x")
        );
        assert!(parse(&["claude", "--workspace", "no-such-dir"]).is_err());
    }
}
