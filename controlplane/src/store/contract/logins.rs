//! Logins with an issuer behind them: made where their user is a member, and kept alive by one at a time.

use agentapi_shared::{OrgId, UserId};
use futures_util::future::join_all;
use time::Duration;

use super::{NOW, StoreError, Subject, entry, hash};
use crate::store::records::{NewLogin, RefreshTaken, Sealed, TenantContext};

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
    let holder = store.begin_login(login(ours, "of ours", None)).await.unwrap().unwrap();
    assert_eq!((holder.user, holder.org, holder.role), (ours.user, ours.org, ours.role));
    let session = store.browser_session(hash("of ours"), NOW).await.unwrap().unwrap();
    assert_eq!((session.holder, session.expires_at), (holder, NOW + Duration::hours(1)));
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
