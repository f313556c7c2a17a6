//! Live sockets end with the credential that opened them: when it is revoked, and when it expires.

use agentapi_shared::viewer::close;
use time::OffsetDateTime;

use super::client::{Got, Harness, Viewer};
use super::host::SimHost;
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::domain::audit;
use crate::store::records::{DEFAULT_ORG, LOCAL_ADMIN, NewLoginCode, TenantContext};

/// A browser session, as the `Cookie` header has it.
pub(super) async fn log_in(harness: &Harness, expires_at: OffsetDateTime) -> String {
    let (code, cookie) = (Secret::generate(""), Secret::generate(""));
    let (tenant, store) =
        (TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None }, &harness.plane.store);
    let entry = || audit::of_account("web", "login");
    let new = NewLoginCode { hash: code.hash(), expires_at, made_by: None };
    store.create_login_code(tenant, new, entry()).await.unwrap();
    let holder = store.redeem_login_code(code.hash(), cookie.hash(), expires_at, entry()).await.unwrap();
    assert!(holder.is_some());
    format!("agentapi_{}={}", harness.base.rsplit(':').next().unwrap(), cookie.expose())
}

pub(super) async fn closed(viewer: &mut Viewer) -> u16 {
    let code = |_: &Viewer, got: &Got| match got {
        Got::Closed(code) => Some(*code),
        _ => None,
    };
    viewer.until("close", code).await
}

pub(super) async fn see_keyframe(viewer: &mut Viewer) {
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_logout_closes_the_terminals_of_that_browser_only() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let later = clock::now() + time::Duration::hours(1);
    let (mine, other) = (log_in(&harness, later).await, log_in(&harness, later).await);
    let mut viewer = harness.view_with_cookie(id, &mine).await;
    let mut others = harness.view_with_cookie(id, &other).await;
    see_keyframe(&mut viewer).await;
    see_keyframe(&mut others).await;
    let logout = harness.request("POST", "/api/v1/logout").header("cookie", &mine).header("origin", &harness.base);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    assert_eq!(closed(&mut viewer).await, close::UNAUTHORIZED);
    harness.call("DELETE", &format!("/api/v1/sessions/{id}?purge=true&force=true"), None).await;
    assert_eq!(closed(&mut others).await, close::SESSION_GONE);
}

#[tokio::test]
async fn a_cookie_that_expires_closes_its_terminal_and_its_events() {
    // Longer than it takes to open both, shorter than any other clock of a connection.
    const LIFETIME_SECONDS: u16 = 12;
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let cookie = log_in(&harness, clock::now() + time::Duration::seconds(LIFETIME_SECONDS.into())).await;
    let mut viewer = harness.view_with_cookie(id, &cookie).await;
    see_keyframe(&mut viewer).await;
    let mut by_token = harness.view(id, "").await;
    see_keyframe(&mut by_token).await;
    let events = harness.request("GET", "/api/v1/events").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(events.status(), 200);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(LIFETIME_SECONDS.into())).await;
    tokio::time::resume();
    assert_eq!(closed(&mut viewer).await, close::UNAUTHORIZED);
    assert!(events.text().await.unwrap().starts_with("event: hello"), "the stream ends as a whole one");
    // A token does not expire.
    harness.call("DELETE", &format!("/api/v1/sessions/{id}?purge=true&force=true"), None).await;
    assert_eq!(closed(&mut by_token).await, close::SESSION_GONE);
}
