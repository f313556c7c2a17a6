//! People of a project: passwords, links of invitations, tokens, and those that are forged.

use agentapi_shared::{InvitationId, UserId};
use agentapi_test_postgres::jwt;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Dir, PASSWORD, Project, Running, Signer, encoded};
use crate::auth::Secret;
use crate::clock;

#[tokio::test]
async fn people_of_a_project_log_in_by_password_and_bring_its_tokens() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    let ada = || json!({ "email": "ada@example.com", "password": PASSWORD });
    let methods = server.get("/api/v1/login/methods", ("", "")).await;
    assert_eq!((&methods.body["password"], &methods.body["issuer"]), (&json!(true), &Value::Null));

    // Known to the issuer, and nobody here: logged in, to come into an organisation, and for nothing else.
    let nobody = server.log_in(ada()).await;
    assert_eq!(nobody.status, 204, "{nobody:?}");
    server.get("/api/v1/me", ("cookie", &nobody.cookie())).await.refused(403, "no_organization");
    server.get("/api/v1/sessions", ("cookie", &nobody.cookie())).await.refused(403, "no_organization");
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
    assert_eq!(project.auth.counts(), (2, 0));
    let sessions = server.get("/api/v1/sessions", ("cookie", &logged_in.cookie())).await;
    assert_eq!((sessions.status.as_u16(), project.auth.counts()), (200, (2, 0)));
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
    let invite = |token: &Secret, email: &str| {
        format!(
            "insert into agentapi.invitations (id, org_id, created_by, email, role, token_hash, expires_at)
             values ('{}', '{owner}', '{owner}', '{email}', 'viewer', decode('{}', 'hex'), now() + interval '1 hour');",
            InvitationId::generate(),
            token.hash()
        )
    };
    for (token, email) in [(&token, "ada@example.com"), (&other, "bob@example.com")] {
        project.cluster.sql(&invite(token, email)).await.unwrap();
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

    // The other way, which the console goes: the login first, then the link. She is out and invited again; a login of before is good for nothing.
    let before = server.log_in(with(&token)).await.cookie();
    let gone = format!("delete from agentapi.memberships where user_id = '{}'", project.auth.user());
    project.cluster.sql(&gone).await.unwrap();
    let again = Secret::generate("aai_");
    project.cluster.sql(&invite(&again, "ada@example.com")).await.unwrap();
    let nowhere = server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.cookie();
    let accept = async |cookie: &str, token: &Secret| {
        let body = json!({ "organization_id": owner, "token": token.expose() });
        server.ask_as_page("POST", "/api/v1/invitations/accept", cookie, Some(body)).await
    };
    server.get("/api/v1/me", ("cookie", &nowhere)).await.refused(403, "no_organization");
    accept(&before, &again).await.refused(401, "unauthorized");
    accept(&nowhere, &other).await.refused(404, "invitation_not_found");
    assert_eq!(accept(&nowhere, &again).await.status, 204);
    assert_eq!(server.get("/api/v1/me", ("cookie", &nowhere)).await.body["role"], "viewer");
    server.get("/api/v1/me", ("cookie", &before)).await.refused(401, "unauthorized");

    // A program with her token of the project comes in as well, and has nothing before.
    project.cluster.sql(&gone).await.unwrap();
    let third = Secret::generate("aai_");
    project.cluster.sql(&invite(&third, "ada@example.com")).await.unwrap();
    let bearer = project.auth.bearer();
    let bearer = ("authorization", bearer.as_str());
    server.get("/api/v1/sessions", bearer).await.refused(403, "no_organization");
    let body = json!({ "organization_id": owner, "token": third.expose() });
    assert_eq!(server.ask("POST", "/api/v1/invitations/accept", bearer, Some(body)).await.status, 204);
    assert_eq!(server.get("/api/v1/me", bearer).await.body["role"], "viewer");
    server.end().await;
}

#[tokio::test]
async fn a_login_that_is_shown_as_a_token_is_recorded_once_by_whichever_replica() {
    let (dir, project) = (Dir::new(), Project::start().await);
    let server = Running::start(&dir, Some(project.keys.clone()), |_| {}).await;
    let other = Running::start(&Dir::new(), Some(project.keys.clone()), |_| {}).await;
    assert_eq!(server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.status, 204);
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
    assert_eq!(server.log_in(json!({ "email": "ada@example.com", "password": PASSWORD })).await.status, 204);
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
