//! The operator's part: who is shut out, let in again and erased, whose the organisations are, and the platform's own trail. And that a login is
//! seen once.

use agentapi_shared::api::Quotas;
use agentapi_shared::audit::PLATFORM;
use agentapi_shared::{InvitationId, OrgId, UserId};
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::organizations::word;
use super::{NOW, Subject, audit, entry, hash};
use crate::capability::Role;
use crate::store::records::{
    AuditEntry, AuditFilter, AuditPosition, Desired, Founding, LastOwner, NewApiKey, NewInvitation, Owner, Sight,
    TenantContext, Who,
};
use crate::store::{Scope, StoreError};

pub(super) async fn run(subject: &Subject) {
    whoever_is_shut_out_has_nothing_and_may_come_back(subject).await;
    a_last_owner_goes_only_if_that_is_meant(subject).await;
    an_owner_who_is_shut_out_is_none(subject).await;
    where_no_owner_is_left_everybody_may_go(subject).await;
    an_erasure_leaves_nothing_personal_and_every_hash(subject).await;
    the_platforms_trail_is_read_by_no_tenant(subject).await;
    organizations_are_shown_with_their_owners(subject).await;
    a_login_is_seen_once(subject).await;
    a_login_that_is_shown_no_more_is_forgotten(subject).await;
}

fn by_operator(action: &'static str) -> AuditEntry {
    AuditEntry { action: action.into(), job: "operator", org: Some(PLATFORM), ..entry() }
}

impl Subject {
    /// Somebody who became a member of ours, with an address, a key, a login and a session of theirs.
    async fn joiner(&self, name: &str) -> TenantContext {
        let email = format!("{name}@example.com");
        let tenant = self.newcomer(&email, true).await;
        let expires_at = OffsetDateTime::now_utc() + Duration::DAY;
        let invitation = NewInvitation {
            id: InvitationId::generate(),
            email,
            role: Role::Member,
            token_hash: hash(&format!("invitation of {name}")),
            expires_at,
        };
        let token = invitation.token_hash.clone();
        self.store.create_invitation(self.ours.clone(), invitation, entry()).await.unwrap();
        self.store.accept_invitation(tenant.clone(), self.ours.org, token, entry()).await.unwrap();
        let key = NewApiKey {
            id: agentapi_shared::ApiKeyId::generate(),
            name: "key".to_owned(),
            prefix: "aa_".to_owned(),
            hash: hash(&format!("key of {name}")),
            scopes: Vec::new(),
            expires_at: None,
            made_by: None,
        };
        self.store.create_api_key(tenant.clone(), key, entry()).await.unwrap();
        let new = super::code(&format!("code of {name}"), expires_at);
        self.store.create_login_code(tenant.clone(), new, entry()).await.unwrap();
        let cookie = hash(&format!("cookie of {name}"));
        let code = hash(&format!("code of {name}"));
        self.store.redeem_login_code(code, cookie, expires_at, entry()).await.unwrap().unwrap();
        tenant
    }

    /// What of a joiner is good: their key, and their login.
    async fn good(&self, name: &str) -> (bool, bool) {
        let key = self.store.token(hash(&format!("key of {name}"))).await.unwrap();
        let login = self.store.browser_session(hash(&format!("cookie of {name}")), NOW).await.unwrap();
        (key.is_some(), login.is_some())
    }

    /// Records of an action in a trail, newest first.
    async fn of_action(&self, action: &str) -> Vec<Value> {
        let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
        let found = self.trail(&self.ours, &filter, AuditPosition::default(), 50).await;
        found.iter().map(|record| serde_json::from_str(&record.entry).unwrap()).collect()
    }
}

