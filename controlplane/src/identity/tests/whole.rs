//! A whole control plane, and people who say who they are in each of the ways: at a project with a real PostgREST, and at a real issuer.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::runtime::LogFormat;
use agentapi_shared::{InvitationId, OrgId, UserId};
use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Dir;
use super::auth::{Auth, PASSWORD};
use super::issuer::Issuer;
use super::oidc;
use super::signer::{Signer, encoded};
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::config::{self, Config};
use crate::domain::audit;
use crate::identity::fetch;
use crate::identity::project::ProjectKeys;
use crate::plane::Plane;
use crate::server::Server;
use crate::store::records::{DEFAULT_ORG, Identity, LOCAL_ADMIN, NewInvitation, TenantContext};

/// Each takes a few seconds, if it has to be made again.
const TRIES_MAX: u32 = 10;

/// A server that runs until it is dropped.
struct Running {
    base: String,
    plane: Arc<Plane>,
    http: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(dir: &Dir, project: Option<ProjectKeys>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics_listen: None,
            public_url: None,
            oidc: None,
            rates: crate::limits::Rates::DEFAULT,
            data_dir: dir.path("data"),
            credentials_file: None,
            host_credential_file: None,
            audit_checkpoint_dir: None,
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
        };
        change(&mut config);
        let server = Server::bind(&config, project).await.unwrap();
        let (base, plane) = (format!("http://{}", server.address()), server.plane());
        let (stop, stopped) = oneshot::channel::<()>();
        let run = server.run(async move {
            let _stopped = stopped.await;
        });
        #[expect(clippy::disallowed_methods, reason = "a test owns it through its handle")]
        let task = tokio::spawn(run);
        Self { base, plane, http: fetch::client().unwrap(), stop: Some(stop), task }
    }

    async fn end(mut self) {
        let _stopped = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
    }

    /// A request with this header, again while the store is too slow for its deadline, as on a machine that runs many tests at once.
    async fn ask(&self, method: &str, path: &str, header: (&str, &str), body: Option<Value>) -> Answer {
        for _ in 0..TRIES_MAX {
            let answer = self.ask_once(method, path, header, body.clone()).await;
            if answer.status != 503 {
                return answer;
            }
        }
        panic!("{method} {path}: the store is not there");
    }

    async fn ask_once(&self, method: &str, path: &str, header: (&str, &str), body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method.parse().unwrap(), url).timeout(Duration::from_secs(60));
        if !header.0.is_empty() {
            request = request.header(header.0, header.1);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
        let cookies = answer.headers().get_all("set-cookie").iter().map(text).collect();
        let location = answer.headers().get("location").map(text);
        let status = answer.status();
        let body = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        Answer { status, cookies, location, body }
    }

    async fn get(&self, path: &str, header: (&str, &str)) -> Answer {
        self.ask("GET", path, header, None).await
    }

    async fn log_in(&self, body: Value) -> Answer {
        self.ask("POST", "/api/v1/login/password", ("", ""), Some(body)).await
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    cookies: Vec<String>,
    location: Option<String>,
    body: Value,
}

impl Answer {
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{self:?}");
    }

    /// The cookie that was set last before others were removed, as a browser sends it.
    fn cookie(&self) -> String {
        let pair = |set: &String| set.split(';').next().unwrap().to_owned();
        let set = self.cookies.iter().map(pair).find(|pair| !pair.ends_with('='));
        set.unwrap_or_else(|| panic!("no cookie: {self:?}"))
    }
}

/// A project: a database, PostgREST, and the part of Supabase Auth that logs people in.
struct Project {
    cluster: Cluster,
    auth: Arc<Auth>,
    issuer: Issuer,
    keys: ProjectKeys,
    jwk: Value,
    pem: String,
}

