//! The two stores with the same people and hosts in them, and operations on both.

use std::fmt::Debug;
use std::path::PathBuf;

use agentapi_shared::audit::Personal;
use agentapi_shared::{EventId, HostId, OrgId, SessionId, UserId, ViewerId};
use agentapi_test_postgres::dir::TempDir;
use anyhow::Result;
use serde_json::json;
use time::OffsetDateTime;

use super::operation::{At, Who};
use crate::auth::sha256_hex;
use crate::capability::Role;
use crate::store::postgrest::tests::real::Real;
use crate::store::records::{AuditEntry, IdempotencyKey, TenantContext};
use crate::store::sqlite::Sqlite;
use crate::store::{OutboxSeen, Scope, Store, StoreError};

const START: OffsetDateTime = time::macros::datetime!(2026-01-02 03:04:05.678901 UTC);
/// Sessions that operations mean: the newest so many.
const SESSIONS: usize = 4;

/// An embedded store of one lane.
#[derive(Debug)]
pub(super) struct Embedded {
    _dir: TempDir,
    path: PathBuf,
    store: Sqlite,
}

impl Embedded {
    pub(super) fn open() -> Result<Self> {
        let dir = TempDir::new();
        let path = dir.path().join("controlplane.db");
        let store = Sqlite::open(&path)?;
        Ok(Self { _dir: dir, path, store })
    }

    fn insert(&self, people: &[TenantContext], hosts: &[(HostId, OrgId)]) -> Result<()> {
        let connection = rusqlite::Connection::open(&self.path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        for person in people {
            let (org, user) = (person.org.to_string(), person.user.to_string());
            connection.execute(
                "INSERT OR IGNORE INTO organizations (id, org_id, created_by, created_at, name) VALUES (?1, ?1, ?2, '', 'some')",
                [&org, &user],
            )?;
            connection.execute(
                "INSERT INTO users (id, issuer, subject, name, created_at) VALUES (?1, 'test', ?1, 'somebody', '')",
                [&user],
            )?;
            connection.execute(
                "INSERT INTO memberships (org_id, user_id, role, created_by, created_at) VALUES (?1, ?2, ?3, ?2, '')",
                [&org, &user, person.role.as_str()],
            )?;
        }
        for (host, org) in hosts {
            connection.execute(
                "INSERT INTO hosts (id, org_id, created_by, created_at) VALUES (?1, ?2, '', '')",
                [host.to_string(), org.to_string()],
            )?;
        }
        Ok(())
    }

    fn audited(&self) -> Result<Vec<String>> {
        let connection = rusqlite::Connection::open(&self.path)?;
        let mut all = connection.prepare("SELECT id || ' ' || action || ' ' || created_by FROM audit_logs")?;
        let found = all.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(found)
    }
}

/// What one case acts in.
#[derive(Debug)]
pub(super) struct World<'a> {
    real: &'a Real,
    embedded: &'a Embedded,
    people: Vec<TenantContext>,
    pub(super) hosts: Vec<(HostId, OrgId)>,
    pub(super) now: OffsetDateTime,
    /// Oldest first.
    pub(super) sessions: Vec<(SessionId, OrgId)>,
    pub(super) decisions: Vec<EventId>,
    pub(super) viewers: Vec<ViewerId>,
    pub(super) codes: Vec<String>,
    pub(super) cookies: Vec<String>,
    /// Records that were sent.
    pub(super) entries: Vec<EventId>,
    /// Makes secrets of this case differ from those of others.
    salt: OrgId,
}

/// The last few.
pub(super) fn newest<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(2)..]
}

pub(super) fn pick<T>(all: &[T], at: At) -> Option<&T> {
    (!all.is_empty()).then(|| &all[usize::from(at) % all.len()])
}

/// An answer, with its error by kind: what is inside of one is each store's own.
pub(super) fn told<T: Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Unavailable(source)) => format!("unavailable ({source})"),
        Err(other) => format!("{other:?}"),
        Ok(value) => format!("{value:?}"),
    }
}

