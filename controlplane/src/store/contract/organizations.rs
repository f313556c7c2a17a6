//! Organisations, members, keys, hosts, quotas and expiry: the same rules and the same words in every store.

use agentapi_shared::api::{KeyScope, OrganizationSettings, Quotas, SandboxRequest};
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId, SpawnState, UserId};
use futures_util::future::join_all;
use time::{Duration, OffsetDateTime};

use super::{NOW, Subject, create_entry, entry, hash, new_session};
use crate::capability::Role;
use crate::store::records::{
    AuditEntry, AuditFilter, EgressFilter, Founding, FoundingTerms, Holder, Identity, LOCAL_HOST, MadeByKey, NewApiKey,
    NewEnrolment, NewInvitation, NewSession, OrganizationChange, Overdue, Rotation, SessionChange, SessionFilter,
    SessionRecord, SpawnRecord, TenantContext,
};
use crate::store::{Created, Scope, StoreError};

/// Under no terms.
const OWNER: Founding = Founding::Owner(FoundingTerms { founded_max: None, quotas: NO_QUOTAS });
const SIGN_UP: Founding = Founding::SignUp(FoundingTerms { founded_max: None, quotas: NO_QUOTAS });
const NO_QUOTAS: Quotas = Quotas { sessions_max: None, sessions_per_day_max: None, viewers_max: None };

pub(super) async fn run(subject: &Subject) {
    an_organization_is_its_owners(subject).await;
    roles_are_given_by_those_who_may(subject).await;
    an_invitation_is_for_one_verified_address(subject).await;
    founding_needs_a_right(subject).await;
    nobody_founds_more_than_they_may(subject).await;
    keys_are_good_until_they_end(subject).await;
    what_a_key_made_ends_with_it(subject).await;
    a_machine_becomes_a_host_once(subject).await;
    quotas_are_exact(subject).await;
    an_agent_has_to_be_allowed(subject).await;
    super::sandboxes::check(subject).await;
    what_was_taken_away_meanwhile_is_gone(subject).await;
    what_is_over_is_found(subject).await;
}

/// Later than any clock here says.
pub(super) fn later() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::DAY
}

/// A refusal of the store, as one word.
pub(super) fn word<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::NotFound) => "not_found".to_owned(),
        Err(StoreError::Forbidden) => "forbidden".to_owned(),
        Err(StoreError::Stale) => "stale".to_owned(),
        Err(StoreError::Refused(word) | StoreError::Quota(word)) => word,
        other => panic!("{other:?}"),
    }
}

impl Subject {
    /// A new organisation of the owner.
    pub(super) async fn organization(&self) -> TenantContext {
        let org = OrgId::generate();
        let (name, by) = ("new".to_owned(), OWNER);
        self.store.create_organization(self.ours.clone(), org, name, by, entry()).await.unwrap();
        TenantContext { org, ..self.ours.clone() }
    }

    /// Somebody who logged in, and is in no organisation.
    pub(super) async fn newcomer(&self, email: &str, email_verified: bool) -> TenantContext {
        let user = UserId::generate();
        let identity = Identity {
            user,
            issuer: "contract".to_owned(),
            subject: user.to_string(),
            name: Some("Ada".to_owned()),
            email: Some(email.to_owned()),
            email_verified,
        };
        assert_eq!(self.store.log_in(identity.clone()).await.unwrap(), Some(user));
        // The second login finds the first one's row, whatever id it brings.
        let again = Identity { user: UserId::generate(), ..identity };
        assert_eq!(self.store.log_in(again).await.unwrap(), Some(user));
        TenantContext { user, role: Role::Member, ..self.ours.clone() }
    }

    /// Invites somebody into our organisation.
    pub(super) async fn invite(&self, email: &str, secret: &str, role: Role) {
        let (id, token_hash) = (InvitationId::generate(), hash(secret));
        let new = NewInvitation { id, email: email.to_owned(), role, token_hash, expires_at: later() };
        self.store.create_invitation(self.ours.clone(), new, entry()).await.unwrap();
    }

    pub(super) async fn settings(&self, of: &TenantContext, settings: OrganizationSettings) {
        let found = self.store.organizations(of.clone()).await.unwrap();
        let revision = found.iter().find(|(record, _)| record.id == of.org).unwrap().0.revision;
        let change = OrganizationChange { settings: Some(settings), name: None };
        self.store.update_organization(of.clone(), revision, change, entry()).await.unwrap();
    }

