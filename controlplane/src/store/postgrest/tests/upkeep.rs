//! What others do in the database reaches the control plane.

use agentapi_shared::UserId;
use time::{Duration, OffsetDateTime};

use super::real::Real;
use crate::capability::Role;
use crate::store::contract::{entry, new_session};
use crate::store::records::{AuditEntry, Desired, NewLoginCode};
use crate::store::{Created, CredentialStore as _, Scope, SessionStore as _, UpkeepStore as _};

#[tokio::test]
async fn whoever_is_deleted_elsewhere_is_shut_out_and_their_sessions_stop_and_nobody_elses() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let owner = real.owner().await?;
    let leaver = real.person(owner.org, UserId::generate(), Role::Member).await?;
    real.cluster.sql_as("supabase_admin", "insert into auth.users (id) select id from agentapi.users").await?;
    let mut sessions = Vec::new();
    for tenant in [&owner, &leaver] {
        let new = new_session();
        let audit = AuditEntry { action: "session.create".into(), session: Some(new.id), ..entry() };
        match real.store.create_session(tenant.clone(), new, None, audit).await? {
            Created::New(record) => sessions.push(record.id),
            Created::Seen(replay) => anyhow::bail!("{replay:?}"),
        }
    }
    assert!(real.store.upkeep_every().is_some());
    assert_eq!(real.store.end_deleted_users().await?, [], "everybody is there");
    let gone = format!("delete from auth.users where id = '{}'", leaver.user);
    real.cluster.sql_as("supabase_admin", &gone).await?;
    assert_eq!(real.store.end_deleted_users().await?, [sessions[1]]);
    assert_eq!(real.store.end_deleted_users().await?, [sessions[1]], "until its host has ended it");
    let records = "select count(*) from agentapi.audit_logs where action = 'session.stop'";
    assert_eq!(real.cluster.sql(records).await?.trim(), "1", "recorded once");
    let desired = async |at: usize| real.store.session(Scope::System, sessions[at]).await.map(|record| record.desired);
    assert_eq!((desired(0).await?, desired(1).await?), (Desired::Run, Desired::Stop));
    assert!(real.store.session(Scope::Tenant(leaver.clone()), sessions[1]).await.is_err());
    // One that was being made in that moment: it was committed afterwards.
    let late = "update agentapi.user_sessions set desired = 'run', revision = revision + 1 where id";
    real.cluster.sql(&format!("{late} = '{}'", sessions[1])).await?;
    assert_eq!((real.store.end_deleted_users().await?, desired(1).await?), (vec![sessions[1]], Desired::Stop));
    Ok(())
}

#[tokio::test]
async fn what_is_over_is_removed() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let owner = real.owner().await?;
    let now = OffsetDateTime::now_utc();
    for (code, lasts) in [("a", Duration::minutes(1)), ("b", Duration::hours(2))] {
        let new = NewLoginCode { hash: code.repeat(64), expires_at: now + lasts, made_by: None };
        real.store.create_login_code(owner.clone(), new, entry()).await?;
    }
    assert_eq!(real.store.sweep(now + Duration::hours(1)).await?, 1);
    assert_eq!(real.cluster.sql("select count(*) from agentapi.login_codes").await?.trim(), "1");
    Ok(())
}
