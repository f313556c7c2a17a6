//! Logins with an issuer behind them: made where their user is a member, and kept alive by one at a time.

use agentapi_shared::{OrgId, UserId};
use futures_util::future::join_all;
use time::Duration;

use super::{NOW, StoreError, Subject, entry, hash};
use crate::capability::Role;
use crate::store::records::{LoginHolder, NewLogin, NewcomerHolder, RefreshTaken, Sealed, TenantContext};

fn sealed(text: &str) -> Sealed {
    Sealed { key_id: format!("key of {text}"), ciphertext: [text.as_bytes(), &[0, 255]].concat() }
}

fn login(tenant: &TenantContext, cookie: &str, refresh: Option<Sealed>) -> NewLogin {
    NewLogin {
        user: tenant.user,
        org: None,
        cookie: hash(cookie),
        expires_at: NOW + Duration::hours(1),
        by: "https://issuer.example".to_owned(),
        auth_session: Some("session".to_owned()),
        refresh,
        audit: super::AuditEntry { action: "login".into(), channel: "web", ..entry() },
    }
}

pub(super) async fn a_login_is_made_where_its_user_is_a_member(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let holder = store.begin_login(login(ours, "of ours", None)).await.unwrap().unwrap().member().unwrap();
    assert_eq!((holder.user, holder.org, holder.role), (ours.user, ours.org, ours.role));
    let session = store.browser_session(hash("of ours"), NOW).await.unwrap().unwrap();
    assert_eq!((session.holder, session.expires_at), (LoginHolder::Member(holder), NOW + Duration::hours(1)));
    let named = NewLogin { org: Some(ours.org), ..login(ours, "named", None) };
    assert!(store.begin_login(named).await.unwrap().is_some());

    // Where they are none, and of nobody: none is made.
    for (user, org) in [
        (ours.user, Some(subject.theirs.org)),
        (ours.user, Some(OrgId::generate())),
        (UserId::generate(), Some(ours.org)),
        (UserId::generate(), None),
    ] {
        let foreign = NewLogin { user, org, ..login(ours, "foreign", None) };
        assert!(store.begin_login(foreign).await.unwrap().is_none());
    }
    assert!(store.browser_session(hash("foreign"), NOW).await.unwrap().is_none());
}