    pub(super) async fn make(&self, tenant: &TenantContext) -> Result<SessionRecord, StoreError> {
        self.make_with(tenant, new_session().sandbox).await
    }

    pub(super) async fn make_with(
        &self,
        tenant: &TenantContext,
        sandbox: SandboxRequest,
    ) -> Result<SessionRecord, StoreError> {
        let new = NewSession { has_env: false, sandbox, ..new_session() };
        let audit = AuditEntry { session: Some(new.id), ..create_entry() };
        match self.store.create_session(tenant.clone(), new, None, audit).await? {
            Created::New(record) => Ok(*record),
            Created::Seen(replay) => panic!("{replay:?}"),
        }
    }

    pub(super) async fn end(&self, record: &SessionRecord, at: OffsetDateTime) -> SessionRecord {
        let ended = SpawnRecord { state: SpawnState::Exited, ended: Some(at), ..record.spawns[0].clone() };
        let change = SessionChange { spawn: Some(ended), ..SessionChange::default() };
        self.store.update_session(Scope::System, record.id, record.revision, change, None, None).await.unwrap()
    }
}

async fn an_organization_is_its_owners(subject: &Subject) {
    let (store, made) = (&subject.store, subject.organization().await);
    let find = async |tenant: &TenantContext| {
        let found = store.organizations(tenant.clone()).await.unwrap();
        found.into_iter().find(|(record, _)| record.id == made.org)
    };
    let (record, role) = find(&subject.ours).await.unwrap();
    assert_eq!((record.name.as_str(), record.revision, role), ("new", 1, Role::Owner));
    assert_eq!((record.settings.clone(), record.quotas), (OrganizationSettings::default(), Quotas::default()));
    assert!(find(&subject.theirs).await.is_none() && find(&subject.colleague).await.is_none());
    let members = store.members(made.clone()).await.unwrap();
    assert_eq!(members.iter().map(|member| (member.user, member.role)).collect::<Vec<_>>(), [(made.user, Role::Owner)]);
    let settings = OrganizationSettings { agents: Some(vec!["claude".to_owned()]), ..OrganizationSettings::default() };
    let change = OrganizationChange { name: Some("it's".to_owned()), settings: Some(settings.clone()) };
    let update = async |tenant: TenantContext, revision| {
        store.update_organization(tenant, revision, change.clone(), entry()).await
    };
    // Of our other organisation a colleague, and a stranger.
    assert_eq!(word(update(subject.colleague.clone(), 1).await), "forbidden");
    let stranger = TenantContext { org: made.org, ..subject.theirs.clone() };
    assert_eq!(word(update(stranger.clone(), 1).await), "not_found");
    assert_eq!(word(store.members(stranger).await), "not_found");
    assert_eq!(word(update(made.clone(), 7).await), "stale");
    update(made.clone(), 1).await.unwrap();
    let (record, _) = find(&subject.ours).await.unwrap();
    assert_eq!((record.name.as_str(), record.revision, record.settings), ("it's", 2, settings));
}

async fn roles_are_given_by_those_who_may(subject: &Subject) {
    let store = &subject.store;
    let set =
        async |tenant: &TenantContext, user, role| store.set_member_role(tenant.clone(), user, role, entry()).await;
    let remove = async |tenant: &TenantContext, user| store.remove_member(tenant.clone(), user, entry()).await;
    let (ours, colleague) = (&subject.ours, &subject.colleague);
    assert_eq!(word(set(colleague, ours.user, Role::Viewer).await), "forbidden");
    assert_eq!(word(remove(colleague, ours.user).await), "forbidden");
    assert_eq!(word(set(ours, UserId::generate(), Role::Viewer).await), "not_found");
    assert_eq!(word(set(ours, subject.theirs.user, Role::Viewer).await), "not_found");
    assert_eq!(word(remove(ours, subject.theirs.user).await), "not_found");
    set(ours, colleague.user, Role::Admin).await.unwrap();
    // An admin makes no owner, and unmakes none.
    assert_eq!(word(set(colleague, colleague.user, Role::Owner).await), "forbidden");
    assert_eq!(word(set(colleague, ours.user, Role::Member).await), "forbidden");
    assert_eq!(word(remove(colleague, ours.user).await), "forbidden");
    // One owner stays; of two who leave at once, one stays.
    assert_eq!(word(set(ours, ours.user, Role::Admin).await), "last_owner");
    assert_eq!(word(remove(ours, ours.user).await), "last_owner");
    set(ours, colleague.user, Role::Owner).await.unwrap();
    let (one, other) = tokio::join!(set(ours, ours.user, Role::Admin), set(colleague, colleague.user, Role::Admin));
    assert_eq!([one.is_ok(), other.is_ok()].into_iter().filter(|ok| *ok).count(), 1, "{one:?} {other:?}");
    let (left, gone) = if one.is_ok() { (colleague, ours) } else { (ours, colleague) };
    set(left, gone.user, Role::Owner).await.unwrap();
    set(ours, colleague.user, Role::Member).await.unwrap();
    let roles: Vec<(UserId, Role)> =
        store.members(ours.clone()).await.unwrap().iter().map(|m| (m.user, m.role)).collect();
    assert!(roles.contains(&(ours.user, Role::Owner)) && roles.contains(&(colleague.user, Role::Member)), "{roles:?}");
}

