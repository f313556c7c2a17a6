//! `session list` and `session show`.

use agentapi_shared::api::{Limits, Page, Posture, Session};
use time::OffsetDateTime;

use super::create::why;
use super::{Context, select};
use crate::args::{ListArgs, OneSession};
use crate::client::Query;
use crate::output::{self, Format, age, clean};

/// Characters of a command in a table.
const COMMAND_CHARS_MAX: usize = 40;

pub(super) async fn list(context: &Context<'_>, args: &ListArgs) -> anyhow::Result<()> {
    let mut query: Query<'_> = vec![("limit", agentapi_shared::api::LIMIT_MAX.to_string())];
    query.extend(args.state.map(|state| ("state", state.as_str().to_owned())));
    query.extend(args.agent.clone().map(|agent| ("agent", agent)));
    query.extend(args.host.clone().map(|host| ("host", host)));
    query.extend(args.labels.iter().map(|(key, value)| ("label", format!("{key}:{value}"))));
    let sessions = context.client.sessions(&query).await?;
    // Short ids are told apart among all of them, also those not shown.
    let id_chars = select::short_id_chars(&sessions);
    let (shown, hidden): (Vec<Session>, Vec<Session>) =
        sessions.into_iter().partition(|session| args.all || args.state.is_some() || !session.state.is_ended());
    if context.format == Format::Json {
        return output::json(&Page { data: shown, next_cursor: None });
    }
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Vec<String>> = shown.iter().map(|session| row(session, id_chars, now)).collect();
    output::table(&["ID", "NAME", "AGENT", "STATE", "AGE", "SANDBOX", "COMMAND"], &rows);
    if !hidden.is_empty() {
        output::note(&format!("{} ended not shown; --all shows them", hidden.len()));
    }
    Ok(())
}

fn row(session: &Session, id_chars: usize, now: OffsetDateTime) -> Vec<String> {
    let command = session.command.join(" ");
    let cut = command.char_indices().nth(COMMAND_CHARS_MAX).map_or(command.len(), |(at, _)| at);
    vec![
        select::short_id(session.id, id_chars),
        session.name.clone().unwrap_or_else(|| "-".to_owned()),
        session.agent.clone(),
        state_words(session),
        age(now - session.created_at),
        session.sandbox.as_ref().map_or_else(|| "-".to_owned(), posture_word),
        command[..cut].to_owned(),
    ]
}

/// The state, and what one needs to know beside it.
fn state_words(session: &Session) -> String {
    let state = session.state.as_str();
    if session.unreachable && !session.state.is_ended() {
        return format!("{state} (host unreachable)");
    }
    if let Some(exit) = &session.exit {
        return match (exit.code, exit.signal.as_deref()) {
            (Some(code), _) => format!("{state} ({code})"),
            (None, Some(signal)) => format!("{state} ({signal})"),
            (None, None) => state.to_owned(),
        };
    }
    match session.agent_status.as_ref().and_then(|status| status.reason.as_deref()) {
        Some(reason) => format!("{state} ({reason})"),
        None => state.to_owned(),
    }
}

/// The profile, with a mark if something of the whole is missing.
fn posture_word(posture: &Posture) -> String {
    let mark = if posture.degraded.is_empty() { "" } else { " (degraded)" };
    let name = if posture.isolation == "none" { "none" } else { &posture.profile };
    format!("{}{mark}", clean(name))
}

/// What a spawn was given, in words.
fn posture_facts(posture: &Posture) -> Vec<(&'static str, String)> {
    let network = posture.network.as_str();
    let words = format!("{}, isolation {}, network {network}", posture.profile, posture.isolation);
    let mut facts = vec![("sandbox", words), ("limits", limits_words(&posture.limits))];
    if !posture.degraded.is_empty() {
        facts.push(("degraded", posture.degraded.join(", ")));
    }
    facts
}

