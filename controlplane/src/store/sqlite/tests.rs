//! SQLite runs the store's contract, and what is its own: migrations and files.

mod audit;

use std::path::PathBuf;
use std::sync::Arc;

use agentapi_shared::api::Visibility;
use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{EventId, OrgId, SessionId, UserId};

use super::*;
use crate::capability::Role;
use crate::store::contract::{self, Subject};
use crate::store::records::{
    DEFAULT_ORG, EgressFilter, Holder, LOCAL_ADMIN, LOCAL_HOST, NewLoginCode, SessionFilter, TenantContext,
};
use crate::store::{
    ApiKeyStore as _, CredentialStore as _, EgressStore as _, MemberStore as _, OrganizationStore as _, Scope,
    SessionStore as _,
};

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("store-{}", EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn database(&self) -> PathBuf {
        self.0.join("controlplane.db")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Somebody in an organisation, both made if they are not there.
fn put(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<(), StoreError> {
    let (org, user) = (tenant.org.to_string(), tenant.user.to_string());
    tx.execute(
        "INSERT OR IGNORE INTO organizations (id, org_id, created_by, created_at, name)
         VALUES (?1, ?1, ?2, '2026-01-02T03:04:05Z', 'some')",
        [&org, &user],
    )?;
    tx.execute(
        "INSERT OR IGNORE INTO users (id, issuer, subject, name, created_at) VALUES (?1, 'test', ?1, 'somebody', '2026-01-02T03:04:05Z')",
        [&user],
    )?;
    tx.execute(
        "INSERT OR IGNORE INTO memberships (org_id, user_id, role, created_by, created_at)
         VALUES (?1, ?2, ?3, ?2, '2026-01-02T03:04:05Z')",
        [&org, &user, tenant.role.as_str()],
    )?;
    Ok(())
}

#[tokio::test]
async fn the_contract_holds() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let theirs = TenantContext { org: OrgId::generate(), user: UserId::generate(), role: Role::Member, token: None };
    let ours = TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None };
    let colleague = TenantContext { user: UserId::generate(), role: Role::Member, ..ours.clone() };
    let people = [ours.clone(), theirs.clone(), colleague.clone()];
    store.call(move |tx| people.iter().try_for_each(|tenant| put(tx, tenant))).await.unwrap();
    contract::run(&Subject { store: Arc::new(store), ours, theirs, colleague }).await;
}

#[tokio::test]
async fn every_change_leaves_an_audit_entry_or_nothing() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    // An audit table that refuses makes the change fail as a whole.
    let break_it = |tx: &Transaction<'_>| {
        Ok(tx.execute_batch("CREATE TRIGGER no BEFORE INSERT ON audit_logs BEGIN SELECT RAISE(ABORT, 'full'); END")?)
    };
    store.call(break_it).await.unwrap();
    let ours = TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None };
    let entry = crate::domain::audit::of_account("api", "test");
    let new = NewLoginCode { hash: "code".to_owned(), expires_at: entry.at + time::Duration::HOUR, made_by: None };
    let code = store.create_login_code(ours, new, entry.clone()).await;
    assert!(matches!(code, Err(StoreError::Unavailable(_))));
    let redeemed = store.redeem_login_code("code".to_owned(), "cookie".to_owned(), entry.at, entry).await;
    assert_eq!(redeemed.ok().flatten(), None);
}

#[tokio::test]
async fn a_database_that_was_moved_away_is_not_made_anew_and_keeps_its_log() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let moved = dir.database().with_extension("moved");
    std::fs::rename(dir.database(), &moved).unwrap();
    let log = PathBuf::from(format!("{}-wal", dir.database().display()));
    let before = std::fs::metadata(&log).unwrap().len();
    let read = store.session(Scope::System, SessionId::generate()).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(!dir.database().exists());
    assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
    std::fs::rename(&moved, dir.database()).unwrap();
    let read = store.session(Scope::System, SessionId::generate()).await;
    assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
}

#[tokio::test]
async fn a_database_is_migrated_once_and_a_newer_one_refused() {
    let dir = TempDir::new();
    for _ in 0..2 {
        let store = Sqlite::open(&dir.database()).unwrap();
        store.ping().await.unwrap();
    }
    let connection = Connection::open(dir.database()).unwrap();
    let versions: i64 = connection.query_row("SELECT COUNT(*) FROM schema_version", [], |row| row.get(0)).unwrap();
    assert_eq!(versions, i64::try_from(MIGRATIONS.len()).unwrap());
    connection.execute("INSERT INTO schema_version (version) VALUES (99)", []).unwrap();
    let opened = Sqlite::open(&dir.database());
    assert!(matches!(opened, Err(OpenError::TooNew { found: 99, known }) if known == MIGRATIONS.len()));
}

