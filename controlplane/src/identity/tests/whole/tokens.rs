//! A project that takes no tokens of ours, and how often somebody may try.

use agentapi_shared::UserId;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::{Answer, Dir, PASSWORD, Project, Running, oidc};
use crate::auth::Secret;
use crate::capability::Role;
use crate::config::{self, Config};
use crate::sockets::{Lapse, Owner, Proof, Who};

#[tokio::test]
async fn a_project_that_takes_no_tokens_of_ours_says_so_and_serves_those_who_bring_one() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let issuer = oidc::Issuer::start(json!({})).await;
    // It has moved to signing keys, and nobody told it of us.
    let keys = project.keys_with(None);
    let offer = |config: &mut Config| {
        config.oidc =
            Some(config::Oidc { issuer: issuer.url.clone(), client_id: "public".to_owned(), client_secret_file: None });
    };
    let server = Running::start(&dir, Some(keys), offer).await;
    let methods = server.get("/api/v1/login/methods", ("", "")).await.body;
    let told = [&methods["password"], &methods["issuer"], &methods["links"], &methods["api_keys"]];
    assert_eq!(told, [&json!(true), &Value::Null, &json!(false), &json!(false)]);
    let ada = || json!({ "email": "ada@example.com", "password": PASSWORD });
    assert_eq!(server.log_in(ada()).await.status, 204);
    let org = project.put_in(project.auth.user(), "owner").await;
    let cookie = server.log_in(ada()).await.cookie();
    assert_eq!(server.get("/api/v1/sessions", ("cookie", &cookie)).await.status, 200);

    // What could never be served is not made, and what was made before says why it is not served.
    let key = Secret::generate("aa_");
    let made = format!(
        "insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash)
         values ('{0}', '{org}', '{1}', '{1}', 'before', '', decode('{2}', 'hex'))",
        UserId::generate(),
        project.auth.user(),
        key.hash()
    );
    project.cluster.sql(&made).await.unwrap();
    let refused = |answer: &Answer| {
        answer.refused(501, "no_caller_tokens");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("SUPABASE_JWT_SECRET") && detail.contains("--public-url"), "{detail}");
    };
    let bearer = format!("Bearer {}", key.expose());
    refused(&server.ask_once("GET", "/api/v1/me", ("authorization", &bearer), None).await);
    let named = || Some(json!({ "name": "ci" }));
    refused(&server.ask_as_page("POST", "/api/v1/api-keys", &cookie, named()).await);
    refused(&server.ask_as_page("POST", "/api/v1/login-codes", &cookie, None).await);
    refused(&server.ask_once("POST", "/api/v1/login", ("", ""), Some(json!({ "code": "x" }))).await);
    refused(&server.ask_once("GET", "/api/v1/login/issuer", ("", ""), None).await);
    assert_eq!(server.get("/api/v1/api-keys", ("cookie", &cookie)).await.body["data"].as_array().unwrap().len(), 1);

    // Whether she is still a member is asked in nobody's name, so what she opened in another organisation ends as anywhere.
    let elsewhere = project.put_in(project.auth.user(), "owner").await;
    let user: UserId = project.auth.user().to_string().parse().unwrap();
    assert_eq!(server.plane.store.member(elsewhere, user).await.unwrap().map(|found| found.role), Some(Role::Owner));
    let proof = Proof::Browser(Secret::from_text(cookie.split_once('=').unwrap().1.to_owned()).hash());
    let opened = |org| {
        let who = Who::Member { org, user, role: Role::Owner, key: None };
        server.plane.sockets.enter(Owner { proof: proof.clone(), who }, None)
    };
    let (here, there) = (opened(org), opened(elsewhere));
    project.cluster.sql(&format!("delete from agentapi.memberships where org_id = '{elsewhere}'")).await.unwrap();
    assert_eq!(server.plane.store.member(elsewhere, user).await.unwrap(), None);
    let patience = std::time::Duration::from_secs(60);
    let lapse = async {
        // Asked again while the store is too slow for its deadline.
        loop {
            server.plane.credentials_changed.send_replace(());
            if let Ok(lapse) = tokio::time::timeout(patience / 10, there.lapsed()).await {
                return lapse;
            }
        }
    };
    assert_eq!(tokio::time::timeout(patience, lapse).await.unwrap(), Lapse::Revoked);
    assert_eq!(here.lapsed().now_or_never(), None);
    server.end().await;

    // The control: with the secret, or with a URL at which the project finds our keys, each of them is served.
    let server = Running::start(&Dir::new(), Some(project.keys.clone()), offer).await;
    let methods = server.get("/api/v1/login/methods", ("", "")).await.body;
    assert_eq!((&methods["issuer"], &methods["links"]), (&json!(issuer.url), &json!(true)));
    assert_eq!(server.get("/api/v1/me", ("authorization", &bearer)).await.status, 200);
    server.end().await;
    let minted = |config: &mut Config| config.public_url = Some("https://agents.example".parse().unwrap());
    let server = Running::start(&Dir::new(), Some(project.keys_with(None)), minted).await;
    assert_eq!(server.get("/api/v1/login/methods", ("", "")).await.body["api_keys"], true);
    server.end().await;
}