impl Project {
    async fn start() -> Self {
        let signer = Signer::es256("key");
        let (jwk, pem, mut auth) = (signer.jwk.clone(), signer.pem.clone(), None);
        let issuer = Issuer::with(&[&jwk], |address| {
            let made = Auth::new(format!("http://{address}/auth/v1"), signer);
            auth = Some(made.clone());
            made.router()
        })
        .await;
        let mut cluster = Cluster::start(Release::System).await.unwrap();
        // The double of Supabase Auth keeps its users elsewhere; nobody is to be taken for deleted.
        cluster.sql_as("supabase_admin", "alter table auth.users rename to users_elsewhere").await.unwrap();
        let secret = json!({ "kty": "oct", "alg": "HS256", "kid": "secret", "k": URL_SAFE_NO_PAD.encode(jwt::SECRET) });
        cluster.keys = json!({ "keys": [jwk, secret] }).to_string();
        cluster.serve("agentapi").await.unwrap();
        let service = jwt::signed(&jwt::service_claims(), jwt::SECRET);
        let keys = ProjectKeys::open(|name| match name {
            "SUPABASE_URL" => Some(issuer.url()),
            "SUPABASE_REST_URL" => Some(cluster.url.clone()),
            "SUPABASE_ANON_KEY" => Some("sb_publishable_a".to_owned()),
            "SUPABASE_SERVICE_ROLE_KEY" => Some(service.clone()),
            "SUPABASE_JWT_SECRET" => Some(jwt::SECRET.to_owned()),
            _ => None,
        });
        let keys = keys.unwrap().unwrap();
        Self { cluster, auth: auth.unwrap(), issuer, keys, jwk, pem }
    }

    /// Makes somebody who logged in once a member.
    async fn put_in(&self, user: uuid::Uuid, role: &str) -> OrgId {
        let org = OrgId::generate();
        let sql = format!(
            "insert into agentapi.organizations (id, created_by, name) values ('{org}', '{user}', 'theirs');
             insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{org}', '{user}', '{role}', '{user}');"
        );
        self.cluster.sql(&sql).await.unwrap();
        org
    }

    fn claims(&self) -> Value {
        let now = clock::now().unix_timestamp();
        json!({
            "iss": format!("{}/auth/v1", self.issuer.url()), "aud": "authenticated", "sub": self.auth.user(),
            "role": "authenticated", "exp": now + 3600, "iat": now, "session_id": "s", "email": "ada@example.com"
        })
    }
}

#[tokio::test]
async fn people_of_a_project_log_in_by_password_and_bring_its_tokens() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    let ada = || json!({ "email": "ada@example.com", "password": PASSWORD });
    let methods = server.get("/api/v1/login/methods", ("", "")).await;
    assert_eq!((&methods.body["password"], &methods.body["issuer"]), (&json!(true), &Value::Null));

    // Known to the issuer, and nobody here.
    server.log_in(ada()).await.refused(403, "no_organization");
    let org = project.put_in(project.auth.user(), "owner").await;
    let refusals = [
        (json!({ "email": "ada@example.com", "password": "wrong" }), 401, "invalid_password"),
        (json!({ "email": "eve@example.com", "password": PASSWORD }), 401, "invalid_password"),
        (json!({ "email": "bob@example.com", "password": PASSWORD }), 403, "address_not_confirmed"),
    ];
    for (body, status, code) in refusals {
        server.log_in(body).await.refused(status, code);
    }
    let evil = ("origin", "http://evil.example");
    server.ask("POST", "/api/v1/login/password", evil, Some(ada())).await.refused(403, "origin_refused");

    let logged_in = server.log_in(ada()).await;
    assert_eq!(logged_in.status, 204);
    assert!(logged_in.cookies[0].contains("HttpOnly; SameSite=Strict"), "{logged_in:?}");
    let me = server.get("/api/v1/me", ("cookie", &logged_in.cookie())).await;
    assert_eq!((me.status.as_u16(), &me.body["organization_id"]), (200, &json!(org)), "{me:?}");
    // The login's own token went to the database: it was renewed for that, and is kept.
    assert_eq!(project.auth.counts(), (1, 0));
    let sessions = server.get("/api/v1/sessions", ("cookie", &logged_in.cookie())).await;
    assert_eq!((sessions.status.as_u16(), project.auth.counts()), (200, (1, 0)));
    server.get("/api/v1/me", ("cookie", "agentapi_1=nonsense")).await.refused(401, "unauthorized");

    // What another replica, which has not seen the token yet, makes of a login that Supabase ended.
    project.auth.end_all();
    server.get("/api/v1/sessions", ("cookie", &logged_in.cookie())).await;
    let other = Running::start(&Dir::new(), Some(project.keys.clone()), |_| {}).await;
    let port = |server: &Running| server.base.rsplit(':').next().unwrap().to_owned();
    let there = logged_in.cookie().replace(&port(&server), &port(&other));
    other.get("/api/v1/me", ("cookie", &there)).await.refused(401, "login_over");
    other.end().await;

    // A logout here is one there.
    let again = server.log_in(ada()).await.cookie();
    assert_eq!(project.auth.logins(), 1);
    let origin = format!("http://{}", server.base.trim_start_matches("http://"));
    let request =
        server.http.post(format!("{}/api/v1/logout", server.base)).header("cookie", &again).header("origin", origin);
    assert_eq!(request.send().await.unwrap().status(), 204);
    assert_eq!(project.auth.logins(), 0);
    server.get("/api/v1/me", ("cookie", &again)).await.refused(401, "unauthorized");
    server.end().await;
}

