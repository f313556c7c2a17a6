//! What every store has to do, as one suite that each implementation runs. It speaks to the trait only.

pub(super) mod audit;
mod logins;
mod operator;
mod organizations;
mod rotation;
mod sandboxes;
mod viewers;

use std::sync::Arc;

use agentapi_shared::api::{Limits, MountRequest, NetworkMode, Posture, SandboxRequest, Visibility};
use agentapi_shared::audit::Personal;
use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{EventId, SessionId, SpawnState, WindowSize};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::capability::Role;

use super::records::{
    AuditEntry, Desired, EgressFilter, Holder, IdempotencyKey, LOCAL_HOST, NewLoginCode, NewSession, Replay,
    SessionChange, SessionFilter, SessionRecord, SpawnRecord, TenantContext, TokenHolder,
};
use super::{Created, Scope, Store, StoreError};

/// Two tenants that exist, and the store.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    pub(super) ours: TenantContext,
    pub(super) theirs: TenantContext,
    /// A member of our organisation.
    pub(super) colleague: TenantContext,
}

const NOW: OffsetDateTime = time::macros::datetime!(2026-01-02 03:04:05.678901 UTC);

pub(super) fn entry() -> AuditEntry {
    AuditEntry {
        id: EventId::generate(),
        at: NOW,
        action: "test".into(),
        channel: "api",
        session: None,
        host: None,
        detail: json!({ "price": 1.5 }),
        org: None,
        job: AuditEntry::SYSTEM,
        credential: None,
        request: None,
        personal: Personal { name: Some("Somebody".to_owned()), ..Personal::default() },
    }
}

pub(super) fn new_session() -> NewSession {
    NewSession {
        id: SessionId::generate(),
        at: NOW,
        name: Some("name".to_owned()),
        labels: [("key".to_owned(), "it's \"quoted\"; --".to_owned())].into(),
        agent: "custom".to_owned(),
        command: vec!["bash".to_owned(), "-l".to_owned()],
        args: Vec::new(),
        size: WindowSize::DEFAULT,
        workspace: agentapi_shared::api::Workspace::default(),
        sandbox: SandboxRequest {
            profile: Some("strict".to_owned()),
            network: Some(NetworkMode::Off),
            mounts: vec![MountRequest { source: "/srv".to_owned(), target: None, writable: true }],
            limits: Limits { pids: Some(64), ..Limits::default() },
        },
        has_env: true,
        visibility: Visibility::Private,
    }
}

/// A secret's hash, as every store takes it.
fn hash(secret: &str) -> String {
    crate::auth::sha256_hex(secret.as_bytes())
}

/// A code for one login, made by a person.
fn code(secret: &str, expires_at: OffsetDateTime) -> NewLoginCode {
    NewLoginCode { hash: hash(secret), expires_at, made_by: None }
}

/// The record of a create; a store may refuse another there, since a quota counts these.
fn create_entry() -> AuditEntry {
    AuditEntry { action: "session.create".into(), ..entry() }
}

impl Subject {
    async fn create(&self, tenant: TenantContext) -> SessionRecord {
        match self.store.create_session(tenant.clone(), new_session(), None, create_entry()).await.unwrap() {
            Created::New(record) => *record,
            Created::Seen(replay) => panic!("{replay:?}"),
        }
    }

    async fn update(
        &self,
        scope: Scope,
        record: &SessionRecord,
        change: SessionChange,
    ) -> Result<SessionRecord, StoreError> {
        self.store.update_session(scope.clone(), record.id, record.revision, change, Some(entry()), None).await
    }
}

/// Runs everything.
pub(super) async fn run(subject: &Subject) {
    a_session_is_read_as_it_was_written(subject).await;
    a_change_needs_the_newest_revision(subject).await;
    foreign_rows_do_not_exist(subject).await;
    a_tenant_sees_what_its_role_shows(subject).await;
    an_idempotency_key_is_taken_once(subject).await;
    a_login_code_works_once_and_in_time(subject).await;
    a_token_leads_to_its_holder(subject).await;
    logins::a_login_is_made_where_its_user_is_a_member(subject).await;
    logins::what_keeps_a_login_alive_is_used_by_one(subject).await;
    logins::a_newcomers_login_comes_along_into_their_first_organisation(subject).await;
    the_outbox_number_only_grows(subject).await;
    unsettled_sessions_are_found(subject).await;
    decisions_are_kept_with_their_session(subject).await;
    audit::run(subject).await;
    organizations::run(subject).await;
    rotation::run(subject).await;
    viewers::run(subject).await;
    operator::run(subject).await;
    viewers::ends_that_nobody_told(subject).await;
}