#[tokio::test]
async fn attempts_on_one_password_are_held_wherever_they_come_from() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let change = |config: &mut Config| {
        config.rates.account = 3;
        config.client_address_header = Some("x-forwarded-for".parse().unwrap());
    };
    let server = Running::start(&dir, Some(project.keys.clone()), change).await;
    let guess = async |email: &str, from: u8| {
        let body = json!({ "email": email, "password": "wrong" });
        let from = format!("192.0.2.{from}");
        server.ask_once("POST", "/api/v1/login/password", ("x-forwarded-for", &from), Some(body)).await
    };
    for _ in 0..3 {
        guess("ada@example.com", 1).await.refused(401, "invalid_password");
    }
    guess("ADA@example.com ", 1).await.refused(429, "rate_limited");
    // Neither another account there, nor this one from elsewhere.
    guess("eve@example.com", 1).await.refused(401, "invalid_password");
    guess("ada@example.com", 2).await.refused(401, "invalid_password");
    server.end().await;
}

#[tokio::test]
async fn people_of_the_project_who_are_in_no_organisation_are_held_by_where_they_come_from() {
    const RATE: u32 = 20;
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |config| config.rates.address = RATE).await;
    let bearer = project.auth.bearer();
    let bearer = ("authorization", bearer.as_str());
    let cookie = server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.cookie();
    let cookie = ("cookie", cookie.as_str());
    for known in [cookie, bearer] {
        server.get("/api/v1/me", known).await.refused(403, "no_organization");
    }
    // Each of them, and together; a machine that is slow gives room for one in between.
    let login = json!({ "email": "bob@example.com", "password": PASSWORD });
    let me = "/api/v1/me";
    for (method, path, header, body) in [
        ("GET", me, bearer, None),
        ("GET", me, cookie, None),
        ("POST", "/api/v1/login/password", ("", ""), Some(login)),
    ] {
        let mut answer = server.ask_once(method, path, header, body.clone()).await;
        for _ in 0..2 * RATE {
            if answer.status == 429 {
                break;
            }
            answer = server.ask_once(method, path, header, body.clone()).await;
        }
        answer.refused(429, "rate_limited");
    }
    // Whoever is in one is held by what they are.
    project.put_in(project.auth.user(), "owner").await;
    assert_eq!(server.get(me, bearer).await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn credentials_that_are_nobodys_are_held_by_where_they_come_from() {
    const RATE: u32 = 10;
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |config| config.rates.failures = RATE).await;
    let me = "/api/v1/me";
    // At the first login one becomes a user.
    server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.cookie();
    project.put_in(project.auth.user(), "owner").await;
    let cookie = server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.cookie();
    let name = cookie.split('=').next().unwrap().to_owned();
    assert_eq!(server.get(me, ("cookie", &cookie)).await.status, 200);
    // By turns a token and a cookie; a machine that is slow gives room for one in between.
    let mut refusals = Vec::new();
    for number in 0..4 * RATE {
        let (header, value) = match number % 2 {
            0 => ("authorization", format!("Bearer wrong-{number}")),
            _ => ("cookie", format!("{name}=wrong-{number}")),
        };
        let answer = server.get(me, (header, &value)).await;
        refusals.push(answer.status.as_u16());
        if answer.status == 429 {
            answer.refused(429, "rate_limited");
            break;
        }
    }
    assert!(refusals.len() > RATE as usize && refusals.ends_with(&[401, 429]), "{refusals:?}");
    assert_eq!(server.get(me, ("cookie", &cookie)).await.status, 200);
    server.end().await;
}