async fn whoever_is_shut_out_has_nothing_and_may_come_back(subject: &Subject) {
    let store = &subject.store;
    let leaver = subject.joiner("leaver").await;
    let (session, other) = (subject.make(&leaver).await.unwrap(), subject.make(&subject.ours).await.unwrap());
    assert_eq!(subject.good("leaver").await, (true, true), "the control");
    let nobody = store.disable_user(UserId::generate(), LastOwner::Stays, by_operator("user.disable")).await;
    assert_eq!(word(nobody), "not_found");
    let disabled = store.disable_user(leaver.user, LastOwner::Stays, by_operator("user.disable")).await.unwrap();
    assert_eq!((disabled, subject.good("leaver").await), (1, (false, false)));
    assert!(subject.make(&leaver).await.is_err(), "a request that was under way makes nothing");
    let desired = async |id| store.session(Scope::System, id).await.unwrap().desired;
    assert_eq!((desired(session.id).await, desired(other.id).await), (Desired::Stop, Desired::Run));
    subject.seal().await;
    let stopped = &subject.of_action("session.stop").await[0];
    assert_eq!((&stopped["session_id"], &stopped["actor"]["id"]), (&json!(session.id), &json!("operator")));
    assert_eq!(subject.of_action("user.disable").await[0]["detail"]["user"], json!(leaver.user));
    // Again it is the same, and nothing more is stopped.
    let again = store.disable_user(leaver.user, LastOwner::Stays, by_operator("user.disable")).await.unwrap();
    assert_eq!(again, 0);
    store.enable_user(leaver.user, by_operator("user.enable")).await.unwrap();
    assert_eq!(subject.good("leaver").await, (true, false), "a key is good again, a login ended");
    assert_eq!(word(store.enable_user(UserId::generate(), by_operator("user.enable")).await), "not_found");
}

async fn a_last_owner_goes_only_if_that_is_meant(subject: &Subject) {
    let store = &subject.store;
    let founder = subject.joiner("founder").await;
    let org = OrgId::generate();
    let (name, by) = ("theirs alone".to_owned(), Founding::Operator);
    store.create_organization(founder.clone(), org, name, by, entry()).await.unwrap();
    let found = store.people(Who::Email("Founder@Example.com".to_owned())).await.unwrap();
    let alone: Vec<(OrgId, bool)> = found[0].organizations.iter().map(|place| (place.id, place.alone)).collect();
    assert_eq!(found.len(), 1);
    assert!(alone.contains(&(org, true)) && alone.contains(&(subject.ours.org, false)), "{alone:?}");
    let disable = async |last_owner| store.disable_user(founder.user, last_owner, by_operator("user.disable")).await;
    assert_eq!(word(disable(LastOwner::Stays).await), "last_owner");
    let erased = store.erase_person(founder.user, LastOwner::Stays, by_operator("user.erase")).await;
    assert_eq!(word(erased), "last_owner");
    assert_eq!(subject.good("founder").await, (true, true), "nothing was done");
    disable(LastOwner::Goes).await.unwrap();
    assert_eq!(subject.good("founder").await, (false, false));
    // Whoever is shut out already leaves nobody alone who was not before.
    store.erase_person(founder.user, LastOwner::Stays, by_operator("user.erase")).await.unwrap();
    // An owner beside one who is shut out is alone.
    let second = TenantContext { org, ..subject.joiner("second").await };
    assert!(store.people(Who::User(second.user)).await.unwrap()[0].organizations.iter().all(|place| !place.alone));
}

async fn an_owner_who_is_shut_out_is_none(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let second = subject.joiner("second.owner").await;
    let set = async |user, role| store.set_member_role(ours.clone(), user, role, entry()).await;
    let leave = async || store.remove_member(ours.clone(), ours.user, entry()).await;
    set(second.user, Role::Owner).await.unwrap();
    store.disable_user(second.user, LastOwner::Stays, by_operator("user.disable")).await.unwrap();
    assert_eq!(word(set(ours.user, Role::Admin).await), "last_owner");
    assert_eq!(word(leave().await), "last_owner");
    store.erase_person(second.user, LastOwner::Stays, by_operator("user.erase")).await.unwrap();
    assert_eq!(word(set(ours.user, Role::Admin).await), "last_owner");
    assert_eq!(word(leave().await), "last_owner");
    // They go as owners as well.
    set(second.user, Role::Member).await.unwrap();
}