async fn an_invitation_is_for_one_verified_address(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let invite = async |tenant: &TenantContext, role, secret: &str, expires_at| {
        let id = InvitationId::generate();
        let new =
            NewInvitation { id, email: "Ada@Example.com".to_lowercase(), role, token_hash: hash(secret), expires_at };
        store.create_invitation(tenant.clone(), new, entry()).await.map(|()| id)
    };
    let accept = async |tenant: &TenantContext, secret: &str| {
        store.accept_invitation(tenant.clone(), ours.org, hash(secret), entry()).await
    };
    assert_eq!(word(invite(&subject.colleague, Role::Viewer, "no", later()).await), "forbidden");
    let first = invite(ours, Role::Auditor, "first", later()).await.unwrap();
    let revoked = invite(ours, Role::Member, "revoked", later()).await.unwrap();
    invite(ours, Role::Member, "late", NOW - Duration::DAY).await.unwrap();
    store.revoke_invitation(ours.clone(), revoked, entry()).await.unwrap();
    assert_eq!(word(store.revoke_invitation(ours.clone(), revoked, entry()).await), "not_found");
    // Whoever has the link is told where it leads, and nobody else.
    let leads = async |org, secret: &str| store.invited_to(org, hash(secret)).await.unwrap();
    let shown = leads(ours.org, "first").await.unwrap();
    let (here, _) =
        store.organizations(ours.clone()).await.unwrap().into_iter().find(|(record, _)| record.id == ours.org).unwrap();
    assert_eq!((shown.organization, shown.role.as_str()), (here.name, "auditor"));
    assert!((shown.expires_at - later()).abs() < Duration::minutes(10));
    for (org, secret) in
        [(ours.org, "unknown"), (ours.org, "late"), (ours.org, "revoked"), (subject.theirs.org, "first")]
    {
        assert_eq!(leads(org, secret).await, None, "{secret}");
    }
    let ada = subject.newcomer("Ada@example.com", true).await;
    let unverified = subject.newcomer("ada@example.com", false).await;
    let other = subject.newcomer("eve@example.com", true).await;
    for (who, secret) in [(&ada, "unknown"), (&ada, "late"), (&ada, "revoked"), (&other, "first")] {
        assert_eq!(word(accept(who, secret).await), "not_found", "{secret}");
    }
    assert_eq!(word(accept(&unverified, "first").await), "address_not_confirmed");
    assert!(store.organizations(ada.clone()).await.unwrap().is_empty());
    accept(&ada, "first").await.unwrap();
    assert_eq!(leads(ours.org, "first").await, None, "it was used");
    let found = store.organizations(ada.clone()).await.unwrap();
    assert_eq!(found.iter().map(|(record, role)| (record.id, *role)).collect::<Vec<_>>(), [(ours.org, Role::Auditor)]);
    assert_eq!(word(accept(&ada, "first").await), "not_found");
    assert_eq!(word(store.revoke_invitation(ours.clone(), first, entry()).await), "not_found");
    invite(ours, Role::Owner, "again", later()).await.unwrap();
    assert_eq!(word(accept(&ada, "again").await), "already_member");
    let listed = store.invitations(ours.clone()).await.unwrap();
    assert_eq!(listed.iter().filter(|invitation| invitation.email == "ada@example.com").count(), 4);
    let accepted = listed.iter().find(|invitation| invitation.id == first).unwrap();
    assert!(accepted.accepted_at.is_some() && accepted.revoked_at.is_none() && accepted.email == "ada@example.com");
    // What she has there ends with her membership, and so does what she made.
    subject.invite("eve@example.com", "eve", Role::Member).await;
    accept(&other, "eve").await.unwrap();
    store.create_api_key(other.clone(), key("eve's", "eve-key"), entry()).await.unwrap();
    assert!(store.token(hash("eve-key")).await.unwrap().is_some());
    store.remove_member(other.clone(), other.user, entry()).await.unwrap();
    assert_eq!(store.token(hash("eve-key")).await.unwrap(), None);
    store.remove_member(ours.clone(), ada.user, entry()).await.unwrap();
    assert!(store.organizations(ada).await.unwrap().is_empty());
}