impl<'a> World<'a> {
    /// Two organisations: one with everybody in it, one with an owner and a member; two hosts and one.
    pub(super) async fn new(real: &'a Real, embedded: &'a Embedded) -> Result<Self> {
        let (ours, theirs) = (OrgId::generate(), OrgId::generate());
        let person = |org, role| TenantContext { org, user: UserId::generate(), role, token: None };
        let mut people: Vec<TenantContext> = Role::ALL.into_iter().map(|role| person(ours, role)).collect();
        people.extend([person(ours, Role::Member), person(theirs, Role::Owner), person(theirs, Role::Member)]);
        let hosts: Vec<(HostId, OrgId)> = [ours, ours, theirs].map(|org| (HostId::generate(), org)).to_vec();
        embedded.insert(&people, &hosts)?;
        real.insert(&people, &hosts).await?;
        Ok(Self {
            real,
            embedded,
            people,
            hosts,
            now: START,
            sessions: Vec::new(),
            decisions: Vec::new(),
            viewers: Vec::new(),
            codes: Vec::new(),
            cookies: Vec::new(),
            entries: Vec::new(),
            salt: ours,
        })
    }

    pub(super) fn stores(&self) -> [&dyn Store; 2] {
        [&self.embedded.store, &self.real.store]
    }

    pub(super) fn person(&self, at: At) -> TenantContext {
        self.people[usize::from(at) % self.people.len()].clone()
    }

    pub(super) fn host(&self, at: At) -> HostId {
        self.hosts[usize::from(at) % self.hosts.len()].0
    }

    pub(super) fn scope(&self, who: &Who) -> Scope {
        match who {
            Who::Person(at) => Scope::Tenant(self.person(*at)),
            Who::Host(at) => Scope::Host(self.host(*at)),
            Who::System => Scope::System,
        }
    }

    /// One of the newest, or one that never was.
    pub(super) fn session(&self, at: At) -> (SessionId, OrgId) {
        let newest = &self.sessions[self.sessions.len().saturating_sub(SESSIONS)..];
        pick(newest, at).copied().unwrap_or((SessionId::from_u128(u128::from(at) + 1), self.salt))
    }

    pub(super) fn secret(&self, kind: &str, number: impl std::fmt::Display) -> String {
        sha256_hex(format!("{} {kind} {number}", self.salt).as_bytes())
    }

    pub(super) fn key(&self, at: At, body: u8) -> IdempotencyKey {
        IdempotencyKey { route: "r".to_owned(), key: format!("k{}", at % 4), request_hash: format!("h{body}") }
    }

    pub(super) fn entry(&mut self, action: &'static str) -> AuditEntry {
        let id = EventId::generate();
        self.entries.push(id);
        AuditEntry {
            id,
            at: self.now,
            action: action.into(),
            channel: "api",
            session: None,
            host: None,
            detail: json!({ "n": 1 }),
            org: None,
            job: AuditEntry::SYSTEM,
            credential: None,
            request: None,
            personal: Personal::default(),
        }
    }

    /// Of a host, where the operation is in its name.
    pub(super) fn seen(scope: &Scope, seen: Option<u8>) -> OutboxSeen {
        match scope {
            Scope::Host(host) => seen.map(|number| (*host, u64::from(number))),
            Scope::Tenant(_) | Scope::System => None,
        }
    }

    /// The records of this case that each store has: id, action and actor.
    pub(super) async fn audit_trails(&self) -> Result<(Vec<String>, Vec<String>)> {
        let known: Vec<String> = self.entries.iter().map(ToString::to_string).collect();
        let is_known = |line: &String| known.iter().any(|id| line.starts_with(id.as_str()));
        let mut ours: Vec<String> = self.embedded.audited()?.into_iter().filter(is_known).collect();
        let ids = known.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        let sql = format!(
            "select id || ' ' || action || ' ' || created_by from agentapi.audit_logs where id = any (array[{ids}]::uuid[])"
        );
        let found = self.real.cluster.sql(&sql).await?;
        let mut theirs: Vec<String> = found.lines().map(str::to_owned).collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        Ok((ours, theirs))
    }
}
