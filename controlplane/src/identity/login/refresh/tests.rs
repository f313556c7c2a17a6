//! Logins kept alive on the embedded store, by two replicas at once, and through whatever goes wrong meanwhile.

use std::time::Duration as StdDuration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::identity::fetch;
use crate::identity::project::ProjectKeys;
use crate::identity::tests::Dir;
use crate::identity::tests::auth::{Auth, PASSWORD};
use crate::identity::tests::issuer::Issuer;
use crate::identity::tests::signer::Signer;
use crate::identity::verify::Verifier;
use crate::store::records::{DEFAULT_ORG, LOCAL_ADMIN, NewLogin};
use crate::store::sqlite::Sqlite;

/// A project, a store, and a browser that is logged in.
struct World {
    dir: Dir,
    auth: Arc<Auth>,
    client: Arc<SupabaseAuth>,
    store: Sqlite,
    login: String,
    tasks: TaskGroup,
    _issuer: Issuer,
}

impl World {
    async fn new() -> Self {
        let (signer, mut auth) = (Signer::es256("key"), None);
        let jwk = signer.jwk.clone();
        let issuer = Issuer::with(&[&jwk], |address| {
            let made = Auth::new(format!("http://{address}/auth/v1"), signer);
            auth = Some(made.clone());
            made.router()
        })
        .await;
        let project = ProjectKeys::open(|name| match name {
            "SUPABASE_URL" => Some(issuer.url()),
            "SUPABASE_ANON_KEY" => Some("sb_publishable_a".to_owned()),
            "SUPABASE_SERVICE_ROLE_KEY" => Some("sb_secret_a".to_owned()),
            _ => None,
        });
        let (project, http) = (project.unwrap().unwrap(), fetch::client().unwrap());
        let verifier = Verifier::start(project.clone(), http.clone()).await.unwrap().unwrap();
        let client = Arc::new(SupabaseAuth::of(http, project, Arc::new(verifier)).unwrap());
        let dir = Dir::new();
        let store = Sqlite::open(&dir.path("controlplane.db")).unwrap();
        let login = Secret::generate("").hash();
        let world = Self { dir, auth: auth.unwrap(), client, store, login, tasks: TaskGroup::new(), _issuer: issuer };
        world.log_in().await;
        world
    }

    /// A browser that logs in by password.
    async fn log_in(&self) {
        let grant = self.client.password("ada@example.com", &Secret::from_text(PASSWORD.to_owned())).await.unwrap();
        let audit = crate::domain::audit::of_account("web", "login");
        let login = NewLogin {
            user: LOCAL_ADMIN,
            org: None,
            cookie: self.login.clone(),
            expires_at: clock::now() + Duration::hours(1),
            by: "password".to_owned(),
            auth_session: grant.caller.session.clone(),
            refresh: Some(self.replica().sealed(&self.login, &grant.refresh).unwrap()),
            audit,
        };
        let holder = self.store.begin_login(login).await.unwrap().unwrap().member().unwrap();
        assert_eq!((holder.user, holder.org), (LOCAL_ADMIN, DEFAULT_ORG));
    }

    /// One control plane of several.
    fn replica(&self) -> Refresher {
        let sealer = Arc::new(Sealer::open_file(&self.dir.path("sealing.keys")).unwrap());
        Refresher::new(self.client.clone(), sealer, Arc::new(self.store.clone()), self.tasks.clone())
    }
}

#[tokio::test]
async fn replicas_that_renew_at_once_use_nothing_twice() {
    let world = World::new().await;
    // Tokens that are over when they come, as good as: each question is a renewal.
    world.auth.live_for(30);
    let (one, two) = (world.replica(), world.replica());
    let questions = (0..10).flat_map(|_| [one.caller(&world.login), two.caller(&world.login)]);
    for caller in join_all(questions).await {
        assert_eq!(caller.unwrap().unwrap().user.to_string(), world.auth.user().to_string());
    }
    let (refreshed, reused) = world.auth.counts();
    assert_eq!((refreshed, reused), (20, 0));

    // With tokens that live, one renewal is enough for all who ask one replica.
    world.auth.live_for(3600);
    let all = join_all((0..10).map(|_| one.caller(&world.login))).await;
    let first = all[0].as_ref().unwrap().as_ref().unwrap().token.clone();
    assert!(all.into_iter().all(|caller| caller.unwrap().unwrap().token == first));
    assert_eq!(world.auth.counts(), (21, 0));
    // What is in the database renews nothing for whoever reads it.
    let stored = std::fs::read(world.dir.path("controlplane.db-wal")).unwrap();
    assert!(!stored.is_empty() && !stored.windows(first.expose().len()).any(|part| part == first.expose().as_bytes()));
}

#[tokio::test]
async fn a_browser_that_hangs_up_loses_nothing() {
    let world = World::new().await;
    let replica = world.replica();
    let told = Arc::new(Notify::new());
    world.auth.wait_for(Some(told.clone()));
    let deadline = Instant::now() + StdDuration::from_secs(4);
    {
        let asking = replica.caller(&world.login);
        tokio::pin!(asking);
        while world.auth.counts().0 == 0 {
            tokio::select! {
                answered = &mut asking => panic!("answered before the issuer did: {answered:?}"),
                () = tokio::task::yield_now() => {}
            }
            assert!(Instant::now() < deadline, "the issuer is asked");
        }
    }
    world.auth.wait_for(None);
    told.notify_one();
    // What came of it is there for the next who asks, here and elsewhere.
    replica.caller(&world.login).await.unwrap();
    world.replica().caller(&world.login).await.unwrap();
    assert_eq!(world.auth.counts(), (2, 0));
}

