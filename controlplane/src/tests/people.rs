//! Callers of each kind, and what they follow.

use agentapi_shared::api::Visibility;
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId, SessionId, SpawnState, UserId, WindowSize};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::client::{DEADLINE, Harness, Viewer};
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::domain::audit;
use crate::store::records::{
    DEFAULT_ORG, Identity, LoginHolder, NewEnrolment, NewInvitation, NewLogin, NewSession, SessionRecord, TenantContext,
};
use crate::store::{Created, Scope};

/// Somebody in an organisation, and their token.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) tenant: TenantContext,
    pub(super) token: String,
}

impl Person {
    /// Makes one; their organisation too, if it is new.
    pub(super) fn new(harness: &Harness, org: OrgId, role: Role) -> Self {
        let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
        let user = UserId::generate();
        let (org_text, user_text) = (org.to_string(), user.to_string());
        let run = |sql: &str, values: &[&str]| rows.execute(sql, rusqlite::params_from_iter(values)).unwrap();
        run(
            "INSERT OR IGNORE INTO organizations (id, org_id, created_by, created_at, name)
             VALUES (?1, ?1, ?2, '2026-01-02T03:04:05Z', 'org')",
            &[&org_text, &user_text],
        );
        run(
            "INSERT INTO users (id, issuer, subject, name, email, email_verified, created_at)
             VALUES (?1, 'test', ?1, 'someone', ?1 || '@example.com', 1, '2026-01-02T03:04:05Z')",
            &[&user_text],
        );
        run(
            "INSERT INTO memberships (org_id, user_id, role, created_by, created_at) VALUES (?1, ?2, ?3, ?2, '2026-01-02T03:04:05Z')",
            &[&org_text, &user_text, role.as_str()],
        );
        let person = Self { tenant: TenantContext { org, user, role, token: None }, token: String::new() };
        let (_, token) = person.key(harness, "[]");
        Self { token, ..person }
    }

    /// Makes somebody who is in no organisation, and logs a browser of theirs in: the `Cookie` header.
    pub(super) async fn newcomer(harness: &Harness, email_verified: bool) -> (Self, String) {
        let (user, cookie) = (UserId::generate(), Secret::generate(""));
        let identity = Identity {
            user,
            issuer: "test".to_owned(),
            subject: user.to_string(),
            name: Some("somebody new".to_owned()),
            email: Some(format!("{user}@example.com")),
            email_verified,
        };
        let store = &harness.plane.store;
        store.log_in(identity).await.unwrap().unwrap();
        let login = NewLogin {
            user,
            org: None,
            cookie: cookie.hash(),
            expires_at: clock::now() + time::Duration::HOUR,
            by: "test".to_owned(),
            auth_session: None,
            refresh: None,
            audit: audit::of_account("web", "login"),
        };
        assert!(matches!(store.begin_login(login).await.unwrap(), Some(LoginHolder::Newcomer(_))));
        let tenant = TenantContext { org: DEFAULT_ORG, user, role: Role::Viewer, token: None };
        let port = harness.base.rsplit(':').next().unwrap();
        (Self { tenant, token: String::new() }, format!("agentapi_{port}={}", cookie.expose()))
    }

    /// Gives them a key, whatever their role: its id, and the key.
    pub(super) fn key(&self, harness: &Harness, scopes: &str) -> (ApiKeyId, String) {
        let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
        let (id, key) = (ApiKeyId::generate(), Secret::generate("aa_"));
        let insert = "INSERT INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash, scopes)
                      VALUES (?1, ?2, ?3, ?3, '2026-01-02T03:04:05Z', ?1, 'aa_', ?4, ?5)";
        let (org, user) = (self.tenant.org.to_string(), self.tenant.user.to_string());
        rows.execute(insert, [&id.to_string(), &org, &user, &key.hash(), scopes]).unwrap();
        (id, key.expose().to_owned())
    }

    /// Invites somebody: the invitation, and its token.
    pub(super) async fn invites(&self, harness: &Harness, email: &str, role: Role) -> (InvitationId, String) {
        let (id, token) = (InvitationId::generate(), Secret::generate(""));
        let expires_at = clock::now() + time::Duration::HOUR;
        let new = NewInvitation { id, email: email.to_owned(), role, token_hash: token.hash(), expires_at };
        let entry = audit::of_account("api", "invitation.create");
        harness.plane.store.create_invitation(self.tenant.clone(), new, entry).await.unwrap();
        (id, token.expose().to_owned())
    }

    /// A token that a machine may become a host with.
    pub(super) async fn enrolment(&self, harness: &Harness) -> String {
        let token = Secret::generate("");
        let expires_at = clock::now() + time::Duration::HOUR;
        let new = NewEnrolment { hash: token.hash(), name: "worker".to_owned(), expires_at, made_by: None };
        let entry = audit::of_account("api", "host_enrolment.create");
        harness.plane.store.create_host_enrolment(self.tenant.clone(), new, entry).await.unwrap();
        token.expose().to_owned()
    }