async fn a_session_is_read_as_it_was_written(subject: &Subject) {
    let made = subject.create(subject.ours.clone()).await;
    assert_eq!((made.org, made.created_by, made.created_at), (subject.ours.org, subject.ours.user, NOW));
    assert_eq!((made.generation, made.revision, made.desired, made.state()), (1, 1, Desired::Run, SpawnState::Pending));
    assert!(made.spawns[0].has_env && !made.spawns[0].accepted);
    let scope = Scope::Tenant(subject.ours.clone());
    assert_eq!(subject.store.session(scope.clone(), made.id).await.unwrap(), made);
    assert_eq!(made.sandbox, new_session().sandbox);
    let spawn = SpawnRecord {
        state: SpawnState::Exited,
        accepted: true,
        report: (1, 7),
        boot_id: Some("boot".to_owned()),
        started: Some(NOW),
        ended: Some(NOW + Duration::MICROSECOND),
        exit: Some(agentapi_shared::Exit {
            code: Some(1),
            signal: None,
            reason: agentapi_shared::ExitReason::Exited,
            detail: "exited with 1".to_owned(),
        }),
        posture: Some(Posture {
            isolation: "root".to_owned(),
            profile: "strict".to_owned(),
            network: NetworkMode::Off,
            limits: Limits { memory_bytes: Some(1), ..Limits::default() },
            degraded: vec!["landlock-abi-2".to_owned()],
        }),
        ..made.spawns[0].clone()
    };
    let next = SpawnRecord { number: 2, ..made.spawns[0].clone() };
    let change = SessionChange {
        name: Some(None),
        size: Some(WindowSize::clamped(80, 24)),
        host: Some(LOCAL_HOST),
        run_command: Some(vec!["/bin/bash".to_owned()]),
        desired: Some(Desired::Stop),
        spawn: Some(spawn.clone()),
        new_spawn: Some(next),
        ..SessionChange::default()
    };
    let changed = subject.update(scope.clone(), &made, change).await.unwrap();
    assert_eq!((changed.revision, changed.generation, changed.desired), (2, 2, Desired::Stop));
    assert_eq!((changed.spawns.len(), &changed.spawns[0], changed.state()), (2, &spawn, SpawnState::Pending));
    assert_eq!(changed.labels, made.labels);
    assert_eq!(subject.store.session(Scope::Host(LOCAL_HOST), made.id).await.unwrap(), changed);
}

async fn a_change_needs_the_newest_revision(subject: &Subject) {
    let scope = Scope::Tenant(subject.ours.clone());
    let made = subject.create(subject.ours.clone()).await;
    let rename = |name: &str| SessionChange { name: Some(Some(name.to_owned())), ..SessionChange::default() };
    let first = subject.update(scope.clone(), &made, rename("first")).await.unwrap();
    assert!(matches!(subject.update(scope.clone(), &made, rename("second")).await, Err(StoreError::Stale)));
    assert_eq!(subject.store.session(scope.clone(), made.id).await.unwrap(), first);
}

