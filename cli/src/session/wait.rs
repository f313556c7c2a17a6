//! `session wait`, and waiting for a session in other commands. Nothing polls: changes come from the event stream, and a screen is answered once there is more output.
//!
//! Level-triggered: subscribe first, then look, then follow changes. A broken stream is opened again, and the look repeated.

use std::time::Duration;

use agentapi_shared::api::{ScreenFormat, ScreenResponse, ServerEvent, Session};
use agentapi_shared::{Exit, SessionId, SpawnState};

use super::create::why;
use super::{Context, list, select};
use crate::args::{WaitArgs, WaitFor};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::failure::{ExitKind, Failure};
use crate::output;

/// Rows before the screen in which a text is looked for.
const SEARCH_ROWS: u32 = 1000;
/// The pause before looking again at a screen that does not show output yet which was already seen.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn wait(context: &Context<'_>, args: &WaitArgs) -> anyhow::Result<()> {
    let session = select::resolve(&context.client, &args.session.session).await?;
    let work = async {
        match &args.text {
            Some(text) => until_text(&context.client, session.id, text).await.map(|()| None),
            None => until(&context.client, session.id, |session| settled(session, args.target)).await.map(Some),
        }
    };
    let found = limited(args.timeout, work).await?;
    let session = match found {
        Some(session) => session,
        None => context.client.session(session.id).await?,
    };
    if context.format == output::Format::Json {
        list::print(&session, context.format)?;
    }
    if args.exit_status {
        return exit_status(&session);
    }
    if args.text.is_none() && args.target == WaitFor::Running && session.state != SpawnState::Running {
        return Err(Failure::new(ExitKind::Failure, format!("it does not run: {}", why(&session))).into());
    }
    Ok(())
}

async fn limited<T>(limit: Option<Duration>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let Some(limit) = limit else { return work.await };
    let late = |_| Failure::new(ExitKind::TimedOut, format!("timed out after {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// Whether it is as wanted, or can no longer become so.
fn settled(session: &Session, target: WaitFor) -> bool {
    session.state.is_ended() || (target == WaitFor::Running && session.state == SpawnState::Running)
}

/// Ends as the program did.
fn exit_status(session: &Session) -> anyhow::Result<()> {
    let code = session.exit.as_ref().map_or(ExitKind::Failure as u8, status_of);
    if code == 0 { Ok(()) } else { Err(Failure::silent(code).into()) }
}

/// The status a shell would show: the exit code, or 128 and the number of the signal.
fn status_of(exit: &Exit) -> u8 {
    let signal = || exit.signal.as_deref().and_then(|name| name.parse::<nix::sys::signal::Signal>().ok());
    let status = exit.code.or_else(|| signal().map(|signal| 128 + signal as i32));
    status.and_then(|status| u8::try_from(status & 0xff).ok()).unwrap_or(ExitKind::Failure as u8)
}

/// Waits until a session is as wanted.
pub(super) async fn until(
    client: &Client,
    id: SessionId,
    wanted: impl Fn(&Session) -> bool,
) -> Result<Session, Failure> {
    let mut backoff = Backoff::default();
    loop {
        match follow(client, id, &wanted).await {
            Ok(Some(session)) => return Ok(session),
            Ok(None) => {}
            // A server that is away for a moment is no answer to what was asked.
            Err(failure) if is_unreachable(&failure) => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

fn is_unreachable(failure: &Failure) -> bool {
    failure.code() == ExitKind::Unreachable as u8
}

/// One subscription; none: it broke before the session was as wanted.
async fn follow(
    client: &Client,
    id: SessionId,
    wanted: &impl Fn(&Session) -> bool,
) -> Result<Option<Session>, Failure> {
    let mut events = client.events().await?;
    let session = client.session(id).await?;
    if wanted(&session) {
        return Ok(Some(session));
    }
    while let Some(event) = events.next().await? {
        match event {
            ServerEvent::Session { session } if session.id == id && wanted(&session) => return Ok(Some(*session)),
            ServerEvent::SessionPurged { id: purged } if purged == id => {
                return Err(Failure::new(ExitKind::NotFound, "the session was purged"));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Waits until a text stands on the screen, over lost connections.
async fn until_text(client: &Client, id: SessionId, text: &str) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        match watch_text(client, id, text).await {
            Err(failure) if is_unreachable(&failure) => tokio::time::sleep(backoff.next_pause()).await,
            settled => return settled,
        }
    }
}

/// Looks at the start, and again whenever there was output. Nobody who waits is a viewer: that would take one of the organisation's places.
async fn watch_text(client: &Client, id: SessionId, text: &str) -> Result<(), Failure> {
    let begun = async || until(client, id, |session| settled(session, WaitFor::Running)).await;
    // What has not begun has no screen.
    begun().await?;
    let over = || Failure::new(ExitKind::Failure, "the session ended, and its screen does not show the text");
    let (mut seen, mut has_ended): (Option<ScreenResponse>, bool) = (None, false);
    loop {
        let screen = match client.screen(id, ScreenFormat::Text, Some(SEARCH_ROWS), None, seen.as_ref()).await {
            // It was started again, or never ran.
            Err(failure) if failure.code() == ExitKind::Conflict as u8 => {
                if begun().await?.state.is_ended() {
                    return Err(over());
                }
                continue;
            }
            other => other?,
        };
        if screen.text.contains(text) {
            return Ok(());
        }
        if seen.is_some_and(|seen| (seen.spawn, seen.offset) == (screen.spawn, screen.offset)) {
            // Its last words may have come between the two answers: once more.
            if has_ended {
                return Err(over());
            }
            has_ended = client.session(id).await?.state.is_ended();
            // The screen is read beside the output and may be a moment behind it; no further output may come to wake us.
            tokio::time::sleep(BEHIND_PAUSE).await;
        } else {
            has_ended = false;
        }
        seen = Some(screen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::describe;
    use agentapi_shared::ExitReason;

    #[test]
    fn a_program_that_was_killed_ends_as_a_shell_would_say() {
        let exit = |code, signal: Option<&str>| Exit {
            code,
            signal: signal.map(str::to_owned),
            reason: ExitReason::Exited,
            detail: String::new(),
        };
        assert_eq!(status_of(&exit(Some(0), None)), 0);
        assert_eq!(status_of(&exit(Some(3), None)), 3);
        assert_eq!(status_of(&exit(None, Some("SIGKILL"))), 137);
        assert_eq!(status_of(&exit(None, None)), 1);
    }

    #[tokio::test]
    async fn a_time_limit_has_a_code_of_its_own() {
        let late = limited(Some(Duration::from_millis(1)), std::future::pending::<Result<(), Failure>>()).await;
        assert_eq!(describe(&late.unwrap_err().into()).0, 7);
    }
}