pub(super) fn key(name: &str, secret: &str) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId::generate(),
        name: name.to_owned(),
        prefix: "aa_1234567".to_owned(),
        hash: hash(secret),
        scopes: Vec::new(),
        expires_at: None,
        made_by: None,
    }
}

async fn keys_are_good_until_they_end(subject: &Subject) {
    let (store, ours, colleague) = (&subject.store, &subject.ours, &subject.colleague);
    let revoke = async |by: &TenantContext, id| store.revoke_api_key(by.clone(), id, MadeByKey::Ends, entry()).await;
    let scoped = NewApiKey { scopes: vec![KeyScope::Read], expires_at: Some(later()), ..key("ci", "one") };
    store.create_api_key(colleague.clone(), scoped.clone(), entry()).await.unwrap();
    store.create_api_key(colleague.clone(), key("ci", "two"), entry()).await.unwrap();
    assert_eq!(word(store.create_api_key(colleague.clone(), key("ci", "three"), entry()).await), "api_key_rotation");
    store.create_api_key(ours.clone(), key("ci", "mine"), entry()).await.unwrap();
    let holder = async |secret: &str| match store.token(hash(secret)).await.unwrap() {
        Some(Holder::User(holder)) => Some(holder),
        None => None,
        other => panic!("{other:?}"),
    };
    let found = holder("one").await.unwrap();
    assert_eq!((found.user, found.org, found.role), (colleague.user, colleague.org, Role::Member));
    let facts = found.key.unwrap();
    assert_eq!((facts.id, &facts.scopes[..]), (scoped.id, &[KeyScope::Read][..]));
    assert_eq!(
        facts.expires_at.map(OffsetDateTime::unix_timestamp),
        scoped.expires_at.map(OffsetDateTime::unix_timestamp)
    );
    assert!(holder("three").await.is_none());
    let listed = async |tenant: &TenantContext| {
        let found = store.api_keys(tenant.clone()).await.unwrap();
        found.iter().filter(|key| key.name == "ci").count()
    };
    assert_eq!((listed(colleague).await, listed(ours).await), (2, 3));
    let used = store.api_keys(colleague.clone()).await.unwrap();
    assert!(used.iter().any(|key| key.id == scoped.id && key.last_used_at.is_some()));
    let mine =
        store.api_keys(ours.clone()).await.unwrap().into_iter().find(|key| key.user == ours.user && key.name == "ci");
    assert_eq!(word(revoke(colleague, mine.unwrap().id).await), "not_found");
    assert_eq!(word(revoke(&subject.theirs, scoped.id).await), "not_found");
    assert!(holder("one").await.is_some());
    revoke(ours, scoped.id).await.unwrap();
    assert!(holder("one").await.is_none() && holder("two").await.is_some());
    assert_eq!(word(revoke(ours, scoped.id).await), "not_found");
    // There is room for the next one, and one that is over is good for nothing.
    let over = NewApiKey { expires_at: Some(NOW - Duration::DAY), ..key("ci", "over") };
    store.create_api_key(colleague.clone(), over, entry()).await.unwrap();
    assert!(holder("over").await.is_none());
    store.create_api_key(colleague.clone(), key("ci", "next"), entry()).await.unwrap();
    assert!(holder("next").await.is_some());
}