#[tokio::test]
async fn whoever_is_invited_logs_in_with_the_link() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    let (owner, token, other) = (UserId::generate(), Secret::generate("aai_"), Secret::generate("aai_"));
    let made = format!(
        "insert into agentapi.users (id, issuer, subject) values ('{owner}', 'test', '{owner}');
         insert into agentapi.organizations (id, created_by, name) values ('{owner}', '{owner}', 'theirs');
         insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{owner}', '{owner}', 'owner', '{owner}');"
    );
    project.cluster.sql(&made).await.unwrap();
    for (token, email) in [(&token, "ada@example.com"), (&other, "bob@example.com")] {
        let invite = format!(
            "insert into agentapi.invitations (id, org_id, created_by, email, role, token_hash, expires_at)
             values ('{}', '{owner}', '{owner}', '{email}', 'viewer', decode('{}', 'hex'), now() + interval '1 hour');",
            InvitationId::generate(),
            token.hash()
        );
        project.cluster.sql(&invite).await.unwrap();
    }
    let with = |token: &Secret| {
        json!({ "email": "ada@example.com", "password": PASSWORD,
            "invitation": { "organization_id": owner, "token": token.expose() } })
    };
    for wrong in [&other, &Secret::generate("aai_")] {
        server.log_in(with(wrong)).await.refused(403, "invitation_refused");
    }
    // A second time she is a member already, with the same link, which is used up.
    for _ in 0..2 {
        let done = server.log_in(with(&token)).await;
        assert_eq!(done.status, 204, "{done:?}");
        let me = server.get("/api/v1/me", ("cookie", &done.cookie())).await;
        assert_eq!((&me.body["organization_id"], &me.body["role"]), (&json!(owner), &json!("viewer")), "{me:?}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_login_that_is_shown_as_a_token_is_recorded_once_by_whichever_replica() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    let other = Running::start(&Dir::new(), Some(project.keys.clone()), |_| {}).await;
    server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.refused(403, "no_organization");
    let org = project.put_in(project.auth.user(), "member").await;
    let (secret, claims) = (Signer::secret(jwt::SECRET), project.claims());
    let token = |login: &str, lasts: i64| {
        let mut claims = claims.clone();
        (claims["session_id"], claims["exp"]) = (json!(login), json!(clock::now().unix_timestamp() + lasts));
        format!("Bearer {}", secret.token(&claims))
    };
    let recorded = async || {
        let sql = format!(
            "select entry from agentapi.audit_logs where org_id = '{org}' and action = 'login' order by recorded_at"
        );
        let found = project.cluster.sql(&sql).await.unwrap();
        found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    // Tokens of one login, renewed, at two replicas at once; one that is refused is no login.
    server.get("/api/v1/me", ("authorization", &token("s", -60))).await.refused(401, "invalid_token");
    let (first, renewed) = (token("s", 3600), token("s", 3000));
    let asked = tokio::join!(
        server.get("/api/v1/me", ("authorization", &first)),
        other.get("/api/v1/me", ("authorization", &renewed)),
        server.get("/api/v1/me", ("authorization", &renewed)),
        other.get("/api/v1/me", ("authorization", &first)),
    );
    assert_eq!([asked.0.status, asked.1.status, asked.2.status, asked.3.status], [StatusCode::OK; 4]);
    let found = recorded().await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (&found[0]["detail"], &found[0]["actor"]["id"]),
        (&json!({ "by": "token" }), &json!(project.auth.user()))
    );
    assert!(found[0]["request_id"].is_string() && found[0]["actor"]["credential"].is_string());
    // Another login is another one, and it is there when the request is answered.
    other.get("/api/v1/me", ("authorization", &token("t", 3600))).await;
    assert_eq!(recorded().await.len(), 2);
    server.end().await;
    other.end().await;
}

#[tokio::test]
async fn forged_tokens_are_refused_at_the_door() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    // Her row comes with her first login.
    server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.refused(403, "no_organization");
    let org = project.put_in(project.auth.user(), "member").await;
    let (secret, claims) = (Signer::secret(jwt::SECRET), project.claims());
    let genuine = secret.token(&claims);
    let bearer = |token: &str| format!("Bearer {token}");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        secret.token(&claims)
    };
    let now = clock::now().unix_timestamp();
    let confused = Signer::secret(&project.pem).sign(&json!({ "alg": "HS256", "kid": "key" }), &claims);
    let table = [
        ("none", format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&claims))),
        ("another key", Signer::es256("key").token(&claims)),
        ("another secret", Signer::secret("another-secret-with-enough-characters").token(&claims)),
        ("the public key as secret", confused),
        ("a made-up key", Signer::es256("../../etc/passwd").token(&claims)),
        ("over", with("exp", json!(now - 60))),
        ("without end", with("exp", Value::Null)),
        ("in the future", with("iat", json!(now + 600))),
        ("for others", with("aud", json!("anon"))),
        ("of others", with("iss", json!("https://evil.example/auth/v1"))),
        ("the service role", with("role", json!("service_role"))),
        ("no user", with("sub", json!("00000000"))),
        ("truncated", genuine[..genuine.len() - 4].to_owned()),
        ("of PostgREST's own service role", jwt::signed(&jwt::service_claims(), jwt::SECRET)),
    ];
    for (what, token) in &table {
        let answer = server.get("/api/v1/sessions", ("authorization", &bearer(token))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["code"].as_str()),
            (401, Some("invalid_token")),
            "{what}: {answer:?}"
        );
        let control = server.get("/api/v1/sessions", ("authorization", &bearer(&genuine))).await;
        assert_eq!(control.status, 200, "the control of {what}: {control:?}");
    }
    // Somebody whom the project vouches for, and who is in nothing here.
    let mut stranger = claims.clone();
    stranger["sub"] = json!(UserId::generate());
    let answer = server.get("/api/v1/sessions", ("authorization", &bearer(&secret.token(&stranger)))).await;
    assert_ne!(answer.status, 200, "{answer:?}");

    // In her own name, and with her own token, she makes what she sees: row level security decided.
    let body = json!({ "agent": "custom", "command": ["bash"] });
    let made = server.ask("POST", "/api/v1/sessions", ("authorization", &bearer(&genuine)), Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let rows =
        project.cluster.sql(&format!("select created_by from agentapi.user_sessions where org_id = '{org}'")).await;
    assert_eq!(rows.unwrap(), project.auth.user().to_string());
    // Shut out by hand in the database: gone at once.
    project.cluster.sql("update agentapi.users set disabled_at = now()").await.unwrap();
    let answer = server.get("/api/v1/sessions", ("authorization", &bearer(&genuine))).await;
    assert_eq!(answer.status.as_u16() / 100, 4, "{answer:?}");
    assert_eq!(project.jwk["kid"], "key");
    server.end().await;
}

