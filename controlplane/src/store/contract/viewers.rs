//! Viewers as leases: how many there may be, what frees a place, and what they say of a session that nobody types into.

use std::time::Duration;

use agentapi_shared::api::{OrganizationSettings, Quotas};
use agentapi_shared::{SessionId, ViewerId};
use futures_util::future::join_all;

use super::organizations::word;
use super::{NOW, Subject, entry};
use crate::store::records::{AuditEntry, AuditFilter, AuditPosition, NewViewer, Overdue, SessionChange, TenantContext};
use crate::store::{Scope, StoreError};

/// Longer than the suite takes.
const LEASE: Duration = Duration::from_secs(3600);

impl Subject {
    async fn attach(&self, by: &TenantContext, new: NewViewer) -> Result<bool, StoreError> {
        let audit = AuditEntry { session: Some(new.session), action: "terminal.attach".into(), ..entry() };
        self.store.attach_viewer(by.clone(), new, audit).await
    }

    async fn detach(&self, by: &TenantContext, viewer: ViewerId) -> Result<(), StoreError> {
        let audit = AuditEntry { action: "terminal.detach".into(), ..entry() };
        self.store.detach_viewer(by.clone(), viewer, audit).await
    }

    async fn limit(&self, of: &TenantContext, viewers_max: Option<u32>) {
        self.store.set_quotas(of.org, Quotas { viewers_max, ..Quotas::default() }, entry()).await.unwrap();
    }
}

fn viewer(session: SessionId) -> NewViewer {
    NewViewer { id: ViewerId::generate(), session, lease: LEASE, replaces: None }
}

pub(super) async fn run(subject: &Subject) {
    as_many_attach_as_may(subject).await;
    a_lease_lives_as_long_as_it_is_renewed(subject).await;
    one_takes_the_place_of_another_of_the_same_person(subject).await;
    whoever_does_not_see_a_session_does_not_look_at_it(subject).await;
    a_watched_session_is_not_idle(subject).await;
}

async fn as_many_attach_as_may(subject: &Subject) {
    let tenant = subject.organization().await;
    let session = subject.make(&tenant).await.unwrap().id;
    subject.limit(&tenant, Some(3)).await;
    let limits = subject.store.organizations(tenant.clone()).await.unwrap();
    let found = limits.iter().find(|(record, _)| record.id == tenant.org).unwrap();
    assert_eq!(found.0.quotas.viewers_max, Some(3));
    let all: Vec<NewViewer> = (0..16).map(|_| viewer(session)).collect();
    let answers = join_all(all.iter().map(|new| subject.attach(&tenant, *new))).await;
    let (attached, refused): (Vec<_>, Vec<_>) = all.iter().zip(answers).partition(|(_, answer)| answer.is_ok());
    assert_eq!((attached.len(), refused.len()), (3, 13));
    assert!(refused.into_iter().all(|(_, answer)| word(answer) == "quota_viewers"));
    // A request that comes twice is one viewer, though no place is left.
    let first = *attached[0].0;
    assert!(!subject.attach(&tenant, first).await.unwrap());
    assert_eq!(word(subject.attach(&tenant, viewer(session)).await), "quota_viewers");
    // Nobody but whoever attached frees a place.
    let stranger = subject.organization().await;
    subject.detach(&stranger, first.id).await.unwrap();
    assert_eq!(word(subject.attach(&tenant, viewer(session)).await), "quota_viewers");
    subject.detach(&tenant, first.id).await.unwrap();
    subject.detach(&tenant, first.id).await.unwrap();
    let next = join_all((0..5).map(|_| subject.attach(&tenant, viewer(session)))).await;
    assert_eq!(next.iter().filter(|answer| answer.is_ok()).count(), 1);
    // Another organisation is not concerned, nor is one without a limit.
    let other = subject.make(&stranger).await.unwrap().id;
    subject.attach(&stranger, viewer(other)).await.unwrap();
    subject.limit(&tenant, Some(0)).await;
    assert_eq!(word(subject.attach(&tenant, viewer(session)).await), "quota_viewers");
    subject.limit(&tenant, None).await;
    subject.attach(&tenant, viewer(session)).await.unwrap();
    let records = async |action: &str| {
        while subject.store.seal_audit(1000).await.unwrap() > 0 {}
        let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
        subject.trail(&tenant, &filter, AuditPosition::After(0), 50).await.len()
    };
    // Who was refused attached nothing.
    assert_eq!((records("terminal.attach").await, records("terminal.detach").await), (6, 2));
}

async fn a_lease_lives_as_long_as_it_is_renewed(subject: &Subject) {
    let tenant = subject.organization().await;
    let session = subject.make(&tenant).await.unwrap().id;
    subject.limit(&tenant, Some(1)).await;
    let renew = async |viewers: &[ViewerId], lease| {
        let mut kept = subject.store.renew_viewers(viewers.to_vec(), lease).await.unwrap();
        kept.sort_unstable();
        kept
    };
    let (first, second) = (viewer(session), viewer(session));
    subject.attach(&tenant, first).await.unwrap();
    assert_eq!(renew(&[first.id, second.id], LEASE).await, [first.id]);
    assert_eq!(word(subject.attach(&tenant, second).await), "quota_viewers");
    // As if nobody had renewed it for so long.
    assert_eq!(renew(&[first.id], Duration::ZERO).await, [first.id]);
    subject.attach(&tenant, second).await.unwrap();
    // Whoever comes back is not sent away, and counts again.
    assert_eq!(renew(&[second.id, first.id], LEASE).await, [first.id, second.id]);
    subject.limit(&tenant, Some(2)).await;
    assert_eq!(word(subject.attach(&tenant, viewer(session)).await), "quota_viewers");
    assert_eq!(renew(&[], LEASE).await, []);
}