async fn foreign_rows_do_not_exist(subject: &Subject) {
    let theirs = subject.create(subject.theirs.clone()).await;
    let ours = Scope::Tenant(subject.ours.clone());
    assert!(matches!(subject.store.session(ours.clone(), theirs.id).await, Err(StoreError::NotFound)));
    assert!(matches!(subject.store.session(Scope::Host(LOCAL_HOST), theirs.id).await, Err(StoreError::NotFound)));
    let change = SessionChange { name: Some(None), ..SessionChange::default() };
    assert!(matches!(subject.update(ours.clone(), &theirs, change).await, Err(StoreError::NotFound)));
    // Removing what does not exist is done, and touches nothing of anyone else.
    subject.store.purge_session(ours.clone(), theirs.id, entry()).await.unwrap();
    assert_eq!(subject.store.session(Scope::Tenant(subject.theirs.clone()), theirs.id).await.unwrap(), theirs);
    let filter = || SessionFilter { limit: 200, ..SessionFilter::default() };
    let listed = subject.store.sessions(subject.ours.clone(), filter()).await.unwrap();
    assert!(!listed.is_empty() && listed.iter().all(|record| record.org == subject.ours.org));
    let by_label = SessionFilter { labels: vec![("key".to_owned(), "it's \"quoted\"; --".to_owned())], ..filter() };
    assert_eq!(subject.store.sessions(subject.theirs.clone(), by_label).await.unwrap(), std::slice::from_ref(&theirs));
    subject.store.purge_session(Scope::System, theirs.id, entry()).await.unwrap();
    assert!(matches!(subject.store.session(Scope::System, theirs.id).await, Err(StoreError::NotFound)));
}