fn limits_words(limits: &Limits) -> String {
    let words = output::limits(limits);
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

pub(super) async fn show(context: &Context<'_>, args: &OneSession) -> anyhow::Result<()> {
    let session = select::resolve(&context.client, &args.session).await?;
    print(&session, context.format)
}

/// One session, for people or for scripts.
pub(super) fn print(session: &Session, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(session);
    }
    for (name, value) in facts(session, OffsetDateTime::now_utc()) {
        output::line(&format!("{:<10} {}", format!("{name}:"), clean(&value)));
    }
    Ok(())
}

fn facts(session: &Session, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let mut facts = vec![("id", session.id.to_string())];
    facts.extend(session.name.clone().map(|name| ("name", name)));
    facts.push(("agent", session.agent.clone()));
    facts.push(("command", session.command.join(" ")));
    facts.push(("state", state_words(session)));
    if session.exit.is_some() || session.state_reason.is_some() {
        facts.push(("why", why(session)));
    }
    facts.push(("size", format!("{}x{}", session.size.cols(), session.size.rows())));
    facts.push(("workspace", session.workspace.path.clone().unwrap_or_else(|| "private".to_owned())));
    facts.extend(session.sandbox.iter().flat_map(posture_facts));
    facts.push(("host", session.host_id.map_or_else(|| "not placed yet".to_owned(), |host| host.to_string())));
    facts.push(("created", format!("{} ago", age(now - session.created_at))));
    for spawn in &session.spawns {
        let end = spawn.ended.unwrap_or(now);
        let ran = spawn.started.map_or_else(|| "never ran".to_owned(), |start| format!("ran {}", age(end - start)));
        facts.push(("spawn", format!("{}: {}, {ran}", spawn.number, spawn.state.as_str())));
    }
    for (key, value) in &session.labels {
        facts.push(("label", format!("{key}={value}")));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::api::NetworkMode;
    use agentapi_shared::{Exit, ExitReason, SpawnState};

    #[test]
    fn a_degraded_sandbox_is_seen_in_the_list_and_named_in_full() {
        let mut session = select::tests::session("0197c1a2-7d4e-7c3b-9f52-00000000aaaa", None, SpawnState::Running);
        let limits = Limits { memory_bytes: Some(1 << 30), cpu_percent: Some(150), ..Limits::default() };
        let degraded = vec!["landlock-abi-2".to_owned()];
        let (isolation, profile) = ("root".to_owned(), "dev".to_owned());
        session.sandbox = Some(Posture { isolation, profile, network: NetworkMode::Filtered, limits, degraded });
        assert_eq!(row(&session, 8, session.created_at)[5], "dev (degraded)");
        let facts = facts(&session, session.created_at);
        let of = |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(of("sandbox"), Some("dev, isolation root, network filtered"));
        assert_eq!(of("limits"), Some("memory 1024 MiB, processors 1.50"));
        assert_eq!(of("degraded"), Some("landlock-abi-2"));
    }

    #[test]
    fn a_row_says_what_a_person_needs() {
        let id = "0197c1a2-7d4e-7c3b-9f52-00000000aaaa";
        let mut session = select::tests::session(id, Some("build"), SpawnState::Running);
        session.command = vec!["é".repeat(60)];
        let now = session.created_at + time::Duration::minutes(5);
        let cells = row(&session, 8, now);
        assert_eq!(cells[..5], ["0000aaaa", "build", "custom", "running", "5m"]);
        assert_eq!(cells[5], "-");
        assert_eq!(cells[6].chars().count(), COMMAND_CHARS_MAX);
        session.unreachable = true;
        assert_eq!(state_words(&session), "running (host unreachable)");
        session.state = SpawnState::Exited;
        session.exit =
            Some(Exit { code: None, signal: Some("SIGKILL".into()), reason: ExitReason::Killed, detail: "x".into() });
        assert_eq!(state_words(&session), "exited (SIGKILL)");
    }
}
