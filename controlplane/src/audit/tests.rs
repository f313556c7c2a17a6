//! Sealing in time, counting by the minute, and waiting for the store, with the real embedded one and a clock that is moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::EventId;
use agentapi_shared::audit::Checkpoint;
use agentapi_shared::runtime::TaskGroup;
use serde_json::{Value, json};

use super::*;
use crate::capability::Role;
use crate::clock;
use crate::store::records::{AuditFilter, AuditPosition, DEFAULT_ORG, LOCAL_ADMIN, TenantContext};
use crate::store::sqlite::Sqlite;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("audit-{}", EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(&self.0.join("controlplane.db")).unwrap())
    }

    /// Changes the database behind the store's back.
    fn by_hand(&self, sql: &str) {
        rusqlite::Connection::open(self.0.join("controlplane.db")).unwrap().execute_batch(sql).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn owner() -> TenantContext {
    TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None }
}

fn entry(detail: Value) -> AuditEntry {
    AuditEntry { detail, ..audit::of_account("api", "test") }
}

async fn records(store: &Arc<dyn Store>) -> Vec<Value> {
    let filter = AuditFilter { position: AuditPosition::After(0), limit: 1000, ..AuditFilter::default() };
    let page = store.audit_records(owner(), filter).await.unwrap();
    page.records.iter().map(|record| serde_json::from_str(&record.entry).unwrap()).collect()
}

/// Waits until there are so many.
async fn until(store: &Arc<dyn Store>, count: usize) -> Vec<Value> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = records(store).await;
        if found.len() >= count {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "only {found:?}");
    }
}

