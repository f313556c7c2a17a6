//! What goes wrong between here and the database, and what must not become wrong by it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agentapi_shared::api::{SandboxRequest, Visibility, Workspace};
use agentapi_shared::audit::Personal;
use agentapi_shared::{EventId, SessionId, WindowSize};
use agentapi_test_postgres::jwt;
use anyhow::Result;
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::real::{Real, TestProject, store};
use crate::store::postgrest::Postgrest;
use crate::store::records::{
    AuditEntry, CallerToken, LOCAL_HOST, LastOwner, NewSession, SessionFilter, TenantContext, TokenHolder,
};
use crate::store::{
    AuditStore as _, Created, CredentialStore as _, HostStore as _, OperatorStore as _, Scope, SessionStore as _,
    Store as _, StoreError,
};

fn entry(detail: &str) -> AuditEntry {
    AuditEntry {
        id: EventId::generate(),
        at: OffsetDateTime::now_utc(),
        action: "test".into(),
        channel: "api",
        session: None,
        host: None,
        detail: json!({ "text": detail }),
        org: None,
        job: AuditEntry::SYSTEM,
        credential: None,
        request: None,
        personal: Personal::default(),
    }
}

#[tokio::test]
async fn a_proof_that_is_lost_is_registered_again() -> Result<()> {
    let real = Real::start().await?;
    let owner = Scope::Tenant(real.owner().await?);
    let proofs = async || real.cluster.sql("select string_agg(hash::text, ' ') from agentapi_private.proofs").await;
    let first = proofs().await?;
    real.store.audit(owner.clone(), entry("with the first"), None).await?;
    assert_eq!(proofs().await?, first, "one is enough");
    real.cluster.sql("delete from agentapi_private.proofs").await?;
    // Many at once: each gets on, and one registers.
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (store, owner) = (real.store.clone(), owner.clone());
        all.spawn(async move { store.audit(owner, entry("with the next"), None).await });
    }
    while let Some(answer) = all.join_next().await {
        answer??;
    }
    let second = proofs().await?;
    assert!(!second.is_empty() && !second.contains(' ') && second != first, "{second}");
    Ok(())
}

#[tokio::test]
async fn whoever_is_disabled_here_is_nobody_at_once() -> Result<()> {
    let real = Real::start().await?;
    let owner = real.owner().await?;
    let holder = TokenHolder::User { org: owner.org, user: owner.user };
    let hash = jwt::sha256_hex("token");
    real.store.register_token(hash.clone(), holder, OffsetDateTime::now_utc()).await?;
    assert!(real.store.token(hash.clone()).await?.is_some());
    let audit = AuditEntry { action: "user.disable".into(), ..entry("") };
    assert_eq!(real.store.disable_user(owner.user, LastOwner::Goes, audit).await?, 0);
    assert_eq!(real.store.token(hash).await?, None);
    Ok(())
}

#[tokio::test]
async fn text_that_postgres_cannot_keep_stops_nothing() -> Result<()> {
    let real = Real::start().await?;
    real.store.audit(Scope::Host(LOCAL_HOST), entry("a\0b"), Some((LOCAL_HOST, 1))).await?;
    assert_eq!(real.store.outbox_seen(LOCAL_HOST).await?, 1);
    let stored =
        real.cluster.sql("select entry::jsonb #>> '{detail,text}' from agentapi.audit_logs where action = 'test'");
    assert_eq!(stored.await?, "a\u{fffd}b");
    Ok(())
}