#[tokio::test]
async fn a_data_directory_of_an_earlier_release_is_taken_over() {
    let dir = TempDir::new();
    let connection = Connection::open(dir.database()).unwrap();
    connection.execute_batch("CREATE TABLE schema_version (version INTEGER NOT NULL)").unwrap();
    for (index, sql) in MIGRATIONS.iter().enumerate().take(4) {
        connection.execute_batch(sql).unwrap();
        connection.execute("INSERT INTO schema_version (version) VALUES (?1)", [index + 1]).unwrap();
    }
    let id = SessionId::generate();
    let insert = "INSERT INTO user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace,
                  desired, generation, stop_grace_ms, stop_force, revision, state)
                  VALUES (?1, ?2, ?3, '2026-01-02T03:04:05Z', '{}', 'custom', '[]', '[]', 80, 24, '{}', 'run', 1, 0, 0, 1, 'running')";
    let (org, user, host) = (DEFAULT_ORG.to_string(), LOCAL_ADMIN.to_string(), LOCAL_HOST.to_string());
    connection.execute(insert, [&id.to_string(), &org, &user]).unwrap();
    let insert = "INSERT INTO spawns (session_id, number, org_id, created_by, created_at, state) VALUES (?1, 1, ?2, ?3, '', 'running')";
    connection.execute(insert, [&id.to_string(), &org, &user]).unwrap();
    for (hash, kind, holder) in [("a-key", "user", &user), ("another", "user", &user), ("a-host", "host", &host)] {
        let insert = format!(
            "INSERT INTO api_tokens (hash, org_id, created_by, created_at, kind, {kind}_id) VALUES (?1, ?2, ?3, '2026-01-02T03:04:05Z', ?4, ?5)"
        );
        connection.execute(&insert, [hash, &org, &user, kind, holder]).unwrap();
    }
    let insert = "INSERT INTO browser_sessions (hash, org_id, created_by, created_at, expires_at) VALUES ('cookie', ?1, ?2, '', '2999-01-01T00:00:00Z')";
    connection.execute(insert, [&org, &user]).unwrap();
    drop(connection);
    let store = Sqlite::open(&dir.database()).unwrap();
    let record = store.session(Scope::System, id).await.unwrap();
    assert_eq!(record.sandbox, agentapi_shared::api::SandboxRequest::default());
    assert_eq!((record.spawns[0].posture.clone(), record.visibility), (None, Visibility::Private));
    // Whoever had a token or a login is the owner of the one organisation there was, with the same token and login.
    for hash in ["a-key", "another"] {
        let Some(Holder::User(holder)) = store.token(hash.to_owned()).await.unwrap() else { panic!("{hash}") };
        assert_eq!((holder.user, holder.org, holder.role), (LOCAL_ADMIN, DEFAULT_ORG, Role::Owner));
        assert_eq!((holder.name.as_str(), holder.organization.as_str()), ("admin", "default"));
    }
    assert_eq!(store.token("a-host".to_owned()).await.unwrap(), Some(Holder::Host(LOCAL_HOST)));
    let login = store.browser_session("cookie".to_owned(), time::OffsetDateTime::now_utc()).await.unwrap().unwrap();
    let holder = login.holder.member().unwrap();
    assert_eq!((holder.user, holder.role), (LOCAL_ADMIN, Role::Owner));
    let tenant = holder.tenant();
    let members = store.members(tenant.clone()).await.unwrap();
    assert_eq!(
        members.iter().map(|member| (member.user, member.role)).collect::<Vec<_>>(),
        [(LOCAL_ADMIN, Role::Owner)]
    );
    assert_eq!(store.api_keys(tenant.clone()).await.unwrap().len(), 2);
    assert_eq!(store.organizations(tenant).await.unwrap()[0].0.revision, 1);
    // References hold from here on.
    let orphan =
        "INSERT INTO memberships (org_id, user_id, role, created_by, created_at) VALUES ('x', 'y', 'owner', '', '')";
    assert!(store.call(move |tx| Ok(tx.execute(orphan, [])?)).await.is_err());
}

/// Steps of the database's machine for one page: what it costs, on whatever machine.
fn steps(tx: &Transaction<'_>, tenant: &TenantContext, filter: &SessionFilter) -> Result<(i32, usize), StoreError> {
    let (sql, values) = sessions::page(tenant, filter);
    let mut statement = tx.prepare(&sql)?;
    let found = statement.query_map(rusqlite::params_from_iter(values), |_| Ok(()))?.count();
    Ok((statement.get_status(rusqlite::StatementStatus::VmStep), found))
}

