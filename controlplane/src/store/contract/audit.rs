//! What every store does with the audit trail: one chain for each organisation over the exact texts, read in pages from both ends.

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::audit::{PLATFORM, Seal};
use agentapi_shared::{EventId, OrgId, SessionId};
use serde_json::{Value, json};
use time::Duration;

use super::{NOW, Subject, entry};
use crate::store::Scope;
use crate::store::records::{AuditEntry, AuditFilter, AuditPosition, SealedRecord, TenantContext};

impl Subject {
    /// Every record of a trail, read in pages that way.
    pub(super) async fn trail(
        &self,
        tenant: &TenantContext,
        filter: &AuditFilter,
        position: AuditPosition,
        limit: u32,
    ) -> Vec<SealedRecord> {
        let (mut all, mut position) = (Vec::new(), position);
        loop {
            let filter = AuditFilter { position, limit, ..filter.clone() };
            let page = self.store.audit_records(tenant.clone(), filter).await.unwrap();
            assert!(page.records.len() <= limit as usize);
            all.extend(page.records);
            position = match (position, page.next) {
                (_, None) => return all,
                (AuditPosition::Before(_), Some(number)) => AuditPosition::Before(number),
                (AuditPosition::After(_), Some(number)) => AuditPosition::After(number),
            };
        }
    }

    pub(super) async fn seal(&self) -> u64 {
        let mut count = 0;
        loop {
            match self.store.seal_audit(7).await.unwrap() {
                0 => return count,
                more => {
                    assert!(more <= 7);
                    count += more;
                }
            }
        }
    }
}

/// The chain over records as they were read.
pub(in crate::store) fn chained(org: OrgId, records: &[SealedRecord]) -> Seal {
    records.iter().fold(Seal::START, |seal, record| {
        let next = seal.next(org, record.id, &record.entry);
        assert_eq!(record.seal, next, "{}", record.entry);
        next
    })
}

pub(super) async fn run(subject: &Subject) {
    records_are_chained_in_the_order_in_which_they_came(subject).await;
    a_page_shows_what_its_filter_says(subject).await;
}

async fn records_are_chained_in_the_order_in_which_they_came(subject: &Subject) {
    let store = &subject.store;
    let mut written = store.audit_written();
    subject.seal().await;
    assert_eq!(subject.seal().await, 0, "each once");
    written.mark_unchanged();
    let (ours, theirs) = (Scope::Tenant(subject.ours.clone()), Scope::Tenant(subject.theirs.clone()));
    let first = AuditEntry { credential: Some("c1".to_owned()), request: Some(EventId::generate()), ..entry() };
    let refused = AuditEntry { org: Some(PLATFORM), job: "anonymous", ..entry() };
    for (scope, entry) in [(&ours, &first), (&theirs, &entry()), (&Scope::System, &refused), (&ours, &entry())] {
        store.audit(scope.clone(), entry.clone(), None).await.unwrap();
    }
    // Delivered twice it is one.
    store.audit(ours.clone(), AuditEntry { detail: json!("other"), ..first.clone() }, None).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(20), written.changed()).await.unwrap().unwrap();
    assert_eq!(subject.seal().await, 4);
    let (any, start) = (AuditFilter::default(), AuditPosition::After(0));
    let trail = subject.trail(&subject.ours, &any, start, 3).await;
    let head = chained(subject.ours.org, &trail);
    let record = &trail[trail.len() - 2];
    assert_eq!((record.id, &record.entry), (first.id, &first.text(subject.ours.org, &ours)));
    let personal: Value = serde_json::from_str(record.personal.as_deref().unwrap()).unwrap();
    assert_eq!(personal, json!({ "name": "Somebody" }));
    assert!(record.entry.contains("\"credential\":\"c1\"") && !record.entry.contains("Somebody"));
    let mut newest_first = subject.trail(&subject.ours, &any, AuditPosition::default(), 3).await;
    newest_first.reverse();
    assert_eq!(newest_first, trail);
    let foreign = subject.trail(&subject.theirs, &any, start, 50).await;
    chained(subject.theirs.org, &foreign);
    assert!(foreign.iter().all(|record| trail.iter().all(|ours| ours.id != record.id)));
    let heads = store.audit_heads().await.unwrap();
    let of = |org: OrgId| heads.iter().find(|head| head.org == org).map(|head| head.seal);
    assert_eq!(of(subject.ours.org), Some(head));
    assert!(of(PLATFORM).is_some_and(|seal| seal.number > 0) && of(subject.theirs.org).is_some());
}

async fn a_page_shows_what_its_filter_says(subject: &Subject) {
    let (store, session) = (&subject.store, SessionId::generate());
    let scope = Scope::Tenant(subject.ours.clone());
    let action = format!("it's.{}", &session.to_string()[..8]);
    let special =
        AuditEntry { action: action.clone().into(), session: Some(session), at: NOW + Duration::days(400), ..entry() };
    store.audit(scope.clone(), special.clone(), None).await.unwrap();
    store.audit(scope, entry(), None).await.unwrap();
    subject.seal().await;
    let all = AuditFilter::default;
    let user = subject.ours.user.to_string();
    let passing = [
        AuditFilter { action: Some(action.clone()), ..all() },
        AuditFilter { session: Some(session), actor: Some(user), ..all() },
        AuditFilter { from: Some(special.at), until: Some(special.at + Duration::MICROSECOND), ..all() },
    ];
    for filter in passing {
        for position in [AuditPosition::After(0), AuditPosition::default()] {
            let found = subject.trail(&subject.ours, &filter, position, 2).await;
            assert_eq!(found.iter().map(|record| record.id).collect::<Vec<_>>(), [special.id], "{filter:?}");
            assert!(found[0].entry.contains(&time_text(special.at)));
        }
        assert_eq!(subject.trail(&subject.theirs, &filter, AuditPosition::After(0), 2).await, []);
    }
    let nobody = AuditFilter { actor: Some("' or 1=1 --".to_owned()), ..all() };
    assert_eq!(subject.trail(&subject.ours, &nobody, AuditPosition::default(), 2).await, []);
    let beyond = AuditFilter { position: AuditPosition::After(u64::MAX), limit: 5, ..all() };
    assert_eq!(
        store.audit_records(subject.ours.clone(), beyond).await.unwrap(),
        crate::store::records::AuditPage::default()
    );
}
