//! How a host's credential is changed: whatever is lost on its way, comes late or is done twice, the one that the host holds is good.

use agentapi_shared::HostId;
use time::{Duration, OffsetDateTime};

use super::organizations::later;
use super::{NOW, Subject, entry, hash};
use crate::store::records::{AuditEntry, Holder, NewEnrolment, Rotation};

/// Between two credentials that are confirmed at once, and the end of what both end: two requests on a busy machine.
const SOON: Duration = Duration::seconds(3);

pub(super) async fn run(subject: &Subject) {
    an_answer_may_be_lost(subject).await;
    whoever_shows_a_credential_has_it(subject).await;
    of_two_at_once_both_stay_good(subject).await;
    two_at_most_wait(subject).await;
}

/// A host of ours, whose credentials are named for it.
struct Host<'a> {
    subject: &'a Subject,
    id: HostId,
}

impl<'a> Host<'a> {
    /// One that has its first credential.
    async fn new(subject: &'a Subject) -> Self {
        let host = Self { subject, id: HostId::generate() };
        let (token, name) = (host.hash("token"), "worker".to_owned());
        let new = NewEnrolment { hash: token.clone(), name, expires_at: later(), made_by: None };
        subject.store.create_host_enrolment(subject.ours.clone(), new, entry()).await.unwrap();
        let at = OffsetDateTime::now_utc();
        subject.store.redeem_host_enrolment(token, host.id, host.hash("first"), at).await.unwrap().unwrap();
        host
    }

    fn hash(&self, credential: &str) -> String {
        hash(&format!("{credential} of {}", self.id))
    }

    async fn rotate(&self, shown: &str, new: &str) {
        self.rotate_at(OffsetDateTime::now_utc(), shown, new).await;
    }

    /// What ends by it, ends now.
    async fn rotate_at(&self, at: OffsetDateTime, shown: &str, new: &str) {
        let rotation = Rotation { shown: self.hash(shown), new: self.hash(new), others_end_at: NOW };
        let audit = AuditEntry { at, ..entry() };
        self.subject.store.rotate_host_credential(self.id, rotation, audit).await.unwrap();
    }

    async fn confirm(&self, credential: &str, others_end_at: OffsetDateTime) {
        self.subject.store.confirm_host_credential(self.hash(credential), others_end_at).await.unwrap();
    }

    async fn is_good(&self, credential: &str) -> bool {
        match self.subject.store.token(self.hash(credential)).await.unwrap() {
            Some(holder) => {
                assert_eq!(holder, Holder::Host(self.id));
                true
            }
            None => false,
        }
    }

    /// Which of these are good.
    async fn good<'c>(&self, credentials: &[&'c str]) -> Vec<&'c str> {
        let mut good = Vec::new();
        for credential in credentials {
            if self.is_good(credential).await {
                good.push(*credential);
            }
        }
        good
    }
}

async fn an_answer_may_be_lost(subject: &Subject) {
    let host = Host::new(subject).await;
    // The first answer is lost, and the host asks once more with what it has; nothing ends by time.
    host.rotate("first", "lost").await;
    host.confirm("first", NOW).await;
    host.rotate("first", "second").await;
    assert_eq!(host.good(&["first", "lost", "second"]).await, ["first", "lost", "second"]);
    // Used, it ends those before, at the time that is said, and says it once.
    host.confirm("second", later()).await;
    assert!(host.is_good("first").await);
    host.rotate("second", "third").await;
    host.confirm("second", NOW).await;
    assert_eq!(host.good(&["first", "second", "third"]).await, ["first", "second", "third"]);
    host.confirm("nobody's", NOW).await;
    host.confirm("third", NOW).await;
    assert_eq!(host.good(&["first", "lost", "second", "third"]).await, ["third"]);
    // One that is over stays over.
    host.rotate("third", "fourth").await;
    host.rotate("third", "fifth").await;
    host.confirm("fifth", NOW).await;
    host.confirm("fourth", NOW).await;
    assert_eq!(host.good(&["third", "fourth", "fifth"]).await, ["fifth"]);
}

async fn whoever_shows_a_credential_has_it(subject: &Subject) {
    let host = Host::new(subject).await;
    // Its confirmation was lost, and it comes with it long after.
    host.rotate("first", "second").await;
    host.rotate_at(OffsetDateTime::now_utc() + Duration::HOUR, "second", "third").await;
    assert_eq!(host.good(&["first", "second", "third"]).await, ["second", "third"]);
    for new in ["fourth", "fifth", "sixth"] {
        host.rotate("second", new).await;
    }
    assert!(host.is_good("second").await, "it is none of those that wait");
}

async fn of_two_at_once_both_stay_good(subject: &Subject) {
    let host = Host::new(subject).await;
    host.rotate("first", "one").await;
    host.rotate("first", "other").await;
    // Whichever is kept: the later one ended the earlier one, until that was used as well.
    host.confirm("other", OffsetDateTime::now_utc() + SOON).await;
    host.confirm("one", NOW).await;
    assert_eq!(host.good(&["first", "one", "other"]).await, ["one", "other"]);
    let host = Host::new(subject).await;
    host.rotate("first", "one").await;
    host.rotate("first", "other").await;
    let end = OffsetDateTime::now_utc() + SOON;
    host.confirm("other", end).await;
    host.confirm("one", end).await;
    // Both would have ended with it.
    while host.is_good("first").await {
        assert!(OffsetDateTime::now_utc() < end + SOON, "it ends");
    }
    assert_eq!(host.good(&["one", "other"]).await, ["one", "other"]);
}

async fn two_at_most_wait(subject: &Subject) {
    let host = Host::new(subject).await;
    for new in ["second", "third", "fourth", "fifth"] {
        host.rotate("first", new).await;
    }
    assert_eq!(host.good(&["first", "second", "third", "fourth", "fifth"]).await, ["first", "fourth", "fifth"]);
    // One that waits and is shown is kept, however many came after it.
    host.rotate("fourth", "sixth").await;
    assert_eq!(host.good(&["first", "fourth", "fifth", "sixth"]).await, ["fourth", "fifth", "sixth"]);
}