    /// A host of their organisation, which is not connected.
    pub(super) async fn host(&self, harness: &Harness) -> HostId {
        let hash = Secret::from_text(self.enrolment(harness).await).hash();
        let (host, credential) = (HostId::generate(), Secret::generate("aah_"));
        let made = harness.plane.store.redeem_host_enrolment(hash, host, credential.hash(), clock::now()).await;
        assert_eq!(made.unwrap(), Some(self.tenant.org));
        host
    }

    /// Makes a session of theirs, whatever their role, and waits until it runs.
    pub(super) async fn running_session(&self, harness: &Harness, visibility: Visibility) -> SessionRecord {
        let id = SessionId::generate();
        let new = NewSession {
            id,
            at: clock::now(),
            name: None,
            labels: std::collections::BTreeMap::new(),
            agent: "custom".to_owned(),
            command: vec!["bash".to_owned()],
            args: Vec::new(),
            size: WindowSize::DEFAULT,
            workspace: agentapi_shared::api::Workspace::default(),
            sandbox: agentapi_shared::api::SandboxRequest::default(),
            has_env: false,
            visibility,
        };
        let plane = &harness.plane;
        let entry = audit::of_account("api", "session.create");
        // Whoever may make none made it when they still might.
        let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
        let role = |role: Role| {
            let (org, user) = (self.tenant.org.to_string(), self.tenant.user.to_string());
            let set = "UPDATE memberships SET role = ?1 WHERE org_id = ?2 AND user_id = ?3";
            rows.execute(set, [role.as_str(), &org, &user]).unwrap();
        };
        role(Role::Member);
        let tenant = TenantContext { role: Role::Member, ..self.tenant.clone() };
        let made = plane.store.create_session(tenant, new, None, entry).await.unwrap();
        role(self.tenant.role);
        let Created::New(record) = made else { panic!("{made:?}") };
        let mut changed = plane.events.watch();
        plane.fleet.settle_soon(&record);
        let wait = async {
            loop {
                let record = plane.store.session(Scope::System, id).await.unwrap();
                if record.state() == SpawnState::Running {
                    return record;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the session never ran")
    }

    /// Opens a terminal.
    pub(super) async fn view(&self, harness: &Harness, id: SessionId, query: &str) -> Result<Viewer, SocketError> {
        harness.open_terminal(id, query, &[("authorization", &format!("Bearer {}", self.token))]).await
    }

    /// Follows the events, from now on.
    pub(super) async fn follow(&self, harness: &Harness) -> Following {
        let response = harness.request("GET", "/api/v1/events").bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut following = Following { chunks: response.bytes_stream().boxed(), text: String::new() };
        assert_eq!(following.next().await.unwrap()["event"], "hello");
        following
    }

    /// The ids of the sessions that their list shows.
    pub(super) async fn listed(&self, harness: &Harness) -> Vec<SessionId> {
        let request = harness.request("GET", "/api/v1/sessions?limit=200").bearer_auth(&self.token);
        let (status, list) = super::client::answer(request).await;
        assert_eq!(status, 200, "{list}");
        list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// A request in their name.
    pub(super) async fn call(&self, harness: &Harness, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = harness.request(method, path).bearer_auth(&self.token);
        super::client::answer(if body.is_null() { request } else { request.json(&body) }).await
    }
}

/// An event stream.
pub(super) struct Following {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    text: String,
}

impl Following {
    /// The next event; none at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            let chunk = tokio::time::timeout(DEADLINE, self.chunks.next()).await.expect("no event")?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The events of sessions up to that of a certain one: name and session of each.
    pub(super) async fn until(&mut self, last: SessionId) -> Vec<(String, SessionId)> {
        let mut found = Vec::new();
        loop {
            let event = self.next().await.expect("the stream ended");
            let id = event["session"]["id"].as_str().or(event["id"].as_str());
            let Some(id) = id.map(|id| id.parse::<SessionId>().unwrap()) else { continue };
            if id == last {
                return found;
            }
            found.push((event["event"].as_str().unwrap().to_owned(), id));
        }
    }

    /// Whether nothing is there now.
    pub(super) fn is_silent(&mut self) -> bool {
        self.next().now_or_never().is_none()
    }

    fn take(&mut self) -> Option<Value> {
        let (event, rest) = self.text.split_once("\n\n")?;
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
        self.text = rest.to_owned();
        // A comment keeps the stream alive and says nothing.
        data.map_or(Some(json!({})), |data| serde_json::from_str(&data).ok())
    }
}
