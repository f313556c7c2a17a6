//! A whole control plane, and people who say who they are in each of the ways: at a project with a real PostgREST, and at a real issuer.

mod issuer;
mod project;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::OrgId;
use agentapi_shared::runtime::LogFormat;
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
use crate::clock;
use crate::config::Config;
use crate::identity::fetch;
use crate::identity::project::ProjectKeys;
use crate::plane::Plane;
use crate::server::Server;

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
            client_address_header: None,
            foundings: crate::domain::organizations::Foundings::DEFAULT,
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
        Answer::of(request).await
    }

    /// A request that a page of ours makes with a cookie.
    async fn ask_as_page(&self, method: &str, path: &str, cookie: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        request = request.timeout(Duration::from_secs(60)).header("cookie", cookie).header("origin", &self.base);
        Answer::of(if let Some(body) = body { request.json(&body) } else { request }).await
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
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
        let cookies = answer.headers().get_all("set-cookie").iter().map(text).collect();
        let location = answer.headers().get("location").map(text);
        let status = answer.status();
        let body = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        Self { status, cookies, location, body }
    }

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
        let keys = keys_of(&issuer, &cluster, &service, Some(jwt::SECRET));
        Self { cluster, auth: auth.unwrap(), issuer, keys, jwk, pem }
    }

    /// As the environment of a control plane has it.
    fn keys_with(&self, secret: Option<&str>) -> ProjectKeys {
        keys_of(&self.issuer, &self.cluster, &jwt::signed(&jwt::service_claims(), jwt::SECRET), secret)
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

fn keys_of(issuer: &Issuer, cluster: &Cluster, service: &str, secret: Option<&str>) -> ProjectKeys {
    let keys = ProjectKeys::open(|name| match name {
        "SUPABASE_URL" => Some(issuer.url()),
        "SUPABASE_REST_URL" => Some(cluster.url.clone()),
        "SUPABASE_ANON_KEY" => Some("sb_publishable_a".to_owned()),
        "SUPABASE_SERVICE_ROLE_KEY" => Some(service.to_owned()),
        "SUPABASE_JWT_SECRET" => secret.map(str::to_owned),
        _ => None,
    });
    keys.unwrap().unwrap()
}