async fn founding_needs_a_right(subject: &Subject) {
    let store = &subject.store;
    let found = async |who: &TenantContext, by| {
        let org = OrgId::generate();
        let made = store.create_organization(who.clone(), org, "founded".to_owned(), by, entry()).await;
        made.map(|()| org)
    };
    let (fay, unverified) =
        (subject.newcomer("fay@example.com", true).await, subject.newcomer("fay@example.org", false).await);
    // Whoever owns none, where signing up is not open; and whoever is in one, where it is.
    for who in [&fay, &unverified, &subject.colleague] {
        assert_eq!(word(found(who, OWNER).await), "forbidden");
    }
    assert_eq!(word(found(&unverified, SIGN_UP).await), "address_not_confirmed");
    let org = found(&fay, SIGN_UP).await.unwrap();
    let fay = TenantContext { org, ..fay };
    let roles: Vec<_> =
        store.organizations(fay.clone()).await.unwrap().iter().map(|(of, role)| (of.id, *role)).collect();
    assert_eq!(roles, [(org, Role::Owner)]);
    assert_eq!(word(found(&fay, SIGN_UP).await), "forbidden");
    found(&fay, OWNER).await.unwrap();
    found(&unverified, Founding::Operator).await.unwrap();
    // Nobody who never logged in.
    let nobody = TenantContext { user: UserId::generate(), ..fay };
    for by in [OWNER, SIGN_UP, Founding::Operator] {
        let refused = found(&nobody, by).await;
        assert!(matches!(refused, Err(StoreError::Unauthenticated)), "{refused:?}");
    }
}

async fn nobody_founds_more_than_they_may(subject: &Subject) {
    let store = &subject.store;
    let quotas = Quotas { sessions_max: Some(3), sessions_per_day_max: Some(4), viewers_max: Some(5) };
    let terms = FoundingTerms { founded_max: Some(3), quotas };
    let gil = subject.newcomer("gil@example.com", true).await;
    let found = |by| {
        let name = "one of several".to_owned();
        store.create_organization(gil.clone(), OrgId::generate(), name, by, entry())
    };
    let words = |answers: Vec<Result<(), StoreError>>| {
        let refused: Vec<_> = answers.into_iter().filter(Result::is_err).map(word).collect();
        refused
    };
    // Of those that sign up at once, one is in no organisation.
    let at_once = join_all((0..4).map(|_| found(Founding::SignUp(terms)))).await;
    assert_eq!(words(at_once), ["forbidden"; 3]);
    let at_once = join_all((0..6).map(|_| found(Founding::Owner(terms)))).await;
    assert_eq!(words(at_once), ["quota_organizations"; 4]);
    let made = store.organizations(gil.clone()).await.unwrap();
    assert_eq!(made.iter().map(|(of, _)| of.quotas).collect::<Vec<_>>(), [quotas; 3]);
    // What the operator makes for somebody is not held by it, and counts.
    found(Founding::Operator).await.unwrap();
    let terms = FoundingTerms { founded_max: Some(4), ..terms };
    assert_eq!(word(found(Founding::Owner(terms)).await), "quota_organizations");
}