async fn a_tenant_sees_what_its_role_shows(subject: &Subject) {
    let store = &subject.store;
    let [ours, colleague] = [&subject.ours, &subject.colleague].map(|tenant| Scope::Tenant(tenant.clone()));
    let mine = subject.create(subject.ours.clone()).await;
    let own = subject.create(subject.colleague.clone()).await;
    let listed = async |tenant: &TenantContext| {
        let filter = SessionFilter { limit: 200, ..SessionFilter::default() };
        let page = store.sessions(tenant.clone(), filter).await.unwrap();
        page.into_iter().map(|record| record.id).filter(|id| [mine.id, own.id].contains(id)).collect::<Vec<_>>()
    };
    let show = |to| SessionChange { visibility: Some(to), ..SessionChange::default() };
    assert!(matches!(store.session(colleague.clone(), mine.id).await, Err(StoreError::NotFound)));
    assert_eq!(listed(&subject.colleague).await, [own.id]);
    assert_eq!(listed(&subject.ours).await, [own.id, mine.id]);
    // What one does not see cannot be changed, and what one sees not by everyone.
    let refused = subject.update(colleague.clone(), &mine, show(Visibility::Organization)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
    let shared = subject.update(ours.clone(), &mine, show(Visibility::Organization)).await.unwrap();
    assert_eq!(shared.visibility, Visibility::Organization);
    assert_eq!(store.session(colleague.clone(), mine.id).await.unwrap(), shared);
    assert_eq!(listed(&subject.colleague).await, [own.id, mine.id]);
    let refused = subject.update(colleague.clone(), &shared, show(Visibility::Private)).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    assert!(matches!(store.purge_session(colleague.clone(), mine.id, entry()).await, Err(StoreError::Forbidden)));
    assert_eq!(store.session(ours.clone(), mine.id).await.unwrap(), shared);
    let own = subject.update(colleague.clone(), &own, show(Visibility::Organization)).await.unwrap();
    let own = subject.update(ours.clone(), &own, show(Visibility::Private)).await.unwrap();
    // Pages go through both kinds, in order.
    let page = SessionFilter { before: Some(own.id), limit: 1, ..SessionFilter::default() };
    assert_eq!(store.sessions(subject.colleague.clone(), page).await.unwrap(), [shared]);
    store.purge_session(colleague.clone(), own.id, entry()).await.unwrap();
    assert!(matches!(store.session(Scope::System, own.id).await, Err(StoreError::NotFound)));
}

async fn an_idempotency_key_is_taken_once(subject: &Subject) {
    let key = |hash: &str| IdempotencyKey { route: "r".to_owned(), key: "k".to_owned(), request_hash: hash.to_owned() };
    let store = &subject.store;
    let begin =
        async |tenant: TenantContext, hash: &str, at| store.begin_idempotent(tenant, key(hash), at).await.unwrap();
    assert_eq!(begin(subject.ours.clone(), "a", NOW).await, Replay::Fresh);
    assert_eq!(begin(subject.ours.clone(), "a", NOW).await, Replay::InFlight);
    assert_eq!(begin(subject.ours.clone(), "b", NOW).await, Replay::Mismatch);
    assert_eq!(begin(subject.theirs.clone(), "b", NOW).await, Replay::Fresh);
    store.finish_idempotent(subject.ours.clone(), key("a"), 201, "{}".to_owned()).await.unwrap();
    assert_eq!(begin(subject.ours.clone(), "a", NOW).await, Replay::Done { status: 201, body: "{}".to_owned() });
    store.release_idempotent(subject.theirs.clone(), key("b")).await.unwrap();
    assert_eq!(begin(subject.theirs.clone(), "c", NOW).await, Replay::Fresh);
    assert_eq!(begin(subject.ours.clone(), "d", NOW + Duration::days(2)).await, Replay::Fresh);
    // With a create: both or neither.
    let created = IdempotencyKey { route: "create".to_owned(), ..key("a") };
    let new = new_session();
    let first =
        store.create_session(subject.ours.clone(), new.clone(), Some(created.clone()), create_entry()).await.unwrap();
    assert!(matches!(first, Created::New(_)));
    let again = NewSession { id: SessionId::generate(), ..new };
    let second =
        store.create_session(subject.ours.clone(), again.clone(), Some(created), create_entry()).await.unwrap();
    assert_eq!(second, Created::Seen(Replay::InFlight));
    assert!(matches!(store.session(Scope::System, again.id).await, Err(StoreError::NotFound)));
}

async fn a_login_code_works_once_and_in_time(subject: &Subject) {
    let store = &subject.store;
    let (soon, later) = (NOW + Duration::MINUTE, NOW + Duration::DAY);
    store.create_login_code(subject.ours.clone(), code("code", soon), entry()).await.unwrap();
    let redeem = async |code: &str, at| {
        let audit = AuditEntry { at, ..entry() };
        store.redeem_login_code(hash(code), hash(&format!("cookie-{code}")), later, audit).await.unwrap()
    };
    assert_eq!(redeem("other", NOW).await, None);
    assert_eq!(redeem("code", NOW).await.map(|holder| holder.user), Some(subject.ours.user));
    assert_eq!(redeem("code", NOW).await, None);
    store.create_login_code(subject.ours.clone(), code("late", soon), entry()).await.unwrap();
    assert_eq!(redeem("late", NOW + Duration::HOUR).await, None);
    let who = async |at| {
        store
            .browser_session(hash("cookie-code"), at)
            .await
            .unwrap()
            .and_then(|session| session.holder.member())
            .map(|holder| holder.org)
    };
    assert_eq!(who(NOW).await, Some(subject.ours.org));
    assert_eq!(who(later).await, None);
    store.end_browser_session(subject.ours.clone(), hash("cookie-code"), entry()).await.unwrap();
    assert_eq!(who(NOW).await, None);
}

async fn a_token_leads_to_its_holder(subject: &Subject) {
    let store = &subject.store;
    let holder = TokenHolder::User { org: subject.theirs.org, user: subject.theirs.user };
    for _ in 0..2 {
        store.register_token(hash("user"), holder, NOW).await.unwrap();
        store.register_token(hash("host"), TokenHolder::Host(LOCAL_HOST), NOW).await.unwrap();
    }
    let found = store.token(hash("user")).await.unwrap();
    assert!(
        matches!(found, Some(Holder::User(found)) if found.user == subject.theirs.user && found.role == Role::Member)
    );
    assert_eq!(store.token(hash("host")).await.unwrap(), Some(Holder::Host(LOCAL_HOST)));
    assert_eq!(store.token(hash("nobody")).await.unwrap(), None);
}

async fn the_outbox_number_only_grows(subject: &Subject) {
    let store = &subject.store;
    for (seq, expected) in [(3, 3), (2, 3), (4, 4)] {
        store.audit(Scope::Host(LOCAL_HOST), entry(), Some((LOCAL_HOST, seq))).await.unwrap();
        assert_eq!(store.outbox_seen(LOCAL_HOST).await.unwrap(), expected);
    }
}

async fn unsettled_sessions_are_found(subject: &Subject) {
    let store = &subject.store;
    let scope = Scope::Tenant(subject.ours.clone());
    let waiting = subject.create(subject.ours.clone()).await;
    let placed = subject.create(subject.ours.clone()).await;
    let change = SessionChange { host: Some(LOCAL_HOST), ..SessionChange::default() };
    let placed = subject.update(scope.clone(), &placed, change).await.unwrap();
    let ids = async |host| store.unsettled(host).await.unwrap().iter().map(|record| record.id).collect::<Vec<_>>();
    assert!(ids(None).await.contains(&waiting.id) && !ids(None).await.contains(&placed.id));
    assert!(ids(Some(LOCAL_HOST)).await.contains(&placed.id));
    let ended = SpawnRecord { state: SpawnState::Exited, ..placed.spawns[0].clone() };
    let change = SessionChange { spawn: Some(ended), ..SessionChange::default() };
    let placed = subject.update(scope.clone(), &placed, change).await.unwrap();
    assert!(!ids(Some(LOCAL_HOST)).await.contains(&placed.id));
    let change = SessionChange { purging: Some(true), ..SessionChange::default() };
    subject.update(scope.clone(), &placed, change).await.unwrap();
    assert!(ids(Some(LOCAL_HOST)).await.contains(&placed.id));
}

async fn decisions_are_kept_with_their_session(subject: &Subject) {
    let store = &subject.store;
    let scope = Scope::Tenant(subject.ours.clone());
    let placed = subject.create(subject.ours.clone()).await;
    let change = SessionChange { host: Some(LOCAL_HOST), ..SessionChange::default() };
    let placed = subject.update(scope.clone(), &placed, change).await.unwrap();
    let elsewhere = subject.create(subject.theirs.clone()).await;
    let decision = |session: SessionId, verdict| EgressDecision {
        id: EventId::generate(),
        session,
        spawn: 1,
        at: NOW,
        host: "it's.example".to_owned(),
        port: 443,
        address: (verdict == EgressVerdict::Allowed).then(|| "192.0.2.1".to_owned()),
        verdict,
        rule: "no_rule".to_owned(),
        bytes_up: 1,
        bytes_down: u64::from(u32::MAX) + 1,
        duration_ms: 3,
        times: 1,
    };
    let all = [EgressVerdict::Allowed, EgressVerdict::Denied, EgressVerdict::WouldDeny].map(|v| decision(placed.id, v));
    let seq = store.outbox_seen(LOCAL_HOST).await.unwrap() + 1;
    for decision in all.iter().chain(&all) {
        store.record_egress(LOCAL_HOST, decision.clone(), Some((LOCAL_HOST, seq))).await.unwrap();
    }
    assert_eq!(store.outbox_seen(LOCAL_HOST).await.unwrap(), seq);
    // Of a session that is not on this host, and of none at all: nothing to keep, and no reason to send it again.
    for foreign in [elsewhere.id, SessionId::generate()] {
        let foreign = decision(foreign, EgressVerdict::Denied);
        store.record_egress(LOCAL_HOST, foreign, Some((LOCAL_HOST, seq + 1))).await.unwrap();
    }
    assert_eq!(store.outbox_seen(LOCAL_HOST).await.unwrap(), seq + 1);
    let list = async |filter| store.egress(scope.clone(), placed.id, filter).await.unwrap();
    let newest_first: Vec<EgressDecision> = all.iter().rev().cloned().collect();
    assert_eq!(list(EgressFilter { limit: 10, ..EgressFilter::default() }).await, newest_first);
    let page = EgressFilter { before: Some(all[2].id), limit: 1, verdict: None };
    assert_eq!(list(page).await, std::slice::from_ref(&all[1]));
    let denied = EgressFilter { verdict: Some(EgressVerdict::Denied), before: None, limit: 10 };
    assert_eq!(list(denied).await, std::slice::from_ref(&all[1]));
    let any = EgressFilter { limit: 10, ..EgressFilter::default() };
    assert!(store.egress(Scope::Tenant(subject.theirs.clone()), elsewhere.id, any.clone()).await.unwrap().is_empty());
    let foreign = store.egress(Scope::Tenant(subject.theirs.clone()), placed.id, any.clone()).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    store.purge_session(scope.clone(), placed.id, entry()).await.unwrap();
    store.record_egress(LOCAL_HOST, all[0].clone(), None).await.unwrap();
    assert!(matches!(store.egress(Scope::System, placed.id, any).await, Err(StoreError::NotFound)));
}
