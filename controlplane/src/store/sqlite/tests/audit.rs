//! The audit trail in SQLite: what old databases become, what nobody changes, and what may be erased.

use serde_json::{Value, json};

use super::*;
use crate::store::AuditStore as _;
use crate::store::contract::audit::chained;
use crate::store::records::{AuditFilter, AuditPosition, SealedRecord};

fn owner() -> TenantContext {
    TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None }
}

async fn trail(store: &Sqlite) -> Vec<SealedRecord> {
    while store.seal_audit(1000).await.unwrap() > 0 {}
    let filter = AuditFilter { position: AuditPosition::After(0), limit: 1000, ..AuditFilter::default() };
    store.audit_records(owner(), filter).await.unwrap().records
}

#[tokio::test]
async fn records_of_an_earlier_release_get_their_text_and_their_place() {
    let dir = TempDir::new();
    let connection = Connection::open(dir.database()).unwrap();
    connection.execute_batch("CREATE TABLE schema_version (version INTEGER NOT NULL)").unwrap();
    for (version, sql) in (1..).zip(&MIGRATIONS[..4]) {
        connection.execute_batch(sql).unwrap();
        connection.execute("INSERT INTO schema_version (version) VALUES (?1)", [version]).unwrap();
    }
    let insert = "INSERT INTO audit_logs (id, org_id, created_by, created_at, actor_kind, action, channel, session_id, host_id, detail)
                  VALUES (?1, ?2, ?3, '2026-01-02T03:04:05.678901Z', 'user', 'session.create', 'api', ?4, NULL, ?5)";
    let (org, user, session) = (DEFAULT_ORG.to_string(), LOCAL_ADMIN.to_string(), SessionId::generate().to_string());
    let ids = [EventId::generate(), EventId::from_u128(1)].map(|id| id.to_string());
    for (id, detail) in ids.iter().zip([r#"{"agent":"it's \"x\""}"#, "null"]) {
        connection.execute(insert, [id.as_str(), &org, &user, &session, detail]).unwrap();
    }
    drop(connection);
    let store = Sqlite::open(&dir.database()).unwrap();
    let records = trail(&store).await;
    chained(DEFAULT_ORG, &records);
    // In the order in which they were written.
    assert_eq!(records.iter().map(|record| record.id.to_string()).collect::<Vec<_>>(), ids);
    let text = format!(
        "{{\"id\":\"{}\",\"org_id\":\"{org}\",\"at\":\"2026-01-02T03:04:05.678901Z\",\"action\":\"session.create\",\"channel\":\"api\",\
         \"actor\":{{\"kind\":\"user\",\"id\":\"{user}\",\"credential\":null}},\"session_id\":\"{session}\",\"host_id\":null,\
         \"request_id\":null,\"detail\":{}}}",
        ids[0],
        json!({ "agent": "it's \"x\"" })
    );
    assert_eq!(records[0].entry, text);
    let read: Value = serde_json::from_str(&records[1].entry).unwrap();
    assert_eq!((&read["detail"], records[1].personal.as_deref()), (&Value::Null, None));
}

#[tokio::test]
async fn nothing_is_changed_and_what_is_personal_can_go() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    for _ in 0..3 {
        let mut entry = crate::domain::audit::of_account("api", "test");
        entry.personal.name = Some("Somebody".to_owned());
        store.audit(Scope::Tenant(owner()), entry, None).await.unwrap();
    }
    let before = trail(&store).await;
    let head = chained(DEFAULT_ORG, &before);
    for change in [
        "UPDATE audit_logs SET entry = '{}' WHERE n = 2",
        "DELETE FROM audit_logs WHERE n = 3",
        "UPDATE audit_seals SET hash = '' WHERE seq = 2",
        "DELETE FROM audit_seals",
    ] {
        let refused = store.call(move |tx| Ok(tx.execute(change, [])?)).await;
        let why = refused.err().and_then(|error| std::error::Error::source(&error).map(ToString::to_string));
        assert!(why.as_deref().is_some_and(|why| why.contains("append_only")), "{change}: {why:?}");
    }
    let erase = |tx: &Transaction<'_>| {
        Ok(tx.execute("DELETE FROM audit_personal WHERE created_by = ?1", [LOCAL_ADMIN.to_string()])?)
    };
    assert_eq!(store.call(erase).await.unwrap(), 3);
    let after = trail(&store).await;
    assert_eq!(chained(DEFAULT_ORG, &after), head);
    assert!(
        before.iter().all(|record| record.personal.is_some()) && after.iter().all(|record| record.personal.is_none())
    );
    assert!(after.iter().all(|record| !record.entry.contains("Somebody")));
}

#[tokio::test]
async fn a_page_looks_at_so_many_records_and_goes_on() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let fill = |tx: &Transaction<'_>| {
        for number in 0..4_500 {
            let mut entry = crate::domain::audit::of_account("api", "test");
            entry.action = if number == 1 { "rare".into() } else { "test".into() };
            super::super::audit::insert(tx, &Scope::Tenant(owner()), DEFAULT_ORG, &entry)?;
        }
        Ok(())
    };
    store.call(fill).await.unwrap();
    while store.seal_audit(1000).await.unwrap() > 0 {}
    let (mut position, mut pages, mut found) = (AuditPosition::default(), 0, Vec::new());
    loop {
        let filter = AuditFilter { action: Some("rare".to_owned()), position, limit: 10, ..AuditFilter::default() };
        let page = store.audit_records(owner(), filter).await.unwrap();
        found.extend(page.records.iter().map(|record| record.seal.number));
        pages += 1;
        let Some(next) = page.next else { break };
        position = AuditPosition::Before(next);
    }
    assert_eq!((pages, found), (3, vec![2]));
}

#[tokio::test]
async fn a_host_speaks_in_the_chain_of_its_own_sessions_only() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let (org, theirs) = (OrgId::generate(), SessionId::generate());
    let fill = move |tx: &Transaction<'_>| {
        let insert =
            "INSERT INTO organizations (id, org_id, created_by, created_at, name) VALUES (?1, ?1, ?2, '', 'theirs')";
        tx.execute(insert, [&org.to_string(), &LOCAL_ADMIN.to_string()])?;
        let insert = "INSERT INTO user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace,
                      desired, generation, stop_grace_ms, stop_force, revision, state)
                      VALUES (?1, ?2, ?3, '2026-01-02T03:04:05Z', '{}', 'custom', '[]', '[]', 80, 24, '{}', 'run', 1, 0, 0, 1, 'pending')";
        Ok(tx.execute(insert, [&theirs.to_string(), &org.to_string(), &LOCAL_ADMIN.to_string()])?)
    };
    store.call(fill).await.unwrap();
    let entry = || crate::domain::audit::of_host(LOCAL_HOST, "test", Some(theirs), json!({}));
    let orgs = async || {
        let read = |tx: &Transaction<'_>| {
            let mut orgs = tx.prepare("SELECT org_id FROM audit_logs ORDER BY n")?;
            let found = orgs.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(found)
        };
        store.call(read).await.unwrap()
    };
    store.audit(Scope::Host(LOCAL_HOST), entry(), None).await.unwrap();
    assert_eq!(orgs().await, [DEFAULT_ORG.to_string()]);
    let place = "UPDATE user_sessions SET host_id = ?1";
    store.call(move |tx| Ok(tx.execute(place, [LOCAL_HOST.to_string()])?)).await.unwrap();
    store.audit(Scope::Host(LOCAL_HOST), entry(), None).await.unwrap();
    assert_eq!(orgs().await, [DEFAULT_ORG.to_string(), org.to_string()]);
}