#[tokio::test]
async fn a_page_of_ten_own_sessions_among_100_000_costs_no_more_than_the_owners() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let owner = TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None };
    let member = TenantContext { user: UserId::generate(), role: Role::Member, ..owner.clone() };
    let (org, admin, user) = (DEFAULT_ORG.to_string(), LOCAL_ADMIN.to_string(), member.user.to_string());
    let work = move |tx: &Transaction<'_>| {
        // Every 10,000th is the member's, every 20,000th shared by someone else.
        tx.execute(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 99999)
             INSERT INTO user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace, desired,
                                        generation, stop_grace_ms, stop_force, revision, state, visibility)
             SELECT printf('%08x-0000-7000-8000-000000000000', n), ?1, CASE WHEN n % 10000 = 7 THEN ?3 ELSE ?2 END, '2026-01-02T03:04:05Z',
                    '{}', 'custom', '[]', '[]', 80, 24, '{}', 'run', 1, 0, 0, 1, 'running',
                    CASE WHEN n % 20000 = 9 THEN 'organization' ELSE 'private' END FROM n",
            [&org, &admin, &user],
        )?;
        let first = SessionFilter { limit: 51, ..SessionFilter::default() };
        let deep = SessionFilter { before: "00002000-0000-7000-8000-000000000000".parse().ok(), ..first.clone() };
        let (base, full) = steps(tx, &owner, &first)?;
        assert_eq!(full, 51);
        for (tenant, filter, expected) in [(&owner, &deep, 51), (&member, &first, 15), (&member, &deep, 2)] {
            let (cost, found) = steps(tx, tenant, filter)?;
            assert_eq!(found, expected, "{:?}", tenant.role);
            assert!(cost <= base * 2, "{:?}: {cost} steps, the owner's first page takes {base}", tenant.role);
        }
        Ok(())
    };
    store.call(work).await.unwrap();
}

#[tokio::test]
async fn a_session_keeps_its_newest_decisions_and_none_when_it_is_purged() {
    let dir = TempDir::new();
    let store = Sqlite::open(&dir.database()).unwrap();
    let (loud, quiet) = (SessionId::generate(), SessionId::generate());
    let decision = |session| EgressDecision {
        id: EventId::generate(),
        session,
        spawn: 1,
        at: time::OffsetDateTime::UNIX_EPOCH,
        host: "example.com".to_owned(),
        port: 443,
        address: None,
        verdict: EgressVerdict::Denied,
        rule: "no_rule".to_owned(),
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: 0,
        times: 7,
    };
    let first = decision(quiet);
    let decisions: Vec<EgressDecision> = (0..5).map(|_| decision(loud)).collect();
    let (newest_first, kept) = (decisions.iter().rev().take(3).cloned().collect::<Vec<_>>(), first.clone());
    let fill = move |tx: &Transaction<'_>| {
        for session in [loud, quiet] {
            let insert = "INSERT INTO user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace,
                          desired, generation, stop_grace_ms, stop_force, revision, state, host_id)
                          VALUES (?1, ?2, ?3, '2026-01-02T03:04:05Z', '{}', 'custom', '[]', '[]', 80, 24, '{}', 'stop', 1, 0, 0, 1, 'exited', ?4)";
            let (org, user) = (DEFAULT_ORG.to_string(), LOCAL_ADMIN.to_string());
            tx.execute(insert, [&session.to_string(), &org, &user, &LOCAL_HOST.to_string()])?;
        }
        for decision in std::iter::once(&first).chain(&decisions) {
            assert!(egress::insert(tx, LOCAL_HOST, decision)?);
            assert!(!egress::insert(tx, LOCAL_HOST, decision)?);
            egress::remove_beyond(tx, decision.session, 3)?;
        }
        Ok(())
    };
    store.call(fill).await.unwrap();
    let list = async |session| {
        store.egress(Scope::System, session, EgressFilter { limit: 10, ..EgressFilter::default() }).await.unwrap()
    };
    assert_eq!(list(loud).await, newest_first);
    assert_eq!(list(quiet).await, [kept]);
    let entry = crate::domain::audit::of_account("api", "test");
    store.purge_session(Scope::System, loud, entry).await.unwrap();
    let count = move |tx: &Transaction<'_>| {
        let of = "SELECT count(*) FROM egress_decisions WHERE session_id = ?1";
        let of = |session: SessionId| tx.query_row(of, [session.to_string()], |row| row.get::<_, i64>(0));
        Ok((of(loud)?, of(quiet)?))
    };
    assert_eq!(store.call(count).await.unwrap(), (0, 1));
}

#[test]
fn every_table_has_its_organisation_and_its_maker() {
    let dir = TempDir::new();
    let _store = Sqlite::open(&dir.database()).unwrap();
    let connection = Connection::open(dir.database()).unwrap();
    let mut tables = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(names.len() > 9);
    // A person is in several organisations, or in none.
    for name in names.iter().filter(|name| !["schema_version", "users"].contains(&name.as_str())) {
        for column in ["org_id", "created_by"] {
            let sql = "SELECT COUNT(*) FROM pragma_table_info(?1) WHERE name = ?2";
            let found: i64 = connection.query_row(sql, [name, column], |row| row.get(0)).unwrap();
            assert_eq!(found, 1, "{name}.{column}");
        }
    }
}
