//! Connections that only read, for what is asked with each request: whose a token is, one session.
//!
//! In WAL mode a reader sees what is committed and waits for nobody, so such a question is answered where it is asked. To hand it to the
//! thread that writes, and its answer back, would take several times as long as the answer itself. What may read many rows goes to the
//! thread all the same, since it would hold up the runtime; a session has few spawns.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// A reader waits for somebody else's program that holds the whole database, and not for long: it waits on a thread of the runtime.
const BUSY_TIMEOUT: Duration = Duration::from_millis(10);

/// See the module. There are never more connections than threads that ask at once.
#[derive(Debug)]
pub(super) struct Readers {
    database: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        // Never made here: an empty file where the database was would have SQLite remove the log beside it, with all that is only there.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        super::keep_plans(&connection)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", "ON")?;
        Ok(connection)
    }

    /// Runs `work` on one state of the database.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        // Prepared once: a transaction of the library's parses both each time, for every request.
        connection.prepare_cached("BEGIN")?.execute(())?;
        let answer = work(&connection);
        // One that could not end is not used again.
        connection.prepare_cached("COMMIT")?.execute(())?;
        self.idle().push(connection);
        answer
    }
}