async fn where_no_owner_is_left_everybody_may_go(subject: &Subject) {
    let store = &subject.store;
    let (founder, admin) = (subject.joiner("only.owner").await, subject.joiner("admin.there").await);
    let org = OrgId::generate();
    let (name, by) = ("left alone".to_owned(), Founding::Operator);
    store.create_organization(founder.clone(), org, name, by, entry()).await.unwrap();
    let (founder, admin) = (TenantContext { org, ..founder }, TenantContext { org, ..admin });
    let invitation = NewInvitation {
        id: InvitationId::generate(),
        email: "admin.there@example.com".to_owned(),
        role: Role::Admin,
        token_hash: hash("into what is left alone"),
        expires_at: OffsetDateTime::now_utc() + Duration::DAY,
    };
    let token = invitation.token_hash.clone();
    store.create_invitation(founder.clone(), invitation, entry()).await.unwrap();
    store.accept_invitation(admin.clone(), org, token, entry()).await.unwrap();
    store.disable_user(founder.user, LastOwner::Goes, by_operator("user.disable")).await.unwrap();
    store.set_member_role(admin.clone(), admin.user, Role::Member, entry()).await.unwrap();
    store.remove_member(admin.clone(), admin.user, entry()).await.unwrap();
}

async fn an_erasure_leaves_nothing_personal_and_every_hash(subject: &Subject) {
    let store = &subject.store;
    let person = subject.joiner("Ada.Gone").await;
    let session = subject.make(&person).await.unwrap();
    subject.seal().await;
    let of_them = AuditFilter { actor: Some(person.user.to_string()), ..AuditFilter::default() };
    let start = AuditPosition::After(0);
    let personal = async |tenant: &TenantContext| {
        let found = subject.trail(tenant, &of_them, start, 50).await;
        (found.len(), found.iter().filter(|record| record.personal.is_some()).count())
    };
    let (records, with_personal) = personal(&subject.ours).await;
    assert!(records >= 4 && with_personal >= 3, "the control: {records} {with_personal}");
    let before = subject.trail(&subject.ours, &AuditFilter::default(), start, 200).await;
    let head = audit::chained(subject.ours.org, &before);

    let erased = store.erase_person(person.user, LastOwner::Stays, by_operator("user.erase")).await.unwrap();
    assert!(erased.records >= with_personal as u64 && erased.sessions == 1, "{erased:?}");
    assert_eq!(store.session(Scope::System, session.id).await.unwrap().desired, Desired::Stop);
    assert_eq!(subject.good("Ada.Gone").await, (false, false));
    subject.seal().await;
    // Nobody else lost anything, and what they did stands.
    assert_eq!(personal(&subject.ours).await, (records, 0));
    let after = subject.trail(&subject.ours, &AuditFilter::default(), start, 200).await;
    assert!(after.len() > before.len());
    assert_eq!(audit::chained(subject.ours.org, &after[..before.len()]), head, "every hash is what it was");
    audit::chained(subject.ours.org, &after);
    assert!(after.iter().any(|record| record.personal.is_some()));
    let known = store.members(subject.ours.clone()).await.unwrap();
    let known = known.iter().find(|member| member.user == person.user).unwrap();
    assert_eq!((&known.name, &known.email, known.disabled), (&None, &None, true));
    let invitations = store.invitations(subject.ours.clone()).await.unwrap();
    assert!(invitations.iter().all(|invitation| !invitation.email.contains("ada.gone")), "{invitations:?}");
    assert_eq!(store.people(Who::Email("ada.gone@example.com".to_owned())).await.unwrap(), []);
    let shown = store.people(Who::User(person.user)).await.unwrap();
    assert!(shown[0].erased && shown[0].disabled && shown[0].name.is_none());
    // What is written of them later, such as the end of a terminal, brings nothing back; the store may refuse it.
    match store.audit(Scope::Tenant(TenantContext { token: None, ..person.clone() }), entry(), None).await {
        Ok(()) | Err(StoreError::Forbidden | StoreError::NotFound | StoreError::Unauthenticated) => {}
        Err(other) => panic!("{other:?}"),
    }
    subject.seal().await;
    assert_eq!(personal(&subject.ours).await.1, 0);
    assert_eq!(word(store.enable_user(person.user, by_operator("user.enable")).await), "erased");
    // Twice is once.
    let again = store.erase_person(person.user, LastOwner::Stays, by_operator("user.erase")).await.unwrap();
    assert_eq!((again.records, again.sessions), (0, 0));
}