#[tokio::test]
async fn people_of_an_issuer_log_in_with_a_browser() {
    let dir = Dir::new();
    let issuer = oidc::Issuer::start(json!({})).await;
    let secret = dir.path("secret");
    std::fs::write(&secret, format!("{}\n", oidc::SECRET_CLIENT.1)).unwrap();
    let server = Running::start(&dir, None, |config| {
        // Where the issuer has it that browsers come back to; here they are led to where the test's server is.
        config.public_url = oidc::BACK.strip_suffix(crate::api::BACK).map(|base| base.parse().unwrap());
        config.oidc = Some(config::Oidc {
            issuer: issuer.url.clone(),
            client_id: oidc::SECRET_CLIENT.0.to_owned(),
            client_secret_file: Some(secret.clone()),
        });
    })
    .await;
    let log_in = async |who: &str| {
        let begun = server.get("/api/v1/login/issuer", ("", "")).await;
        assert_eq!(begun.status, 303, "{begun:?}");
        assert!(begun.cookies[0].contains("HttpOnly; SameSite=Lax"), "{begun:?}");
        let back = oidc::visit(begun.location.as_deref().unwrap(), who).await;
        let mut url = reqwest::Url::parse("http://x").unwrap();
        for (name, value) in [("code", &back.code), ("state", &back.state), ("iss", &back.iss)] {
            url.query_pairs_mut().append_pair(name, value.as_deref().unwrap());
        }
        (begun.cookie(), format!("{}?{}", crate::api::BACK, url.query().unwrap()))
    };

    let (kept, back) = log_in("ada").await;
    server.get(&back, ("cookie", &kept)).await.refused(403, "no_organization");
    // She is invited by the address that her issuer says is hers.
    let store = &server.plane.store;
    let identity = Identity {
        user: UserId::generate(),
        issuer: issuer.url.clone(),
        subject: "ada".to_owned(),
        name: Some("Ada".to_owned()),
        email: Some("ada@example.com".to_owned()),
        email_verified: true,
    };
    let ada = store.log_in(identity).await.unwrap().unwrap();
    let (token, entry) = (Secret::generate(""), || audit::of_account("api", "test"));
    let new = NewInvitation {
        id: InvitationId::generate(),
        email: "ada@example.com".to_owned(),
        role: Role::Member,
        token_hash: token.hash(),
        expires_at: clock::now() + time::Duration::HOUR,
    };
    let tenant = |user, role| TenantContext { org: DEFAULT_ORG, user, role, token: None };
    store.create_invitation(tenant(LOCAL_ADMIN, Role::Owner), new, entry()).await.unwrap();
    store.accept_invitation(tenant(ada, Role::Viewer), DEFAULT_ORG, token.hash(), entry()).await.unwrap();

    let (kept, back) = log_in("ada").await;
    let (other, _) = log_in("bob").await;
    server.get(&back, ("", "")).await.refused(400, "login_not_begun");
    server.get(&back, ("cookie", &other)).await.refused(400, "login_not_begun");
    let done = server.get(&back, ("cookie", &kept)).await;
    assert_eq!((done.status.as_u16(), done.location.as_deref()), (303, Some("/")), "{done:?}");
    let me = server.get("/api/v1/me", ("cookie", &done.cookie())).await;
    assert_eq!(
        (me.status.as_u16(), &me.body["user_id"], &me.body["role"]),
        (200, &json!(ada), &json!("member")),
        "{me:?}"
    );
    // Once.
    server.get(&back, ("cookie", &kept)).await.refused(403, "issuer_refused");
    server
        .get("/api/v1/login/issuer/callback?error=access_denied", ("cookie", &kept))
        .await
        .refused(400, "login_not_begun");
    // No password is taken where nobody judges it, and no token of a project.
    server.log_in(json!({ "email": "a", "password": "b" })).await.refused(404, "login_not_offered");
    let jwt = format!("Bearer {}", Signer::secret(jwt::SECRET).token(&json!({ "sub": ada })));
    server.get("/api/v1/me", ("authorization", &jwt)).await.refused(401, "unauthorized");
    server.end().await;
}
