//! The embedded store: SQLite in WAL mode behind one thread.
//!
//! One thread owns the one connection that writes, so transactions never wait for each other and nothing blocks the runtime; the few rows that each
//! request asks for come from connections that only read (`readers`). `synchronous=NORMAL` with WAL keeps every answered write through a kill
//! of the process; only a crash of the whole machine may lose the last moments.

mod api_keys;
mod audit;
mod credentials;
mod egress;
mod enrolments;
mod expiry;
mod hosts;
mod idempotency;
mod logins;
mod members;
mod operator;
mod organizations;
mod readers;
mod rows;
mod sessions;
mod upkeep;
mod viewers;

use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Answer, Store, StoreError};
use readers::Readers;

/// Operations that wait for the thread. Overflow: the caller waits for room.
const QUEUE_MAX: usize = 1024;

/// Prepared statements that a connection keeps: more than there are. Overflow: the one that was not used for longest is prepared again.
const STATEMENTS_MAX: usize = 128;

/// Each migration runs once, in order, in a transaction of its own.
const MIGRATIONS: [&str; 11] = [
    include_str!("sqlite/migrations/0001.sql"),
    include_str!("sqlite/migrations/0002.sql"),
    include_str!("sqlite/migrations/0003.sql"),
    include_str!("sqlite/migrations/0004.sql"),
    include_str!("sqlite/migrations/0005.sql"),
    include_str!("sqlite/migrations/0006.sql"),
    include_str!("sqlite/migrations/0007.sql"),
    include_str!("sqlite/migrations/0008.sql"),
    include_str!("sqlite/migrations/0009.sql"),
    include_str!("sqlite/migrations/0010.sql"),
    include_str!("sqlite/migrations/0011.sql"),
];

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Handle of the database thread; the thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Sqlite {
    queue: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    /// The newest audit record's place in the table.
    audit_written: watch::Receiver<u64>,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error("cannot open the database {path}")]
    Open {
        /// Where.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// A migration.
    #[error("cannot bring the database to version {version}")]
    Migrate {
        /// Which.
        version: usize,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer release wrote it.
    #[error("the database has version {found}, newer than this program's {known}: use the newer release")]
    TooNew {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// No thread.
    #[error("cannot start the database thread")]
    Thread(#[source] std::io::Error),
}

impl Sqlite {
    /// Opens or makes the database file and brings it up to date.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let named = |source| OpenError::Open { path: path.display().to_string(), source };
        let mut connection = Connection::open(path).map_err(named)?;
        configure(&connection).map_err(named)?;
        migrate(&mut connection)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(named)?;
        let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE_MAX);
        let newest = audit::newest(&connection).map_err(named)?;
        let (written, audit_written) = watch::channel(newest);
        let work = move || {
            let mut changes = 0;
            while let Some(job) = jobs.blocking_recv() {
                job(&mut connection);
                // Asked only where something was written: reads are many.
                if std::mem::replace(&mut changes, connection.total_changes()) != changes {
                    audit::tell(&connection, &written);
                }
            }
        };
        std::thread::Builder::new().name("sqlite".to_owned()).spawn(work).map_err(OpenError::Thread)?;
        Ok(Self { queue, readers: Arc::new(Readers::new(path)), audit_written })
    }

    /// Reads a few rows, here and now.
    fn read<'a, T, F>(&'a self, work: F) -> Answer<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'a,
    {
        Box::pin(async move { self.readers.read(work) })
    }

    /// Runs `work` in one transaction on the thread; it is committed if it succeeds.
    fn call<'a, T, F>(&'a self, work: F) -> Answer<'a, T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let job: Job = Box::new(move |connection| {
                // A caller that is gone no longer wants the answer; the effect stands.
                let _gone = answer.send(transact(connection, work));
            });
            self.queue.send(job).await.map_err(|_| unavailable("the database thread ended"))?;
            answered.await.map_err(|_| unavailable("the database thread dropped the operation"))?
        })
    }
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Immediate: the one writer never has to upgrade a lock, which could fail half-way.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Plans do not depend on the values that are bound. They did with the statistics that this SQLite is built with, and with partial indexes: each use
/// of a prepared statement with other values planned it anew, which took several times as long as the statement.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    keep_plans(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Off until the database is up to date: a migration may replace tables that others refer to, and cannot turn it off itself.
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "busy_timeout", 5000)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let failed = |version| move |source| OpenError::Migrate { version, source };
    let known = MIGRATIONS.len();
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        .map_err(failed(0))?;
    let found = connection
        .query_row("SELECT COALESCE(MAX(version), 0) FROM schema_version", [], |row| row.get::<_, usize>(0))
        .map_err(failed(0))?;
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(found) {
        let version = index + 1;
        let step = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            if let Some(table) =
                transaction.query_row("PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0)).optional()?
            {
                return Err(rusqlite::Error::InvalidParameterName(format!(
                    "{table} refers to rows that are not there"
                )));
            }
            transaction.execute("INSERT INTO schema_version (version) VALUES (?1)", [version])?;
            transaction.commit()
        };
        step(connection).map_err(failed(version))?;
    }
    Ok(())
}

fn unavailable(what: &'static str) -> StoreError {
    StoreError::Unavailable(what.into())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NotFound,
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl Store for Sqlite {
    fn ping(&self) -> Answer<'_, ()> {
        self.call(|tx| Ok(tx.query_row("SELECT 1 FROM schema_version", [], |_| Ok(()))?))
    }
}

#[cfg(test)]
mod tests;