/// Keys that a key made and those that they made, codes, logins and enrolments; whatever else its user has stays.
async fn what_a_key_made_ends_with_it(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let made_by = |name: &str, parent: Option<ApiKeyId>| NewApiKey { made_by: parent, ..key(name, name) };
    let (first, second) = (made_by("root", None), made_by("beside", None));
    let child = made_by("child", Some(first.id));
    let grandchild = made_by("grandchild", Some(child.id));
    for new in [&first, &second, &child, &grandchild] {
        store.create_api_key(ours.clone(), new.clone(), entry()).await.unwrap();
    }
    let code = |secret: &str, parent: ApiKeyId| crate::store::records::NewLoginCode {
        made_by: Some(parent),
        ..super::code(secret, later())
    };
    let redeem = async |code: &str, cookie: &str| {
        store.redeem_login_code(hash(code), hash(cookie), later(), entry()).await.unwrap()
    };
    let enrol = async |secret: &str, parent: ApiKeyId| {
        let (hash, name, made_by) = (hash(secret), "worker".to_owned(), Some(parent));
        let new = NewEnrolment { hash, name, expires_at: later(), made_by };
        store.create_host_enrolment(ours.clone(), new, entry()).await
    };
    for (secret, parent) in [("code of root", first.id), ("code of child", child.id), ("code beside", second.id)] {
        store.create_login_code(ours.clone(), code(secret, parent), entry()).await.unwrap();
        enrol(&format!("host {secret}"), parent).await.unwrap();
    }
    for cookie in ["code of child", "code beside"] {
        assert!(redeem(cookie, cookie).await.is_some());
    }
    let session = async |cookie: &str| store.browser_session(hash(cookie), NOW).await.unwrap();
    assert_eq!(session("code of child").await.unwrap().made_by, Some(child.id));
    let live = async |names: &[&str]| {
        let mut live = Vec::new();
        for name in names {
            live.push(store.token(hash(name)).await.unwrap().is_some());
        }
        live
    };
    let all = ["root", "beside", "child", "grandchild"];
    assert_eq!(live(&all).await, [true; 4]);
    let listed = store.api_keys(ours.clone()).await.unwrap();
    let parent = |id| listed.iter().find(|key| key.id == id).unwrap().made_by;
    assert_eq!((parent(grandchild.id), parent(first.id)), (Some(child.id), None));

    // One that another takes the place of, and then the one that made all of it.
    store.revoke_api_key(ours.clone(), child.id, MadeByKey::Stays, entry()).await.unwrap();
    assert_eq!(live(&all).await, [true, true, false, true]);
    assert!(session("code of child").await.is_some());
    store.revoke_api_key(ours.clone(), first.id, MadeByKey::Ends, entry()).await.unwrap();
    assert_eq!(live(&all).await, [false, true, false, false]);
    assert!(session("code of child").await.is_none() && session("code beside").await.is_some());
    assert!(redeem("code of root", "no").await.is_none());
    let at = OffsetDateTime::now_utc();
    for (secret, is_good) in [("host code of root", false), ("host code of child", false), ("host code beside", true)] {
        let host =
            store.redeem_host_enrolment(hash(secret), HostId::generate(), hash(&format!("{secret}'s")), at).await;
        assert_eq!(host.unwrap().is_some(), is_good, "{secret}");
    }
    // Nothing is made with one that ended, nor with a key that is somebody else's.
    for (who, parent) in [(ours, first.id), (ours, grandchild.id), (&subject.colleague, second.id)] {
        let late = made_by("late", Some(parent));
        let refused = store.create_api_key(who.clone(), late, entry()).await;
        assert!(matches!(refused, Err(StoreError::Unauthenticated)), "{refused:?}");
        let refused = store.create_login_code(who.clone(), code("late", parent), entry()).await;
        assert!(matches!(refused, Err(StoreError::Unauthenticated)), "{refused:?}");
    }
    assert!(matches!(enrol("late", first.id).await, Err(StoreError::Unauthenticated)));
}

async fn a_machine_becomes_a_host_once(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let enrol = async |tenant: &TenantContext, secret: &str, expires_at| {
        let new = NewEnrolment { hash: hash(secret), name: "worker".to_owned(), expires_at, made_by: None };
        store.create_host_enrolment(tenant.clone(), new, entry()).await
    };
    let redeem = async |secret: &str, host, credential: &str| {
        let at = OffsetDateTime::now_utc();
        store.redeem_host_enrolment(hash(secret), host, hash(credential), at).await.unwrap()
    };
    let host = HostId::generate();
    assert_eq!(word(enrol(&subject.colleague, "no", later()).await), "forbidden");
    assert_eq!(redeem("no", host, "nothing").await, None);
    enrol(ours, "late-host", NOW - Duration::DAY).await.unwrap();
    assert_eq!(redeem("late-host", host, "nothing").await, None);
    enrol(ours, "enrol", later()).await.unwrap();
    assert_eq!(redeem("enrol", host, "credential").await, Some(ours.org));
    assert_eq!(redeem("enrol", HostId::generate(), "second").await, None);
    let whose = async |secret: &str| store.token(hash(secret)).await.unwrap();
    assert_eq!((whose("credential").await, whose("second").await), (Some(Holder::Host(host)), None));
    let listed = async |tenant: &TenantContext| {
        let hosts = store.hosts(tenant.clone()).await.unwrap();
        hosts.into_iter().find(|found| found.id == host)
    };
    let found = listed(ours).await.unwrap();
    assert_eq!((found.org, found.name.as_deref()), (Some(ours.org), Some("worker")));
    assert_eq!(listed(&subject.theirs).await, None);
    let revoke = async |tenant: &TenantContext, host| store.revoke_host(tenant.clone(), host, entry()).await;
    assert_eq!(word(revoke(&subject.colleague, host).await), "forbidden");
    let stranger = subject.organization().await;
    assert_eq!(word(revoke(&stranger, host).await), "not_found");
    // One that serves everybody is the platform's.
    assert_eq!(word(revoke(ours, LOCAL_HOST).await), "not_found");
    revoke(ours, host).await.unwrap();
    assert_eq!((whose("credential").await, listed(ours).await), (None, None));
    assert!(matches!(store.host(host).await, Err(StoreError::NotFound)));
    let rotation = Rotation { shown: hash("credential"), new: hash("another"), others_end_at: later() };
    assert_eq!(word(store.rotate_host_credential(host, rotation, entry()).await), "not_found");
    assert_eq!(word(revoke(ours, host).await), "not_found");
}