/// Somebody who is in no organisation has a login that opens none, until they come into one; then it is one of that, and ends with it.
pub(super) async fn a_newcomers_login_comes_along_into_their_first_organisation(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let gil = subject.newcomer("gil@example.com", true).await;
    let begin = async |cookie: &str| {
        let new = login(&gil, cookie, Some(sealed("gil's")));
        store.begin_login(new).await.unwrap().unwrap()
    };
    let whose = async |cookie: &str| {
        let found = store.browser_session(hash(cookie), NOW).await.unwrap();
        found.map(|session| session.holder)
    };
    let newcomer = LoginHolder::Newcomer(NewcomerHolder { user: gil.user, name: "Ada".to_owned() });
    assert_eq!(begin("gil's first").await, newcomer);
    assert_eq!(whose("gil's first").await.as_ref(), Some(&newcomer));
    // One at a time, so that strangers do not fill the store; it can be kept alive like others, and ended.
    begin("gil's second").await;
    assert_eq!((whose("gil's first").await, whose("gil's second").await), (None, Some(newcomer)));
    let until = NOW + Duration::seconds(30);
    let taken = store.take_refresh(hash("gil's second"), NOW, until).await.unwrap();
    assert_eq!(taken, RefreshTaken::Taken(sealed("gil's")));
    store.put_refresh(hash("gil's second"), until, None).await.unwrap();
    store.end_newcomer_login(gil.user, hash("gil's second"), entry()).await.unwrap();
    assert_eq!(whose("gil's second").await, None);
    // Nobody else's login ends that way.
    store.begin_login(login(ours, "of a member", None)).await.unwrap().unwrap();
    store.end_newcomer_login(ours.user, hash("of a member"), entry()).await.unwrap();
    assert!(whose("of a member").await.is_some());

    begin("gil's third").await;
    subject.invite("gil@example.com", "gil", Role::Member).await;
    store.accept_invitation(gil.clone(), ours.org, hash("gil"), entry()).await.unwrap();
    let member = whose("gil's third").await.unwrap().member().unwrap();
    assert_eq!((member.user, member.org, member.role), (gil.user, ours.org, Role::Member));
    assert_eq!(store.member(ours.org, gil.user).await.unwrap(), Some(member));
    assert_eq!(store.member(subject.theirs.org, gil.user).await.unwrap(), None);

    // Gone for good: coming back, they come without what they had, and so does whoever was something less when they left.
    store.create_login_code(gil.clone(), super::code("gil's code", NOW + Duration::DAY), entry()).await.unwrap();
    let key = super::organizations::key("gil's", "gil-key");
    store.create_api_key(gil.clone(), key, entry()).await.unwrap();
    store.set_member_role(ours.clone(), gil.user, Role::Viewer, entry()).await.unwrap();
    for (round, by) in [&gil, ours].into_iter().enumerate() {
        store.remove_member(by.clone(), gil.user, entry()).await.unwrap();
        assert_eq!(whose("gil's third").await, None);
        assert_eq!(store.member(ours.org, gil.user).await.unwrap(), None);
        let secret = format!("gil again {round}");
        subject.invite("gil@example.com", &secret, Role::Member).await;
        store.accept_invitation(gil.clone(), ours.org, hash(&secret), entry()).await.unwrap();
        for cookie in ["gil's third", "gil's fourth"] {
            assert_eq!(whose(cookie).await, None, "round {round}");
            let gone = store.take_refresh(hash(cookie), NOW, until).await.unwrap();
            assert_eq!(gone, RefreshTaken::Gone);
        }
        assert_eq!(store.token(hash("gil-key")).await.unwrap(), None);
        let late = super::AuditEntry { at: NOW, ..entry() };
        let redeemed = store.redeem_login_code(hash("gil's code"), hash("no"), NOW + Duration::DAY, late).await;
        assert_eq!(redeemed.unwrap(), None);
        if round == 0 {
            store.begin_login(login(&gil, "gil's fourth", Some(sealed("more")))).await.unwrap().unwrap();
            assert!(whose("gil's fourth").await.unwrap().member().is_some());
        }
    }
    store.remove_member(ours.clone(), gil.user, entry()).await.unwrap();
}

pub(super) async fn what_keeps_a_login_alive_is_used_by_one(subject: &Subject) {
    let (store, cookie) = (&subject.store, hash("alive"));
    store.begin_login(login(&subject.ours, "alive", Some(sealed("first")))).await.unwrap().unwrap();
    store.begin_login(login(&subject.ours, "without", None)).await.unwrap().unwrap();
    let (until, later) = (NOW + Duration::seconds(30), NOW + Duration::seconds(31));

    // At once: one has it.
    let taken = join_all((0..8).map(|_| store.take_refresh(cookie.clone(), NOW, until))).await;
    let (got, busy): (Vec<_>, Vec<_>) =
        taken.into_iter().map(Result::unwrap).partition(|taken| *taken != RefreshTaken::Busy);
    assert_eq!((got, busy.len()), (vec![RefreshTaken::Taken(sealed("first"))], 7));

    // One who died with it is forgotten after its time, and ends nobody else's taking.
    let next_until = later + Duration::seconds(30);
    let again = store.take_refresh(cookie.clone(), later, next_until).await.unwrap();
    assert_eq!(again, RefreshTaken::Taken(sealed("first")));
    let late = store.put_refresh(cookie.clone(), until, Some(sealed("lost"))).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    store.put_refresh(cookie.clone(), next_until, Some(sealed("second"))).await.unwrap();
    // Not used: as it was.
    for _ in 0..2 {
        let taken = store.take_refresh(cookie.clone(), later, next_until).await.unwrap();
        assert_eq!(taken, RefreshTaken::Taken(sealed("second")));
        store.put_refresh(cookie.clone(), next_until, None).await.unwrap();
    }

    let over = NOW + Duration::hours(2);
    for (login, now) in [(hash("none"), NOW), (hash("without"), NOW), (cookie.clone(), over)] {
        let gone = store.take_refresh(login, now, now + Duration::seconds(30)).await.unwrap();
        assert_eq!(gone, RefreshTaken::Gone);
    }
    store.end_browser_session(subject.ours.clone(), cookie.clone(), entry()).await.unwrap();
    assert_eq!(store.take_refresh(cookie, later, next_until).await.unwrap(), RefreshTaken::Gone);
}