async fn one_takes_the_place_of_another_of_the_same_person(subject: &Subject) {
    let (ours, colleague) = (&subject.ours, &subject.colleague);
    let made = subject.make(ours).await.unwrap();
    let shared =
        SessionChange { visibility: Some(agentapi_shared::api::Visibility::Organization), ..SessionChange::default() };
    let session = subject.update(Scope::Tenant(ours.clone()), &made, shared).await.unwrap().id;
    subject.limit(ours, Some(1)).await;
    let first = viewer(session);
    subject.attach(ours, first).await.unwrap();
    let replacing = || NewViewer { replaces: Some(first.id), ..viewer(session) };
    assert_eq!(word(subject.attach(colleague, replacing()).await), "quota_viewers");
    let second = replacing();
    assert!(subject.attach(ours, second).await.unwrap());
    let kept = subject.store.renew_viewers(vec![first.id, second.id], LEASE).await.unwrap();
    assert_eq!(kept, [second.id]);
    // It was there once.
    assert_eq!(word(subject.attach(ours, replacing()).await), "quota_viewers");
    subject.detach(ours, second.id).await.unwrap();
    assert!(!subject.attach(ours, replacing()).await.unwrap());
    subject.limit(ours, None).await;
}

async fn whoever_does_not_see_a_session_does_not_look_at_it(subject: &Subject) {
    let session = subject.make(&subject.ours).await.unwrap().id;
    for by in [&subject.colleague, &subject.theirs, &subject.organization().await] {
        assert_eq!(word(subject.attach(by, viewer(session)).await), "not_found");
    }
    assert_eq!(word(subject.attach(&subject.ours, viewer(SessionId::generate())).await), "not_found");
    subject.attach(&subject.ours, viewer(session)).await.unwrap();
}

/// Last of all: it is a day later then, and more than leases is over.
pub(super) async fn ends_that_nobody_told(subject: &Subject) {
    let tenant = subject.organization().await;
    let session = subject.make(&tenant).await.unwrap().id;
    let (dead, living) = (viewer(session), viewer(session));
    for new in [dead, living] {
        subject.attach(&tenant, new).await.unwrap();
        subject.store.renew_viewers(vec![new.id], Duration::ZERO).await.unwrap();
    }
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(23 * 3600);
    subject.store.sweep(soon).await.unwrap();
    // What is over for less than a day is good again.
    assert_eq!(subject.store.renew_viewers(vec![living.id], 2 * LEASE).await.unwrap(), [living.id]);
    let later = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 3600 + 60);
    for _ in 0..2 {
        subject.store.sweep(later).await.unwrap();
    }
    assert_eq!(subject.store.renew_viewers(vec![dead.id, living.id], LEASE).await.unwrap(), [living.id]);
    while subject.store.seal_audit(1000).await.unwrap() > 0 {}
    let filter = AuditFilter { action: Some("terminal.detach".to_owned()), ..AuditFilter::default() };
    let ends = subject.trail(&tenant, &filter, AuditPosition::After(0), 50).await;
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    let entry: serde_json::Value = serde_json::from_str(&end.entry).unwrap();
    assert_eq!(entry["detail"], serde_json::json!({ "connection": dead.id, "reason": "lease over" }));
    assert_eq!((&entry["actor"]["kind"], &entry["session_id"]), (&"system".into(), &serde_json::json!(session)));
}

async fn a_watched_session_is_not_idle(subject: &Subject) {
    let tenant = subject.organization().await;
    let session = subject.make(&tenant).await.unwrap().id;
    let idle = OrganizationSettings { session_idle_seconds_max: Some(60), ..OrganizationSettings::default() };
    subject.settings(&tenant, idle).await;
    let due = async |at: time::OffsetDateTime| {
        let expiry = subject.store.expiry(at).await.unwrap();
        expiry.due.into_iter().any(|due| due == (session, Overdue::Idle))
    };
    let later = NOW + Duration::from_secs(3600);
    assert!(due(later).await);
    let new = viewer(session);
    subject.attach(&tenant, new).await.unwrap();
    // The record of it is older; the lease is of now.
    assert!(!due(later).await && !due(time::OffsetDateTime::now_utc()).await);
    subject.store.renew_viewers(vec![new.id], Duration::ZERO).await.unwrap();
    assert!(!due(time::OffsetDateTime::now_utc()).await, "it was watched a moment ago");
    assert!(due(time::OffsetDateTime::now_utc() + Duration::from_secs(61)).await);
    subject.detach(&tenant, new.id).await.unwrap();
    assert!(due(later).await);
    subject.settings(&tenant, OrganizationSettings::default()).await;
}