async fn quotas_are_exact(subject: &Subject) {
    let (store, tenant) = (&subject.store, subject.organization().await);
    let set = async |sessions_max, sessions_per_day_max| {
        store
            .set_quotas(tenant.org, Quotas { sessions_max, sessions_per_day_max, ..Quotas::default() }, entry())
            .await
            .unwrap();
    };
    assert_eq!(word(store.set_quotas(OrgId::generate(), Quotas::default(), entry()).await), "not_found");
    set(Some(3), None).await;
    let made = join_all((0..12).map(|_| subject.make(&tenant))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (3, 9));
    assert!(refused.into_iter().all(|result| word(result) == "quota_sessions"));
    // Whoever ends makes room, for a new one or to start again, and not for both.
    let first = subject.end(made[0].as_ref().unwrap(), NOW).await;
    let again = subject.make(&tenant).await.unwrap();
    let next = SpawnRecord { number: 2, ..again.spawns[0].clone() };
    let change = SessionChange { new_spawn: Some(next), ..SessionChange::default() };
    let scope = || Scope::Tenant(tenant.clone());
    let restart =
        async || store.update_session(scope(), first.id, first.revision, change.clone(), Some(entry()), None).await;
    assert_eq!(word(restart().await), "quota_sessions");
    subject.end(&again, NOW).await;
    restart().await.unwrap();
    // Four were made; a purge frees no place of the day.
    set(None, Some(4)).await;
    assert_eq!(word(subject.make(&tenant).await), "quota_sessions_per_day");
    store.purge_session(scope(), again.id, entry()).await.unwrap();
    assert_eq!(word(subject.make(&tenant).await), "quota_sessions_per_day");
    set(None, Some(6)).await;
    let made = join_all((0..6).map(|_| subject.make(&tenant))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    // Another organisation is not concerned.
    subject.make(&subject.ours).await.unwrap();
    // Of two reasons the quota is told.
    let only = |agents: Option<Vec<String>>| OrganizationSettings { agents, ..OrganizationSettings::default() };
    subject.settings(&tenant, only(Some(vec!["claude".to_owned()]))).await;
    assert_eq!(word(subject.make(&tenant).await), "quota_sessions_per_day");
    subject.settings(&tenant, only(None)).await;
    set(None, None).await;
    subject.make(&tenant).await.unwrap();
}

/// A request goes on in the role that it began with; the store does not.
async fn what_was_taken_away_meanwhile_is_gone(subject: &Subject) {
    let (store, ours) = (&subject.store, &subject.ours);
    let (email, secret) = (format!("{}@example.com", UserId::generate()), UserId::generate().to_string());
    let ada = TenantContext { role: Role::Admin, ..subject.newcomer(&email, true).await };
    let new = NewInvitation {
        id: InvitationId::generate(),
        email,
        role: Role::Admin,
        token_hash: hash(&secret),
        expires_at: later(),
    };
    store.create_invitation(ours.clone(), new, entry()).await.unwrap();
    store.accept_invitation(ada.clone(), ours.org, hash(&secret), entry()).await.unwrap();
    let (private, own) = (subject.make(ours).await.unwrap(), subject.make(&ada).await.unwrap());
    let scope = || Scope::Tenant(ada.clone());
    let sees = async || {
        let filter = SessionFilter { limit: 200, ..SessionFilter::default() };
        let listed = store.sessions(ada.clone(), filter).await.unwrap();
        [&private, &own].map(|record| listed.iter().any(|found| found.id == record.id))
    };
    let audited = async || store.audit_records(ada.clone(), AuditFilter { limit: 1, ..AuditFilter::default() }).await;
    let rename = || SessionChange { name: Some(None), ..SessionChange::default() };
    while store.seal_audit(1000).await.unwrap() > 0 {}
    let private = subject.update(scope(), &private, rename()).await.unwrap();
    assert_eq!((sees().await, audited().await.unwrap().records.len()), ([true, true], 1));
    store.set_member_role(ours.clone(), ada.user, Role::Viewer, entry()).await.unwrap();
    assert_eq!((sees().await, audited().await.unwrap().records.len()), ([false, true], 0));
    assert_eq!(word(store.session(scope(), private.id).await), "not_found");
    assert_eq!(
        word(store.egress(scope(), private.id, EgressFilter { verdict: None, before: None, limit: 1 }).await),
        "not_found"
    );
    assert_eq!(word(subject.update(scope(), &private, rename()).await), "not_found");
    assert_eq!(word(subject.update(scope(), &own, rename()).await), "forbidden");
    assert!(!store.hosts(ada.clone()).await.unwrap().is_empty());
    store.remove_member(ours.clone(), ada.user, entry()).await.unwrap();
    assert_eq!((sees().await, store.hosts(ada.clone()).await.unwrap()), ([false, false], Vec::new()));
    assert_eq!(word(store.session(scope(), own.id).await), "not_found");
    assert_eq!(word(subject.make(&ada).await), "not_found");
}

async fn an_agent_has_to_be_allowed(subject: &Subject) {
    let tenant = subject.organization().await;
    let only =
        |agent: &str| OrganizationSettings { agents: Some(vec![agent.to_owned()]), ..OrganizationSettings::default() };
    subject.settings(&tenant, only("claude")).await;
    assert_eq!(word(subject.make(&tenant).await), "agent_not_allowed");
    subject.settings(&tenant, only("custom")).await;
    subject.make(&tenant).await.unwrap();
}

async fn what_is_over_is_found(subject: &Subject) {
    let (store, tenant) = (&subject.store, subject.organization().await);
    let record = subject.make(&tenant).await.unwrap();
    let due = async |seconds: i64| {
        let expiry = store.expiry(NOW + Duration::seconds(seconds)).await.unwrap();
        let due: Vec<Overdue> = expiry.due.into_iter().filter(|due| due.0 == record.id).map(|due| due.1).collect();
        (due, expiry.next.map(|next| (next - NOW).whole_seconds()))
    };
    assert_eq!(due(1_000_000).await.0, []);
    let none = OrganizationSettings::default();
    subject.settings(&tenant, OrganizationSettings { session_age_seconds_max: Some(100), ..none.clone() }).await;
    assert_eq!(due(50).await, (vec![], Some(100)));
    assert_eq!(due(101).await.0, [Overdue::Age]);
    // Somebody had to do with it, which counts for the one and not for the other.
    let idle =
        OrganizationSettings { session_idle_seconds_max: Some(60), session_age_seconds_max: Some(100), ..none.clone() };
    subject.settings(&tenant, idle).await;
    assert_eq!(due(61).await.0, [Overdue::Idle]);
    let touched = AuditEntry { session: Some(record.id), at: NOW + Duration::seconds(30), ..entry() };
    store.audit(Scope::Tenant(tenant.clone()), touched, None).await.unwrap();
    assert_eq!(due(61).await, (vec![], Some(90)));
    assert_eq!((due(91).await.0, due(101).await.0), (vec![Overdue::Idle], vec![Overdue::Idle]));
    // One that is asked to stop is asked once.
    let stop = SessionChange { desired: Some(crate::store::records::Desired::Stop), ..SessionChange::default() };
    let record = store.update_session(Scope::System, record.id, record.revision, stop, None, None).await.unwrap();
    assert_eq!(due(101).await.0, []);
    subject.settings(&tenant, OrganizationSettings { session_retention_days: Some(1), ..none.clone() }).await;
    assert_eq!(due(1_000_000).await.0, []);
    let ended = subject.end(&record, NOW + Duration::seconds(500)).await;
    assert_eq!((due(86_400 + 400).await.0, due(86_400 + 501).await.0), (vec![], vec![Overdue::Retention]));
    let purging = SessionChange { purging: Some(true), ..SessionChange::default() };
    store.update_session(Scope::System, ended.id, ended.revision, purging, None, None).await.unwrap();
    assert_eq!(due(86_400 + 501).await.0, []);
    subject.settings(&tenant, none).await;
}