async fn the_platforms_trail_is_read_by_no_tenant(subject: &Subject) {
    let store = &subject.store;
    let stranger = AuditEntry { org: Some(PLATFORM), job: "anonymous", action: "request.refused".into(), ..entry() };
    store.audit(Scope::System, stranger, None).await.unwrap();
    subject.seal().await;
    let page = AuditFilter { limit: 200, position: AuditPosition::After(0), ..AuditFilter::default() };
    let found = store.platform_records(page.clone()).await.unwrap().records;
    audit::chained(PLATFORM, &found);
    let has = |word: &str| found.iter().any(|record| record.entry.contains(word));
    assert!(has("\"user.erase\"") && has("\"request.refused\"") && has("\"anonymous\""), "the control");
    for tenant in [&subject.ours, &subject.theirs, &subject.colleague] {
        for role in [Role::Owner, Role::Auditor] {
            let forged = TenantContext { org: PLATFORM, role, ..tenant.clone() };
            let read = store.audit_records(forged, page.clone()).await.unwrap();
            assert_eq!(read.records, [], "{tenant:?} reads the platform's trail");
            // Nor that of an organisation they are not in, or may not.
            let org = if tenant.org == subject.ours.org { subject.theirs.org } else { subject.ours.org };
            let forged = TenantContext { org, role, ..tenant.clone() };
            assert_eq!(store.audit_records(forged, page.clone()).await.unwrap().records, []);
        }
    }
    assert!(!store.audit_records(subject.ours.clone(), page).await.unwrap().records.is_empty(), "the control");
}

async fn organizations_are_shown_with_their_owners(subject: &Subject) {
    let store = &subject.store;
    let made = subject.organization().await;
    let quotas = Quotas { sessions_max: Some(7), sessions_per_day_max: None, viewers_max: Some(3) };
    store.set_quotas(made.org, quotas, entry()).await.unwrap();
    let all = store.overview().await.unwrap();
    let of = |org| all.iter().find(|found| found.id == org).unwrap();
    let (new, ours) = (of(made.org), of(subject.ours.org));
    assert_eq!((new.name.as_str(), new.members, new.hosts), ("new", 1, 0));
    assert_eq!((new.quotas, new.sessions_running, new.sessions_today), (quotas, 0, 0));
    assert!(matches!(&new.owners[..], [Owner { id, disabled: false, .. }] if *id == made.user), "{new:?}");
    assert!(ours.sessions_running > 0 && ours.members > 1, "{ours:?}");
    assert!(all.iter().all(|found| found.id != PLATFORM));
}

fn sight(tenant: &TenantContext, secret: &str, at: OffsetDateTime) -> Sight {
    let audit = AuditEntry { action: "login".into(), at, detail: json!({ "by": secret }), ..entry() };
    Sight { hash: hash(secret), tenant: tenant.clone(), audit }
}

async fn a_login_is_seen_once(subject: &Subject) {
    let store = &subject.store;
    // At once, as by several replicas.
    let seen = join_all((0..8).map(|_| store.see_session(sight(&subject.ours, "seen", NOW)))).await;
    assert_eq!(seen.into_iter().filter(|first| *first.as_ref().unwrap()).count(), 1);
    assert!(store.see_session(sight(&subject.ours, "another", NOW)).await.unwrap());
    assert!(!store.see_session(sight(&subject.theirs, "another", NOW)).await.unwrap());
    subject.seal().await;
    let logins = subject.of_action("login").await;
    let of = |by: &str| logins.iter().filter(|login| login["detail"]["by"] == by).count();
    assert_eq!((of("seen"), of("another")), (1, 1), "{logins:?}");
}

async fn a_login_that_is_shown_no_more_is_forgotten(subject: &Subject) {
    let see = async |secret: &str, days| {
        subject.store.see_session(sight(&subject.ours, secret, NOW + Duration::days(days))).await.unwrap()
    };
    assert!(see("left", 0).await && see("kept", 0).await);
    assert!(!see("kept", 80).await);
    // The next new one takes along what was last shown ninety days before.
    assert!(see("new", 100).await);
    assert!(see("left", 100).await && !see("kept", 100).await);
}