#[tokio::test]
async fn records_get_their_place_without_being_asked_for_it() {
    let dir = Dir::new();
    let store = dir.store();
    store.audit(Scope::Tenant(owner()), entry(json!("before the start")), None).await.unwrap();
    let tasks = TaskGroup::new();
    let _trail = Trail::start(store.clone(), &tasks);
    for number in 1..4 {
        until(&store, number).await;
        store.audit(Scope::Tenant(owner()), entry(json!(number)), None).await.unwrap();
    }
    until(&store, 4).await;
    tasks.shutdown();
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn what_repeats_is_one_record_of_a_minute() {
    let (repeats, backlog) = (Repeats::default(), Backlog::default());
    let occurrence = |actor: &str, object: &str| Occurrence {
        actor: actor.to_owned(),
        action: "test",
        object: object.to_owned(),
        scope: Scope::Tenant(owner()),
        entry: entry(json!({ "object": object })),
    };
    let count = |actor: &str, object: &str| repeats.count(occurrence(actor, object), 1, &backlog).is_some();
    assert!(count("a", "x") && !count("a", "x") && !count("a", "x"));
    assert!(count("a", "y") && count("b", "x"));
    repeats.end(&backlog, false);
    assert_eq!(backlog.len(), 0, "the minute is not over");
    tokio::time::advance(Duration::from_secs(61)).await;
    // The next minute begins before the last one was handed over: nothing is lost, and this is the first again.
    assert!(count("a", "x"));
    assert_eq!(backlog.len(), 1);
    repeats.end(&backlog, false);
    assert_eq!(backlog.len(), 1, "what came once is written already");
    // Whoever asks for ever new things is counted together, and so are ever new ones who ask.
    let kinds = (0..200).filter(|object| count("a", &object.to_string())).count();
    assert!(kinds <= 64, "{kinds}");
    let actors = (0..3_000).filter(|actor| count(&actor.to_string(), "x")).count();
    assert!(actors <= 1_024, "{actors}");
    repeats.end(&backlog, true);
    assert!(backlog.len() > 2, "the rest is counted");
}

#[tokio::test]
async fn what_waits_is_written_when_the_store_takes_it_and_told_when_it_never_does() {
    const REFUSE: &str = "CREATE TRIGGER no BEFORE INSERT ON audit_logs WHEN new.entry LIKE '%poison%' BEGIN SELECT RAISE(ABORT, 'no'); END";
    let dir = Dir::new();
    let store = dir.store();
    let backlog = Backlog::default();
    let push = |detail: &str| backlog.push(Scope::Tenant(owner()), entry(json!(detail)));
    dir.by_hand(REFUSE);
    push("poison, for a while");
    push("good");
    assert!(backlog.write(&*store).await.is_err() && backlog.len() == 2);
    dir.by_hand("DROP TRIGGER no");
    backlog.write(&*store).await.unwrap();
    dir.by_hand(REFUSE);
    push("poison");
    push("better");
    let mut tries = 0;
    while backlog.write(&*store).await.is_err() {
        tries += 1;
    }
    assert_eq!((tries, backlog.len()), (5, 0));
    sealer::seal_all(&*store).await.unwrap();
    let found = records(&store).await;
    let details: Vec<&Value> = found.iter().map(|record| &record["detail"]).collect();
    let lost = json!({ "count": 1 });
    assert_eq!(details, [&json!("poison, for a while"), &json!("good"), &json!("better"), &lost]);
    assert_eq!(found[3]["action"], "audit.records_lost");
}

#[tokio::test(start_paused = true)]
async fn chains_are_signed_when_they_grew_and_the_file_survives_a_crash() {
    let dir = Dir::new();
    let store = dir.store();
    let path = dir.0.join("elsewhere");
    let lines = || -> Vec<Checkpoint> {
        let text = std::fs::read_to_string(path.join("audit-checkpoints.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let tasks = TaskGroup::new();
    let trail = Trail::start(store.clone(), &tasks);
    let checkpoints = Arc::new(Checkpoints::open(&dir.0, &path).unwrap());
    let key = checkpoints.public();
    trail.keep_checkpoints(checkpoints, &tasks);
    store.audit(Scope::Tenant(owner()), entry(Value::Null), None).await.unwrap();
    let signed = async |count| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while lines().len() < count {
            assert!(std::time::Instant::now() < deadline, "{:?}", lines());
            // The clock is moved whenever everybody waits.
            tokio::time::sleep(Duration::from_secs(1)).await;
            until(&store, count).await;
        }
    };
    signed(1).await;
    assert!(matches!(lines()[..], [Checkpoint { number: 1, .. }]), "{:?}", lines());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(lines().len(), 1, "nothing happened");
    store.audit(Scope::Tenant(owner()), entry(Value::Null), None).await.unwrap();
    signed(2).await;
    assert_eq!(lines().last().map(|checkpoint| (checkpoint.number, key.signed(checkpoint))), Some((2, true)));
    tasks.shutdown();
    // A line that a crash cut off swallows none that follows.
    let file = path.join("audit-checkpoints.jsonl");
    let cut = std::fs::read_to_string(&file).unwrap() + "{\"org_id\":\"0000";
    std::fs::write(&file, cut).unwrap();
    store.audit(Scope::Tenant(owner()), entry(Value::Null), None).await.unwrap();
    let again = Trail::start(store.clone(), &TaskGroup::new());
    let checkpoints = Arc::new(Checkpoints::open(&dir.0, &path).unwrap());
    assert_eq!((checkpoints.public(), checkpoints.recent(DEFAULT_ORG, 0, 9).len()), (key, 2));
    again.keep_checkpoints(checkpoints, &TaskGroup::new());
    again.finish().await;
    assert_eq!(lines().iter().map(|checkpoint| checkpoint.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(lines().iter().all(|checkpoint| key.signed(checkpoint) && checkpoint.at <= clock::now()));
    std::fs::write(dir.0.join("audit-signing.key"), "no key").unwrap();
    assert!(matches!(Checkpoints::open(&dir.0, &path), Err(CheckpointError::Key { .. })));
}

#[test]
fn replicas_that_start_at_once_sign_with_one_key() {
    for _ in 0..20 {
        let dir = Dir::new();
        let (start, at) = (std::sync::Barrier::new(4), &dir.0);
        let keys: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                Checkpoints::open(at, at).unwrap().public()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let kept = Checkpoints::open(at, at).unwrap().public();
        assert!(keys.iter().all(|key| *key == kept), "{keys:?}");
    }
}
