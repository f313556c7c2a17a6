//! Locks that others hold on what a migration changes. It waits for them in short turns: as long as it waits for a table, whoever comes after it for
//! that table waits too.
//!
//! Postgres tells nobody what a statement waits for, so a second connection looks while the first is at work.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// How long a lock is waited for, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Of one turn.
    pub(super) lock_timeout: Duration,
    /// Turns.
    pub(super) attempts: u32,
    /// Between two turns what was held up goes on.
    pub(super) pause: Duration,
}

impl Patience {
    /// A turn is shorter than the 2.5 s that a control plane gives a request of its own, so that none fails for it. Two minutes in all: what holds a
    /// lock for longer is no request, and somebody has to look at it.
    pub(super) const DEFAULT: Self =
        Self { lock_timeout: Duration::from_secs(2), attempts: 30, pause: Duration::from_secs(2) };
}

/// It is looked this often what is waited for: several times in a turn.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Holders that are named. More are of no use to a person.
const HOLDERS_MAX: usize = 5;

/// What was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Such as `AccessExclusiveLock on agentapi.viewers`.
    lock: String,
    /// Processes of the database.
    holders: Vec<String>,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, held up by {}", self.lock, self.holders.join(", "))
    }
}

/// A turn that was in vain.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What was to be done.
    pub(super) what: String,
    /// Which turn it was.
    pub(super) attempt: u32,
    /// How many there are.
    pub(super) attempts: u32,
    /// What was in the way, if that was seen.
    pub(super) obstacle: Option<Obstacle>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, attempt, attempts, obstacle } = self;
        write!(f, "{what} waits for a lock (attempt {attempt} of {attempts}): {}", named(obstacle.as_ref()))
    }
}

/// In words.
pub(super) fn named(obstacle: Option<&Obstacle>) -> String {
    obstacle.map_or_else(|| "which one was not seen".to_owned(), Obstacle::to_string)
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Undone {
    /// Each turn was in vain.
    Blocked { obstacle: Option<Obstacle>, source: Error },
    /// Anything else.
    Failed(Error),
}

/// Looks at one connection from another one.
pub(super) struct Watcher {
    client: Client,
    watched: i32,
}

impl Watcher {
    pub(super) async fn of(watched: &Client, client: Client) -> Result<Self, Error> {
        let watched = watched.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
        Ok(Self { client, watched })
    }

    /// Does some work; gives what it was seen to wait for last, too.
    async fn during<T>(&self, work: impl Future<Output = T>) -> (T, Option<Obstacle>) {
        let mut seen = None;
        tokio::pin!(work);
        loop {
            let look = async {
                tokio::time::sleep(LOOK_EVERY).await;
                self.look().await
            };
            tokio::select! {
                done = &mut work => return (done, seen),
                // That nothing is to be seen is no reason to stop.
                found = look => seen = found.ok().flatten().or(seen),
            }
        }
    }

    async fn look(&self) -> Result<Option<Obstacle>, Error> {
        let rows = self
            .client
            .query(
                "select l.mode || ' on ' || coalesce(l.relation::regclass::text, l.locktype),
                        'process ' || b.pid || ' (' || concat_ws(', ', nullif(a.usename::text, ''), nullif(a.application_name, ''), 'since ' || a.xact_start) || ')'
                 from pg_locks as l cross join lateral unnest(pg_blocking_pids(l.pid)) as b(pid)
                 left join pg_stat_activity as a on a.pid = b.pid
                 where l.pid = $1 and not l.granted order by b.pid",
                &[&self.watched],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let holders = rows.iter().take(HOLDERS_MAX).map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        Ok(Some(Obstacle { lock: first.try_get(0)?, holders }))
    }
}

/// Does some work, again while others hold what it needs, as often as there is patience for.
pub(super) async fn patiently<T>(
    patience: Patience,
    watcher: &Watcher,
    what: &str,
    tell: &mut impl FnMut(&Waiting),
    mut work: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Undone> {
    let attempts = patience.attempts;
    let mut seen = None;
    let mut attempt = 1;
    loop {
        let (done, found) = watcher.during(work()).await;
        seen = found.or(seen);
        match done {
            Ok(value) => return Ok(value),
            Err(source) if is_of_locks(&source) && attempt >= attempts => {
                return Err(Undone::Blocked { obstacle: seen, source });
            }
            Err(source) if is_of_locks(&source) => {
                tell(&Waiting { what: what.to_owned(), attempt, attempts, obstacle: seen.clone() });
                tokio::time::sleep(patience.pause).await;
                attempt += 1;
            }
            Err(other) => return Err(Undone::Failed(other)),
        }
    }
}

/// Whether the work was given up for somebody else's lock: nothing of it was done.
fn is_of_locks(failure: &Error) -> bool {
    failure.code().is_some_and(|code| [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code))
}
