//! What must reach the control plane even if everything here is killed first: ends of spawns and audit entries, in order.
//!
//! An item is on disk before anything is told of it, and stays until the control plane has acknowledged it. The end of a spawn is accepted once:
//! noting it again after a restart changes nothing. Only decisions of the egress gateway are bounded: see `decisions`.

mod decisions;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentapi_shared::SessionId;
use agentapi_shared::egress::EgressDecision;
use agentapi_shared::link::{OutboxItem, SpawnReport};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;

/// Items sent in one go; more follow as they are acknowledged.
const BATCH: u32 = 256;

/// Why the outbox failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    /// The database.
    #[error(
        "the outbox (outbox.db in the state directory) cannot be used: see that its disk has room and that it belongs to this user"
    )]
    Database(#[from] rusqlite::Error),
    /// An item that is no item; only another release could have written it.
    #[error("the outbox holds an item that cannot be read")]
    Item(#[from] serde_json::Error),
}

/// The host's outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    database: Mutex<Connection>,
    newest: watch::Sender<u64>,
    /// Up to which number the control plane has everything.
    stored: watch::Sender<u64>,
    /// Number of the newest item that may have been sent; changed under the lock. Nothing up to it is changed any more.
    handed_out: AtomicU64,
}

impl Outbox {
    /// Opens it, or starts an empty one.
    pub(crate) fn open(path: &Path) -> Result<Self, OutboxError> {
        let database = Connection::open(path)?;
        database.pragma_update(None, "journal_mode", "wal")?;
        database.pragma_update(None, "synchronous", "full")?;
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS ended (session TEXT NOT NULL, spawn INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (session, spawn));",
        )?;
        decisions::prepare(&database)?;
        let newest = newest(&database)?;
        Ok(Self {
            database: Mutex::new(database),
            newest: watch::Sender::new(newest),
            stored: watch::Sender::new(0),
            handed_out: AtomicU64::new(newest),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in between leaves SQLite with a transaction rolled back at worst.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the newest item; changes wake whoever sends them.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Notes the end of a spawn, unless that was done before.
    pub(crate) fn ended(&self, report: &SpawnReport) -> Result<(), OutboxError> {
        let (session, spawn) = (report.session.to_string(), report.spawn);
        let item = serde_json::to_string(&OutboxItem::Ended(report.clone()))?;
        let mut database = self.lock();
        let transaction = database.transaction()?;
        let known: Option<i64> = transaction
            .query_row("SELECT seq FROM ended WHERE session = ?1 AND spawn = ?2", params![session, spawn], |row| {
                row.get(0)
            })
            .optional()?;
        if known.is_some() {
            return Ok(());
        }
        transaction.execute("INSERT INTO outbox (item) VALUES (?1)", [item])?;
        let seq = transaction.last_insert_rowid();
        transaction
            .execute("INSERT INTO ended (session, spawn, seq) VALUES (?1, ?2, ?3)", params![session, spawn, seq])?;
        transaction.commit()?;
        drop(database);
        self.grown_to(seq.unsigned_abs());
        Ok(())
    }

    /// Notes an entry for the audit trail.
    pub(crate) fn audit(&self, item: &OutboxItem) -> Result<(), OutboxError> {
        let text = serde_json::to_string(item)?;
        let database = self.lock();
        database.execute("INSERT INTO outbox (item) VALUES (?1)", [text])?;
        let seq = database.last_insert_rowid();
        drop(database);
        self.grown_to(seq.unsigned_abs());
        Ok(())
    }

    /// Notes what the egress gateway has decided, all of it with one sync of the disk, and how many decisions it had to drop.
    pub(crate) fn egress(&self, decisions: Vec<EgressDecision>, dropped: u64) -> Result<(), OutboxError> {
        self.keep(decisions, dropped, decisions::KEPT_MAX)
    }

    fn keep(&self, decisions: Vec<EgressDecision>, dropped: u64, most: i64) -> Result<(), OutboxError> {
        let mut database = self.lock();
        let transaction = database.transaction()?;
        let handed_out = self.handed_out.load(Ordering::Relaxed).cast_signed();
        for decision in decisions {
            decisions::keep(&transaction, decision, handed_out)?;
        }
        decisions::forget_ids(&transaction)?;
        decisions::count_dropped(&transaction, None, dropped)?;
        if decisions::make_room(&transaction, most)? {
            decisions::tell_dropped(&transaction)?;
        }
        let newest = newest(&transaction)?;
        transaction.commit()?;
        drop(database);
        self.grown_to(newest);
        Ok(())
    }

    /// Without the lock, so whoever was faster may have told of a newer one already.
    fn grown_to(&self, seq: u64) {
        self.newest.send_if_modified(|newest| {
            let grown = seq > *newest;
            *newest = (*newest).max(seq);
            grown
        });
    }

    /// Items after `seq`, oldest first, a batch of them.
    pub(crate) fn after(&self, seq: u64) -> Result<Vec<(u64, OutboxItem)>, OutboxError> {
        let database = self.lock();
        let mut query = database.prepare_cached("SELECT seq, item FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let rows = query.query_map(params![seq.cast_signed(), BATCH], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let items: Result<Vec<(u64, OutboxItem)>, OutboxError> = rows
            .map(|row| {
                let (seq, item) = row?;
                Ok((seq.unsigned_abs(), serde_json::from_str(&item)?))
            })
            .collect();
        if let Some((last, _)) = items.as_ref().ok().and_then(|items| items.last()) {
            self.handed_out.fetch_max(*last, Ordering::Relaxed);
        }
        items
    }

    /// The control plane has everything up to this number. It is removed by whoever follows [`Outbox::stored`].
    pub(crate) fn stored_up_to(&self, seq: u64) {
        self.stored.send_if_modified(|stored| std::mem::replace(stored, seq.max(*stored)) < seq);
    }

    /// Up to which number the control plane has everything.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Forgets what is stored elsewhere now.
    pub(crate) fn acknowledged(&self, seq: u64) -> Result<(), OutboxError> {
        let mut database = self.lock();
        let transaction = database.transaction()?;
        transaction.prepare_cached("DELETE FROM outbox WHERE seq <= ?1")?.execute([seq.cast_signed()])?;
        decisions::forget(&transaction, seq.cast_signed())?;
        // Somebody takes items, so there is room for the counts.
        decisions::tell_dropped(&transaction)?;
        let newest = newest(&transaction)?;
        transaction.commit()?;
        drop(database);
        self.grown_to(newest);
        Ok(())
    }

    /// Whether the end of a spawn is still on its way.
    pub(crate) fn holds_end_of(&self, session: SessionId, spawn: u32) -> Result<bool, OutboxError> {
        let query = "SELECT 1 FROM ended JOIN outbox USING (seq) WHERE session = ?1 AND spawn = ?2";
        let found: Option<i64> =
            self.lock().query_row(query, params![session.to_string(), spawn], |row| row.get(0)).optional()?;
        Ok(found.is_some())
    }

    /// Forgets that the session's spawns ended, and what it connected to; ends that are still on their way stay.
    pub(crate) fn purged(&self, session: SessionId) -> Result<(), OutboxError> {
        let mut database = self.lock();
        let transaction = database.transaction()?;
        transaction.execute("DELETE FROM ended WHERE session = ?1", [session.to_string()])?;
        decisions::purge(&transaction, session)?;
        Ok(transaction.commit()?)
    }
}

/// Number of the newest item that waits; 0 if none does.
fn newest(database: &Connection) -> rusqlite::Result<u64> {
    let newest: i64 = database.query_row("SELECT coalesce(max(seq), 0) FROM outbox", [], |row| row.get(0))?;
    Ok(newest.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::{SpawnState, WindowSize};

    fn report(session: SessionId, spawn: u32) -> SpawnReport {
        SpawnReport {
            session,
            spawn,
            generation: 1,
            seq: 4,
            state: SpawnState::Exited,
            size: WindowSize::DEFAULT,
            command: vec![],
            started_at: None,
            ended_at: None,
            exit: None,
            posture: None,
        }
    }

    #[test]
    fn items_survive_until_acknowledged_and_ends_count_once() {
        // SQLite puts files beside the one it is told.
        let dir = std::env::temp_dir().join(format!("agentapi-outbox-{}", SessionId::generate()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("outbox.db");
        let (a, b) = (SessionId::generate(), SessionId::generate());
        let outbox = Outbox::open(&path).unwrap();
        outbox.ended(&report(a, 1)).unwrap();
        outbox.ended(&report(a, 1)).unwrap();
        outbox.ended(&report(b, 1)).unwrap();
        drop(outbox);
        let outbox = Outbox::open(&path).unwrap();
        let all = outbox.after(0).unwrap();
        assert_eq!(all.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(*outbox.newest().borrow(), 2);
        outbox.acknowledged(1).unwrap();
        assert_eq!(outbox.after(0).unwrap().len(), 1);
        assert!(!outbox.holds_end_of(a, 1).unwrap() && outbox.holds_end_of(b, 1).unwrap());
        // Acknowledged is not forgotten: noting it again would report it twice.
        outbox.ended(&report(a, 1)).unwrap();
        assert_eq!(outbox.after(0).unwrap().len(), 1);
        // A number is never given twice, also when everything before it is gone.
        outbox.acknowledged(2).unwrap();
        outbox.ended(&report(a, 2)).unwrap();
        assert_eq!(outbox.after(0).unwrap().first().map(|(seq, _)| *seq), Some(3));
        drop(outbox);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
