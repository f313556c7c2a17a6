//! Decisions of the egress gateway on their way: bounded, unlike all else, because what runs inside makes as many as it likes.
//!
//! A refusal that comes again before the first could be sent is counted in that one. Beyond the bound the session with the most loses its oldest,
//! so a session that floods this loses its own. What is lost is counted on disk by session, and each count becomes an audit entry once there is room.

use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::link::OutboxItem;
use agentapi_shared::{EventId, SessionId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use time::OffsetDateTime;

use super::OutboxError;

/// Decisions that wait, some 500 bytes each: a control plane may be away for days, and the disk is finite.
/// Overflow: the oldest of the session that has the most is dropped and counted.
pub(super) const KEPT_MAX: i64 = 100_000;

/// Ids of decisions that were taken, some 100 bytes each: a gateway that was not told so sends them again, to the next supervisor at the latest. As many
/// as two gateways can have left, of which one retires. Overflow: the oldest, which have been acknowledged.
const IDS_MAX: i64 = 2 * 8192;

/// Stands for all sessions together: the gateway's own count.
const NO_SESSION: &str = "";

/// Makes the tables: `decisions` says which items are decisions, whose, and which refusals they count; `taken` which decisions came already, also those
/// that were counted in others or are not here any more.
pub(super) fn prepare(database: &Connection) -> Result<(), OutboxError> {
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS decisions (seq INTEGER PRIMARY KEY, session TEXT NOT NULL, refused TEXT);
         CREATE INDEX IF NOT EXISTS decisions_by_session ON decisions (session, refused, seq);
         CREATE TABLE IF NOT EXISTS taken (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
         CREATE TABLE IF NOT EXISTS dropped (session TEXT PRIMARY KEY, count INTEGER NOT NULL);",
    )?;
    Ok(())
}

/// Adds a decision, or counts it in the same one of before, if that cannot have been sent yet. One that came before changes nothing.
pub(super) fn keep(tx: &Transaction<'_>, decision: EgressDecision, handed_out: i64) -> Result<(), OutboxError> {
    let new = tx.prepare_cached("INSERT OR IGNORE INTO taken (id) VALUES (?1)")?.execute([decision.id.to_string()])?;
    if new == 0 {
        return Ok(());
    }
    let session = decision.session.to_string();
    let refused = refused(&decision);
    let query = "SELECT seq FROM decisions WHERE session = ?1 AND refused = ?2 AND seq > ?3";
    let same: Option<i64> =
        tx.prepare_cached(query)?.query_row(params![session, refused, handed_out], |row| row.get(0)).optional()?;
    if let Some(seq) = same
        && let Some(counted) = counted(tx, seq, &decision)?
    {
        tx.prepare_cached("UPDATE outbox SET item = ?2 WHERE seq = ?1")?.execute(params![seq, counted])?;
        return Ok(());
    }
    let item = serde_json::to_string(&OutboxItem::Egress(decision))?;
    tx.prepare_cached("INSERT INTO outbox (item) VALUES (?1)")?.execute([item])?;
    tx.prepare_cached("INSERT INTO decisions (seq, session, refused) VALUES (?1, ?2, ?3)")?.execute(params![
        tx.last_insert_rowid(),
        session,
        refused
    ])?;
    Ok(())
}

/// What has to be the same in refusals that are counted together; none for what was connected.
fn refused(decision: &EgressDecision) -> Option<String> {
    let EgressDecision { spawn, host, port, rule, address, .. } = decision;
    // A host has no space in it that is not escaped, and is last all the same.
    let key = || format!("{spawn} {port} {} {rule} {host}", address.as_deref().unwrap_or("-"));
    (decision.verdict == EgressVerdict::Denied).then(key)
}

/// An item of before with one more decision in it.
fn counted(tx: &Transaction<'_>, seq: i64, more: &EgressDecision) -> Result<Option<String>, OutboxError> {
    let item: String =
        tx.prepare_cached("SELECT item FROM outbox WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
    let OutboxItem::Egress(mut first) = serde_json::from_str(&item)? else { return Ok(None) };
    first.times = first.times.saturating_add(more.times);
    first.bytes_up = first.bytes_up.saturating_add(more.bytes_up);
    first.bytes_down = first.bytes_down.saturating_add(more.bytes_down);
    Ok(Some(serde_json::to_string(&OutboxItem::Egress(first))?))
}

/// Forgets the oldest ids beyond [`IDS_MAX`].
pub(super) fn forget_ids(tx: &Transaction<'_>) -> Result<(), OutboxError> {
    let delete = "DELETE FROM taken WHERE number <= (SELECT max(number) FROM taken) - ?1";
    tx.prepare_cached(delete)?.execute([IDS_MAX])?;
    Ok(())
}

/// Drops decisions until at most so many are left; whether none had to be dropped.
pub(super) fn make_room(tx: &Transaction<'_>, most: i64) -> Result<bool, OutboxError> {
    let kept: i64 = tx.prepare_cached("SELECT count(*) FROM decisions")?.query_row([], |row| row.get(0))?;
    let mut over = kept - most;
    let fits = over <= 0;
    while over > 0 {
        let largest = "SELECT session, count(*) AS kept FROM decisions GROUP BY session ORDER BY kept DESC LIMIT 1";
        let (session, kept): (String, i64) =
            tx.prepare_cached(largest)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let going = over.min(kept);
        let oldest = "SELECT seq FROM decisions WHERE session = ?1 ORDER BY seq LIMIT ?2";
        let count =
            format!("SELECT sum(coalesce(json_extract(item, '$.times'), 1)) FROM outbox WHERE seq IN ({oldest})");
        let count: i64 = tx.prepare_cached(&count)?.query_row(params![session, going], |row| row.get(0))?;
        for table in ["outbox", "decisions"] {
            let delete = format!("DELETE FROM {table} WHERE seq IN ({oldest})");
            tx.prepare_cached(&delete)?.execute(params![session, going])?;
        }
        count_dropped(tx, Some(&session), count.unsigned_abs())?;
        over -= going;
    }
    Ok(fits)
}

/// Notes that so many decisions of a session, or of nobody knows which, are lost.
pub(super) fn count_dropped(tx: &Transaction<'_>, session: Option<&str>, count: u64) -> Result<(), OutboxError> {
    if count > 0 {
        tx.prepare_cached(
            "INSERT INTO dropped (session, count) VALUES (?1, ?2) ON CONFLICT (session) DO UPDATE SET count = count + ?2",
        )?
        .execute(params![session.unwrap_or(NO_SESSION), count.cast_signed()])?;
    }
    Ok(())
}

/// Makes audit entries of the counts.
pub(super) fn tell_dropped(tx: &Transaction<'_>) -> Result<(), OutboxError> {
    let counts: Vec<(String, i64)> = tx
        .prepare_cached("SELECT session, count FROM dropped")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (session, count) in &counts {
        let item = OutboxItem::Audit {
            id: EventId::generate(),
            at: OffsetDateTime::now_utc(),
            session: session.parse().ok(),
            action: "egress.decisions_dropped".to_owned(),
            detail: serde_json::json!({ "count": count }),
        };
        tx.execute("INSERT INTO outbox (item) VALUES (?1)", [serde_json::to_string(&item)?])?;
    }
    if !counts.is_empty() {
        tx.execute("DELETE FROM dropped", [])?;
    }
    Ok(())
}

/// Forgets what is stored elsewhere, up to this number.
pub(super) fn forget(tx: &Transaction<'_>, seq: i64) -> Result<(), OutboxError> {
    tx.prepare_cached("DELETE FROM decisions WHERE seq <= ?1")?.execute([seq])?;
    Ok(())
}

/// Forgets a session's, which would be kept nowhere any more.
pub(super) fn purge(tx: &Transaction<'_>, session: SessionId) -> Result<(), OutboxError> {
    let session = session.to_string();
    tx.execute("DELETE FROM outbox WHERE seq IN (SELECT seq FROM decisions WHERE session = ?1)", [&session])?;
    tx.execute("DELETE FROM decisions WHERE session = ?1", [&session])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::outbox::Outbox;

    /// In a directory of its own: SQLite puts files beside the one it is told.
    struct Database(PathBuf);

    impl Drop for Database {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Database {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("agentapi-outbox-{}", SessionId::generate()));
            std::fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn open(&self) -> Outbox {
            Outbox::open(&self.0.join("outbox.db")).unwrap()
        }
    }

    fn decision(session: SessionId, host: &str, verdict: EgressVerdict) -> EgressDecision {
        EgressDecision {
            id: EventId::generate(),
            session,
            spawn: 1,
            at: OffsetDateTime::UNIX_EPOCH,
            host: host.to_owned(),
            port: 443,
            address: None,
            verdict,
            rule: "no_rule".to_owned(),
            bytes_up: 2,
            bytes_down: 0,
            duration_ms: 0,
            times: 1,
        }
    }

    fn denied(session: SessionId, host: &str) -> EgressDecision {
        decision(session, host, EgressVerdict::Denied)
    }

    /// Hosts and how often, and counts of what was dropped by session.
    type Waiting = (Vec<(String, u64)>, Vec<(Option<SessionId>, u64)>);

    fn waiting(outbox: &Outbox) -> Waiting {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for (_, item) in outbox.after(0).unwrap() {
            match item {
                OutboxItem::Egress(decision) => kept.push((decision.host, decision.times)),
                OutboxItem::Audit { session, detail, .. } => {
                    dropped.push((session, detail["count"].as_u64().unwrap()));
                }
                OutboxItem::Ended(_) => panic!("no spawn ended"),
            }
        }
        (kept, dropped)
    }

    #[test]
    fn a_refusal_that_comes_again_is_counted_until_the_first_was_sent() {
        let database = Database::new();
        let outbox = database.open();
        let (session, other) = (SessionId::generate(), SessionId::generate());
        let allowed = || decision(session, "a.com", EgressVerdict::Allowed);
        let first = denied(session, "a.com");
        outbox.egress(vec![first.clone(), denied(session, "b.com"), denied(other, "a.com")], 0).unwrap();
        outbox.egress(vec![denied(session, "a.com"), allowed(), allowed()], 0).unwrap();
        outbox.egress(vec![EgressDecision { port: 80, ..denied(session, "a.com") }], 0).unwrap();
        let all = outbox.after(0).unwrap();
        let OutboxItem::Egress(counted) = &all[0].1 else { panic!("{all:?}") };
        assert_eq!(*counted, EgressDecision { times: 2, bytes_up: 4, ..first });
        assert_eq!(waiting(&outbox).0.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [2, 1, 1, 1, 1, 1]);
        // It may be on its way: a number that was given out stands for what it stood for then.
        outbox.egress(vec![denied(session, "a.com")], 0).unwrap();
        drop(outbox);
        let outbox = database.open();
        outbox.egress(vec![denied(session, "a.com"), denied(session, "a.com")], 0).unwrap();
        let times = [2, 1, 1, 1, 1, 1, 1, 2];
        assert_eq!(waiting(&outbox).0.iter().map(|(_, times)| *times).collect::<Vec<_>>(), times);
        assert_eq!(*outbox.newest().borrow(), 8);
    }

    #[test]
    fn what_a_gateway_sends_again_changes_nothing() {
        let database = Database::new();
        let outbox = database.open();
        let session = SessionId::generate();
        let all = vec![
            decision(session, "a.com", EgressVerdict::Allowed),
            denied(session, "b.com"),
            // Counted in the one before.
            denied(session, "b.com"),
        ];
        outbox.egress(all.clone(), 0).unwrap();
        let once = outbox.after(0).unwrap();
        drop(outbox);
        let outbox = database.open();
        outbox.egress(all.clone(), 0).unwrap();
        assert_eq!(waiting(&outbox).0, [("a.com".to_owned(), 1), ("b.com".to_owned(), 2)]);
        assert_eq!(outbox.after(0).unwrap(), once);
        // Also when nothing of them is here any more.
        outbox.acknowledged(2).unwrap();
        outbox.egress(all.into_iter().chain([denied(session, "c.com")]).collect(), 0).unwrap();
        assert_eq!(waiting(&outbox).0, [("c.com".to_owned(), 1)]);
    }

    #[test]
    fn ids_are_forgotten_one_day() {
        let database = Database::new();
        let outbox = database.open();
        let session = SessionId::generate();
        let allowed = || decision(session, "a.com", EgressVerdict::Allowed);
        outbox.egress((0..=IDS_MAX).map(|_| allowed()).collect(), 0).unwrap();
        let kept: i64 = outbox.lock().query_row("SELECT count(*) FROM taken", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, IDS_MAX);
    }

    #[test]
    fn a_session_that_floods_the_outbox_loses_its_own_and_the_count_is_told_once() {
        let database = Database::new();
        let outbox = database.open();
        let (quiet, loud) = (SessionId::generate(), SessionId::generate());
        outbox.keep(vec![denied(quiet, "quiet.com")], 0, 10).unwrap();
        // Each of another name, which cannot be counted together; the second one twice.
        let flood = |from: usize| (from..from + 20).map(|number| denied(loud, &format!("{number}.com")));
        outbox.keep(flood(0).chain([denied(loud, "1.com")]).collect(), 0, 10).unwrap();
        outbox.keep(vec![denied(quiet, "late.com")], 4, 10).unwrap();
        drop(outbox);
        let outbox = database.open();
        let (kept, dropped) = waiting(&outbox);
        assert_eq!((kept.len(), kept[0].0.as_str(), kept[9].0.as_str()), (10, "quiet.com", "late.com"));
        assert!(dropped.is_empty(), "there is no room to tell it");
        let first = outbox.after(0).unwrap()[0].0;
        outbox.acknowledged(first).unwrap();
        let (kept, mut dropped) = waiting(&outbox);
        dropped.sort();
        assert_eq!((kept.len(), dropped), (9, vec![(None, 4), (Some(loud), 13)]));
        assert_eq!(Some(*outbox.newest().borrow()), outbox.after(0).unwrap().last().map(|(seq, _)| *seq));
        // Of a session that is purged nothing is to be kept.
        outbox.purged(loud).unwrap();
        assert_eq!(waiting(&outbox).0, [("late.com".to_owned(), 1)]);
        let newest = *outbox.newest().borrow();
        outbox.acknowledged(newest).unwrap();
        outbox.keep(Vec::new(), 0, 10).unwrap();
        assert_eq!(waiting(&outbox), (Vec::new(), Vec::new()), "and told once");
        outbox.keep(Vec::new(), 2, 10).unwrap();
        assert_eq!(waiting(&outbox).1, [(None, 2)], "with room at once");
    }
}
