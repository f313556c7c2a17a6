//! `session restart`, `session stop` and `session purge`.

use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::api::{STOP_GRACE_MS, Session};

use super::{Context, list, select, wait};
use crate::args::{PurgeArgs, RestartArgs, StopArgs};
use crate::client::Query;
use crate::failure::{ExitKind, Failure};
use crate::output::{self, Format};

/// Beyond the grace period: killing what is left, and the way of the news to us.
const AFTER_GRACE: Duration = Duration::from_secs(30);

pub(super) async fn restart(context: &Context<'_>, args: &RestartArgs) -> anyhow::Result<()> {
    let id = select::resolve(&context.client, &args.session.session).await?.id;
    let session = context.client.restart(id, args.stop).await.map_err(|failure| {
        if failure.code() != ExitKind::Conflict as u8 {
            return failure;
        }
        Failure::new(ExitKind::Conflict, "it still runs: `agentapi session restart --stop` stops it first")
    })?;
    match context.format {
        Format::Json => output::json(&session),
        Format::Text => {
            output::line(&format!("{id}: spawn {}", session.spawns.last().map_or(0, |spawn| spawn.number)));
            Ok(())
        }
    }
}

pub(super) async fn stop(context: &Context<'_>, args: &StopArgs) -> anyhow::Result<()> {
    let sessions = select::resolve_all(&context.client, &args.sessions).await?;
    let grace = args.grace.unwrap_or(Duration::from_millis(STOP_GRACE_MS));
    let mut query: Query<'_> = Vec::new();
    if args.force {
        query.push(("force", "true".to_owned()));
    } else if args.grace.is_some() {
        query.push(("grace_ms", grace.as_millis().to_string()));
    }
    // All are asked first, so that their grace periods run side by side.
    let mut asked = Vec::with_capacity(sessions.len());
    for session in sessions {
        asked.push(context.client.delete(session.id, &query).await?.unwrap_or(session));
    }
    for session in asked {
        let session = if args.no_wait { session } else { ended(context, session, grace).await? };
        match context.format {
            Format::Json => list::print(&session, context.format)?,
            Format::Text => output::line(&format!("{}: {}", session.id, session.state.as_str())),
        }
    }
    Ok(())
}

async fn ended(context: &Context<'_>, session: Session, grace: Duration) -> Result<Session, Failure> {
    if session.state.is_ended() {
        return Ok(session);
    }
    let limit = grace + AFTER_GRACE;
    let work = wait::until(&context.client, session.id, |session| session.state.is_ended());
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let words = format!("{}: not ended after {limit:?}; its host may be unreachable", session.id);
        Failure::new(ExitKind::TimedOut, words)
    })?
}

pub(super) async fn purge(context: &Context<'_>, args: &PurgeArgs) -> anyhow::Result<()> {
    for session in select::resolve_all(&context.client, &args.sessions).await? {
        let mut query: Query<'_> = vec![("purge", "true".to_owned())];
        if args.force {
            query.push(("force", "true".to_owned()));
        }
        if context.client.delete(session.id, &query).await?.is_some() {
            gone(context, session.id).await?;
        }
        match context.format {
            Format::Json => output::json(&serde_json::json!({"id": session.id, "purged": true}))?,
            Format::Text => output::line(&format!("{}: purged", session.id)),
        }
    }
    Ok(())
}

/// Waits until a session that is being purged is no more.
async fn gone(context: &Context<'_>, id: SessionId) -> Result<(), Failure> {
    let limit = Duration::from_millis(STOP_GRACE_MS) + AFTER_GRACE;
    match tokio::time::timeout(limit, wait::until(&context.client, id, |_| false)).await {
        Ok(Err(failure)) if failure.code() == ExitKind::NotFound as u8 => Ok(()),
        Ok(outcome) => outcome.map(drop),
        Err(_) => {
            let words = format!("{id}: not purged after {limit:?}; it will be as soon as its host answers");
            Err(Failure::new(ExitKind::TimedOut, words))
        }
    }
}
