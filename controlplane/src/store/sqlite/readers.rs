//! Connections that only read, for what is asked with each request: whose a token is, one session.
//!
//! In WAL mode a reader sees what is committed and waits for nobody, so such a question is answered where it is asked. To hand it to the
//! thread that writes, and its answer back, would take several times as long as the answer itself. What may read many rows goes to the
//! thread all the same: it would hold up the runtime.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use crate::store::StoreError;

/// A reader waits for somebody else's program that holds the whole database, and no longer: it waits on a thread of the runtime.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

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
        let connection = Connection::open(&self.database)?;
        super::keep_plans(&connection)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", "ON")?;
        Ok(connection)
    }

    /// Runs `work` on one state of the database.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let transaction = connection.transaction()?;
        let answer = work(&transaction);
        transaction.finish()?;
        self.idle().push(connection);
        answer
    }
}