#[tokio::test]
async fn an_issuer_that_fails_ends_no_login() {
    let world = World::new().await;
    let replica = world.replica();
    let failures = [
        (500, json!({})),
        (503, json!("down")),
        (429, json!({ "error_code": "over_request_rate_limit" })),
        // A wrong key of the project is no fault of those who are logged in.
        (401, json!({ "message": "Invalid API key" })),
        (200, json!({ "nothing": "of use" })),
    ];
    for failure in failures {
        world.auth.break_with(Some(failure.clone()));
        let refused = replica.caller(&world.login).await.unwrap_err();
        assert!(matches!(refused, RefreshError::Login(_)), "{failure:?}: {refused:?}");
    }
    world.auth.break_with(None);
    replica.caller(&world.login).await.unwrap();
    assert_eq!(world.auth.counts(), (1, 0));
}

#[tokio::test]
async fn a_login_that_ended_is_over() {
    let world = World::new().await;
    let replica = world.replica();
    replica.caller(&world.login).await.unwrap();
    world.auth.end_all();
    // What is here is good until its end; nothing comes after it.
    replica.caller(&world.login).await.unwrap();
    replica.forget(&world.login);
    for _ in 0..2 {
        let over =
            tokio::time::timeout(WAIT_MAX + StdDuration::from_secs(1), replica.caller(&world.login)).await.unwrap();
        assert!(matches!(over, Err(RefreshError::Over)), "{over:?}");
    }
    // So is one whose secret is sealed with a key that is gone. One with no issuer behind it has no token.
    assert!(matches!(replica.caller("none").await, Ok(None)));
    let world = World::new().await;
    std::fs::remove_file(world.dir.path("sealing.keys")).unwrap();
    assert!(matches!(world.replica().caller(&world.login).await, Err(RefreshError::Over)));
}

#[tokio::test]
async fn a_replica_that_died_keeps_nobody_waiting_for_long() {
    let world = World::new().await;
    let (now, replica) = (clock::now(), world.replica());
    let until = now + Duration::milliseconds(500);
    let taken = world.store.take_refresh(world.login.clone(), now, until).await.unwrap();
    assert!(matches!(taken, RefreshTaken::Taken(_)));
    assert_eq!(world.store.take_refresh(world.login.clone(), now, until).await.unwrap(), RefreshTaken::Busy);
    replica.caller(&world.login).await.unwrap();
    assert!(clock::now() >= until, "it waited");
    // Whoever comes back after that ends nobody else's taking.
    let late = world.store.put_refresh(world.login.clone(), until, None).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
}

#[tokio::test]
async fn passwords_are_judged_by_the_issuer_and_addresses_too() {
    let world = World::new().await;
    let secret = |text: &str| Secret::from_text(text.to_owned());
    let right = secret(PASSWORD);
    let grant = world.client.password("ada@example.com", &right).await.unwrap();
    assert_eq!((grant.caller.email.as_deref(), grant.caller.email_verified), (Some("ada@example.com"), true));
    let asked = world.client.person(Caller { email_verified: false, ..grant.caller.clone() }).await.unwrap();
    assert_eq!(asked, grant.caller);

    let refusals = [
        ("ada@example.com", secret("wrong"), "Refused"),
        ("nobody@example.com", right.clone(), "Refused"),
        ("bob@example.com", right.clone(), "Unconfirmed"),
    ];
    for (email, password, expected) in refusals {
        let refused = world.client.password(email, &password).await.unwrap_err();
        assert_eq!(format!("{refused:?}"), expected, "{email}");
    }
    world.auth.break_with(Some((429, json!({ "error_code": "over_request_rate_limit" }))));
    assert!(matches!(world.client.password("ada@example.com", &right).await, Err(LoginError::TooMany)));
    world.auth.break_with(Some((500, json!({}))));
    assert!(matches!(world.client.password("ada@example.com", &right).await, Err(LoginError::Unavailable(_))));
    // An answer that speaks of somebody else than its token does.
    let other = json!({
        "access_token": grant.caller.token.expose(), "refresh_token": "x",
        "user": { "id": "7d0c0a54-7a3c-4c8e-9b7e-1f2d3c4b5a69", "email": "root@example.com", "email_confirmed_at": "2026" }
    });
    world.auth.break_with(Some((200, other)));
    assert!(matches!(world.client.password("ada@example.com", &right).await, Err(LoginError::Token(_))));
    world.auth.break_with(None);

    world.client.end(&grant.caller.token).await.unwrap();
    assert!(matches!(world.client.refresh(&grant.refresh).await, Err(LoginError::Over)));
    assert!(matches!(world.client.person(grant.caller.clone()).await, Err(LoginError::Over)));
    // Twice is once.
    world.client.end(&grant.caller.token).await.unwrap();
}