#[tokio::test]
async fn a_quota_is_told_by_its_word() -> Result<()> {
    let real = Real::start().await?;
    let owner = real.owner().await?;
    let create = async || {
        let new = NewSession {
            id: SessionId::generate(),
            at: OffsetDateTime::now_utc(),
            name: Some("a\0b".to_owned()),
            labels: BTreeMap::new(),
            agent: "custom".to_owned(),
            command: Vec::new(),
            args: Vec::new(),
            size: WindowSize::DEFAULT,
            workspace: Workspace::default(),
            sandbox: SandboxRequest::default(),
            has_env: false,
            visibility: Visibility::Private,
        };
        let audit = AuditEntry { action: "session.create".into(), ..entry("") };
        real.store.create_session(owner.clone(), new, None, audit).await
    };
    let Created::New(record) = create().await? else { anyhow::bail!("it is made") };
    let stored = real.store.session(Scope::Tenant(owner.clone()), record.id).await?;
    assert_eq!(stored.name.as_deref(), Some("a\u{fffd}b"));
    for (column, word) in [("sessions_max", "quota_sessions"), ("sessions_per_day_max", "quota_sessions_per_day")] {
        real.cluster.sql(&format!("update agentapi.organizations set {column} = 1")).await?;
        let refused = create().await;
        assert!(matches!(&refused, Err(StoreError::Quota(found)) if found == word), "{refused:?}");
        real.cluster.sql(&format!("update agentapi.organizations set {column} = null")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_decides_and_not_what_is_said_beside_it() -> Result<()> {
    let real = Real::start().await?;
    let (owner, member) = (real.owner().await?, real.member().await?);
    let page = SessionFilter { limit: 10, ..SessionFilter::default() };
    let with = |token: String| TenantContext { token: Some(CallerToken::new(&token)), ..owner.clone() };
    let claims = |change: serde_json::Value| {
        let mut claims = jwt::claims(uuid::Uuid::from_u128(owner.user.as_u128()));
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        jwt::signed(&claims, jwt::SECRET)
    };
    let own = with(claims(json!({})));
    real.store.audit(Scope::Tenant(own.clone()), entry("own"), None).await?;
    let over = with(claims(json!({ "exp": jwt::now() - 3600 })));
    assert!(matches!(real.store.sessions(over, page.clone()).await, Err(StoreError::Unauthenticated)));
    let forged = with(jwt::signed(
        &jwt::claims(uuid::Uuid::from_u128(owner.user.as_u128())),
        "another-secret-of-32-characters-!",
    ));
    assert!(matches!(real.store.sessions(forged, page.clone()).await, Err(StoreError::Unauthenticated)));
    // Of somebody else: said to be the owner of our organisation, and it does not exist for them.
    let foreign = with(claims(json!({ "sub": member.user })));
    let refused = real.store.audit(Scope::Tenant(foreign), entry("foreign"), None).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn all_is_all_although_the_server_gives_a_thousand() -> Result<()> {
    const SESSIONS: usize = 1234;
    let real = Real::start().await?;
    let owner = real.owner().await?;
    real.cluster
        .sql(&format!(
            "insert into agentapi.user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace,
               sandbox, desired, generation, stop_grace_ms, revision, state)
             select ('01a00000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{}', '{}', now(), '{{}}', 'custom', '[]', '[]', 80, 24,
               '{{}}', '{{}}', 'run', 1, 1, 1, 'pending' from generate_series(1, {SESSIONS}) as n;
             insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state)
             select id, 1, org_id, created_by, now(), state from agentapi.user_sessions;",
            owner.org, owner.user
        ))
        .await?;
    let found = real.store.unsettled(None).await?;
    assert_eq!(found.len(), SESSIONS);
    assert!(found.is_sorted_by_key(|record| record.id) && found.iter().all(|record| record.spawns.len() == 1));
    Ok(())
}

/// Something that takes connections and does `act` with each; how many came.
async fn listener(close: bool) -> Result<(SocketAddr, Arc<AtomicUsize>, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, came) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let (count, mut tasks) = (came.clone(), JoinSet::new());
    tasks.spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            if close {
                // After the request, so that it was sent.
                let mut bytes = [0; 1];
                let _read = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await;
            } else {
                kept.push(stream);
            }
        }
    });
    Ok((address, came, tasks))
}

fn impatient(address: SocketAddr) -> Result<Postgrest> {
    store(TestProject::new(&format!("http://{address}"))?)
}

#[tokio::test]
async fn a_server_that_is_silent_is_away_within_three_seconds() -> Result<()> {
    let (address, _, _tasks) = listener(false).await?;
    let before = Instant::now();
    let answer = impatient(address)?.ping().await;
    assert!(matches!(&answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    Ok(())
}

#[tokio::test]
async fn only_what_cannot_be_done_twice_by_it_is_asked_again() -> Result<()> {
    let (address, came, _tasks) = listener(true).await?;
    let store = impatient(address)?;
    assert!(store.ping().await.is_err());
    assert_eq!(came.swap(0, Ordering::Relaxed), 4, "a read is asked again");
    assert!(store.session(Scope::System, SessionId::generate()).await.is_err());
    assert_eq!(came.swap(0, Ordering::Relaxed), 4);
    // The proof's registration comes first, and may be made again; with it known, a write that must run once is sent once.
    store.client.assume_proof();
    let change = crate::store::records::SessionChange::default();
    let update = store.update_session(Scope::System, SessionId::generate(), 1, change, None, None).await;
    assert!(matches!(update, Err(StoreError::Unavailable(_))));
    assert_eq!(came.swap(0, Ordering::Relaxed), 1, "a change is sent once");
    assert!(store.host_seen(LOCAL_HOST, OffsetDateTime::now_utc()).await.is_err());
    assert_eq!(came.swap(0, Ordering::Relaxed), 4, "one that is the same twice is not");
    Ok(())
}
