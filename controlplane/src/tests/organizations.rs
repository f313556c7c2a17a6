//! Organisations over HTTP: what ends with a key, a membership or a host's credential, what quotas and settings do, and which organisation a
//! request is in.

use agentapi_shared::api::Visibility;
use agentapi_shared::viewer::close;
use agentapi_shared::{OrgId, SessionId};
use serde_json::{Value, json};

use super::client::{DEADLINE, Harness, answer};
use super::credentials::{closed, log_in, see_keyframe};
use super::host::SimHost;
use super::people::Person;
use crate::capability::Role;
use crate::clock;
use crate::store::records::DEFAULT_ORG;

fn sql(harness: &Harness, statement: &str) -> usize {
    rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap().execute(statement, []).unwrap()
}

/// The same person with another key.
fn with_key(person: &Person, key: String) -> Person {
    Person { token: key, ..person.clone() }
}

#[tokio::test]
async fn a_key_is_shown_once_and_everything_ends_with_it() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let person = Person::new(&harness, DEFAULT_ORG, Role::Member);
    let id = person.running_session(&harness, Visibility::Private).await.id;
    let make = json!({ "name": "ci", "expires_in_seconds": 3600 });
    let (status, made) = person.call(&harness, "POST", "/api/v1/api-keys", make.clone()).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with(made["api_key"]["prefix"].as_str().unwrap()));
    let (_, list) = person.call(&harness, "GET", "/api/v1/api-keys", Value::Null).await;
    assert!(!list.to_string().contains(&key), "{list}");
    let by_key = with_key(&person, key);
    let mut terminals = [by_key.view(&harness, id, "").await.unwrap(), person.view(&harness, id, "").await.unwrap()];
    for terminal in &mut terminals {
        see_keyframe(terminal).await;
    }
    let [mut followed, mut kept] = [by_key.follow(&harness).await, person.follow(&harness).await];
    // Another of the same name may take its place; a third one may not.
    assert_eq!(person.call(&harness, "POST", "/api/v1/api-keys", make.clone()).await.0, 201);
    let (status, problem) = person.call(&harness, "POST", "/api/v1/api-keys", make).await;
    assert_eq!((status, &problem["code"]), (409, &json!("api_key_rotation")));
    let path = format!("/api/v1/api-keys/{}", made["api_key"]["id"].as_str().unwrap());
    assert_eq!(person.call(&harness, "DELETE", &path, Value::Null).await.0, 204);
    let [of_key, own] = &mut terminals;
    assert_eq!(closed(of_key).await, close::UNAUTHORIZED);
    assert_eq!(followed.next().await, None);
    assert_eq!(by_key.call(&harness, "GET", "/api/v1/me", Value::Null).await.0, 401);
    assert_eq!(person.call(&harness, "GET", "/api/v1/me", Value::Null).await.0, 200);
    assert!(kept.is_silent());
    own.input(1, b"x").await;
    own.until("ack", |_, got| matches!(got, super::client::Got::Said(_)).then_some(())).await;
}

#[tokio::test]
async fn what_was_made_with_a_key_ends_with_it_and_what_was_opened_with_that() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let person = Person::new(&harness, DEFAULT_ORG, Role::Owner);
    let id = person.running_session(&harness, Visibility::Private).await.id;
    let make = async |by: &Person, name: &str| {
        let (status, made) = by.call(&harness, "POST", "/api/v1/api-keys", json!({ "name": name })).await;
        assert_eq!(status, 201, "{made}");
        let key = made["key"].as_str().unwrap().to_owned();
        (with_key(by, key), made["api_key"]["id"].as_str().unwrap().to_owned())
    };
    // A key, a browser that was logged in with its link, a key that this browser made, and one that stays.
    let (first, first_id) = make(&person, "first").await;
    let (beside, _) = make(&person, "beside").await;
    let (status, code) = first.call(&harness, "POST", "/api/v1/login-codes", Value::Null).await;
    assert_eq!(status, 201, "{code}");
    let login = harness.request("POST", "/api/v1/login").json(&json!({ "code": code["code"] })).send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let request = harness.request("POST", "/api/v1/api-keys").header("cookie", &cookie).header("origin", &harness.base);
    let (status, made) = answer(request.json(&json!({ "name": "by the browser" }))).await;
    assert_eq!(status, 201, "{made}");
    let by_browser = with_key(&person, made["key"].as_str().unwrap().to_owned());
    let mut terminals = [
        harness.view_with_cookie(id, &cookie).await,
        by_browser.view(&harness, id, "").await.unwrap(),
        beside.view(&harness, id, "").await.unwrap(),
    ];
    for terminal in &mut terminals {
        see_keyframe(terminal).await;
    }
    // Another takes the place of the first, which made it.
    let (next, next_id) = make(&first, "next").await;
    let path = format!("/api/v1/api-keys/{next_id}?made=neither");
    let (status, problem) = person.call(&harness, "DELETE", &path, Value::Null).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("query.made")), "{problem}");
    let path = format!("/api/v1/api-keys/{first_id}?made=stays");
    assert_eq!(next.call(&harness, "DELETE", &path, Value::Null).await.0, 204);
    for stays in [&next, &by_browser, &beside] {
        assert_eq!(stays.call(&harness, "GET", "/api/v1/me", Value::Null).await.0, 200);
    }
    // Once more, with all that comes of it.
    let (last, last_id) = make(&next, "last").await;
    let path = format!("/api/v1/api-keys/{next_id}");
    assert_eq!(person.call(&harness, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(last.call(&harness, "GET", "/api/v1/me", Value::Null).await.0, 401, "{last_id}");
    sql(&harness, "UPDATE api_keys SET revoked_at = NULL WHERE name = 'first'");
    let path = format!("/api/v1/api-keys/{first_id}");
    assert_eq!(person.call(&harness, "DELETE", &path, Value::Null).await.0, 204);
    let [of_browser, of_its_key, own] = &mut terminals;
    assert_eq!([closed(of_browser).await, closed(of_its_key).await], [close::UNAUTHORIZED; 2]);
    assert_eq!(by_browser.call(&harness, "GET", "/api/v1/me", Value::Null).await.0, 401);
    own.input(1, b"x").await;
    own.until("ack", |_, got| matches!(got, super::client::Got::Said(_)).then_some(())).await;
}

#[tokio::test]
async fn a_key_makes_none_that_is_for_more() {
    let harness = Harness::start().await;
    let person = Person::new(&harness, DEFAULT_ORG, Role::Member);
    let key = with_key(&person, person.key(&harness, r#"["sessions","organization"]"#).1);
    let make = async |by: &Person, scopes: Value| {
        by.call(&harness, "POST", "/api/v1/api-keys", json!({ "name": SessionId::generate(), "scopes": scopes }))
            .await
            .0
    };
    assert_eq!(make(&key, json!([])).await, 403);
    assert_eq!(make(&key, json!(["read"])).await, 403);
    assert_eq!(make(&key, json!(["sessions"])).await, 201);
    assert_eq!(make(&person, json!([])).await, 201);
    let (status, problem) =
        key.call(&harness, "POST", "/api/v1/api-keys", json!({ "name": "x", "scopes": ["root"] })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("scopes[0]")));
    assert_eq!(key.call(&harness, "POST", "/api/v1/login-codes", Value::Null).await.0, 403);
    assert_eq!(person.call(&harness, "POST", "/api/v1/login-codes", Value::Null).await.0, 201);
}

#[tokio::test]
async fn what_a_member_opened_ends_when_they_go_or_are_something_else() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let owner = Person::new(&harness, DEFAULT_ORG, Role::Owner);
    let [gone, demoted, stays] = [(); 3].map(|()| Person::new(&harness, DEFAULT_ORG, Role::Member));
    let id = owner.running_session(&harness, Visibility::Organization).await.id;
    let mut terminals = Vec::new();
    for person in [&gone, &demoted, &stays] {
        let mut terminal = person.view(&harness, id, "").await.unwrap();
        see_keyframe(&mut terminal).await;
        terminals.push(terminal);
    }
    let mut followed = gone.follow(&harness).await;
    let member = |person: &Person| format!("/api/v1/members/{}", person.tenant.user);
    assert_eq!(owner.call(&harness, "DELETE", &member(&gone), Value::Null).await.0, 204);
    assert_eq!(owner.call(&harness, "PATCH", &member(&demoted), json!({ "role": "viewer" })).await.0, 204);
    assert_eq!([closed(&mut terminals[0]).await, closed(&mut terminals[1]).await], [close::UNAUTHORIZED; 2]);
    assert_eq!(followed.next().await, None);
    assert_eq!(gone.call(&harness, "GET", "/api/v1/sessions", Value::Null).await.0, 401);
    assert!(demoted.view(&harness, id, "mode=rw").await.is_err());
    see_keyframe(&mut demoted.view(&harness, id, "mode=ro").await.unwrap()).await;
    terminals[2].input(1, b"x").await;
    terminals[2].until("ack", |_, got| matches!(got, super::client::Got::Said(_)).then_some(())).await;
    // The last owner of an organisation stays one.
    let last = Person::new(&harness, OrgId::generate(), Role::Owner);
    for (method, body) in [("PATCH", json!({ "role": "admin" })), ("DELETE", Value::Null)] {
        let (status, problem) = last.call(&harness, method, &member(&last), body).await;
        assert_eq!((status, &problem["code"]), (409, &json!("last_owner")));
    }
    let (status, problem) = owner.call(&harness, "PATCH", &member(&stays), json!({ "role": "root" })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("role")));
    // Anyone else may leave.
    assert_eq!(stays.call(&harness, "DELETE", &member(&stays), Value::Null).await.0, 204);
}

#[tokio::test]
async fn what_is_taken_back_elsewhere_ends_within_a_minute() {
    let mut harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let [gone, stays] = [(); 2].map(|()| Person::new(&harness, DEFAULT_ORG, Role::Member));
    let owner = Person::new(&harness, DEFAULT_ORG, Role::Owner);
    let id = owner.running_session(&harness, Visibility::Organization).await.id;
    let mut terminals = [gone.view(&harness, id, "").await.unwrap(), stays.view(&harness, id, "").await.unwrap()];
    for terminal in &mut terminals {
        see_keyframe(terminal).await;
    }
    harness.host_token = redeemed(&harness, &owner).await;
    let (other, _link) = SimHost::connect(&harness).await;
    drop(other);
    let hosts = async || {
        let (_, list) = owner.call(&harness, "GET", "/api/v1/hosts", Value::Null).await;
        list["data"].as_array().unwrap().iter().filter(|host| host["connected"] == true).count()
    };
    assert_eq!(hosts().await, 2);
    // By hand in the database, as another replica or a command on this machine does it.
    let user = gone.tenant.user;
    assert_eq!(sql(&harness, &format!("DELETE FROM memberships WHERE user_id = '{user}'")), 1);
    assert_eq!(
        sql(&harness, "UPDATE host_credentials SET revoked_at = '2026-01-01T00:00:00Z' WHERE org_id IS NOT NULL"),
        1
    );
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(26)).await;
    tokio::time::resume();
    assert_eq!(closed(&mut terminals[0]).await, close::UNAUTHORIZED);
    let mut changed = harness.plane.events.watch();
    let wait = async {
        while hosts().await > 1 {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the link stayed");
    terminals[1].input(1, b"x").await;
    terminals[1].until("ack", |_, got| matches!(got, super::client::Got::Said(_)).then_some(())).await;
}

/// Enrols a machine over HTTP and gives its credential.
async fn redeemed(harness: &Harness, owner: &Person) -> String {
    let (status, made) = owner.call(harness, "POST", "/api/v1/host-enrolments", json!({ "name": "worker" })).await;
    assert_eq!(status, 201, "{made}");
    let redeem = || harness.request("POST", "/api/v1/host-enrolments/redeem").json(&json!({ "token": made["token"] }));
    let (status, credential) = answer(redeem()).await;
    assert_eq!(status, 201, "{credential}");
    let (status, problem) = answer(redeem()).await;
    assert_eq!((status, &problem["code"]), (401, &json!("invalid_enrolment_token")));
    credential["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_revoked_host_loses_its_link() {
    let mut harness = Harness::start().await;
    let owner = Person::new(&harness, DEFAULT_ORG, Role::Owner);
    harness.host_token = redeemed(&harness, &owner).await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let (_, list) = owner.call(&harness, "GET", "/api/v1/hosts", Value::Null).await;
    let found = list["data"].as_array().unwrap().iter().find(|host| host["name"] == "worker").unwrap();
    assert_eq!((&found["connected"], &found["shared"]), (&json!(true), &json!(false)));
    // Sessions of the organisation run there, and of no other.
    owner.running_session(&harness, Visibility::Private).await;
    // It changes its credential, and goes on with either.
    let rotated = harness.request("POST", "/api/v1/hosts/credential").bearer_auth(&harness.host_token);
    let (status, rotated) = answer(rotated).await;
    assert_eq!((status, &rotated["host_id"]), (201, &found["id"]));
    let path = format!("/api/v1/hosts/{}", found["id"].as_str().unwrap());
    assert_eq!(owner.call(&harness, "DELETE", &path, Value::Null).await.0, 204);
    harness.until_host(false).await;
    for token in [rotated["token"].as_str().unwrap(), &harness.host_token] {
        assert_eq!(answer(harness.request("GET", "/api/v1/link").bearer_auth(token)).await.0, 401);
    }
    assert_eq!(owner.call(&harness, "GET", &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn settings_and_quotas_hold_for_creates() {
    let harness = Harness::start().await;
    let owner = Person::new(&harness, OrgId::generate(), Role::Owner);
    let org = format!("/api/v1/organizations/{}", owner.tenant.org);
    let create = async |agent: &str| {
        let command = if agent == "custom" { json!(["bash"]) } else { json!([]) };
        let body = json!({ "agent": agent, "command": command });
        owner.call(&harness, "POST", "/api/v1/sessions", body).await
    };
    let (status, found) = owner.call(&harness, "PATCH", &org, json!({ "settings": { "agents": ["claude"] } })).await;
    assert_eq!((status, &found["settings"]["agents"], &found["revision"]), (200, &json!(["claude"]), &json!(2)));
    let (status, problem) = create("custom").await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("agent")));
    assert_eq!(create("claude").await.0, 201);
    let stale = json!({ "settings": {}, "revision": 1 });
    let (status, problem) = owner.call(&harness, "PATCH", &org, stale).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    let current = json!({ "settings": {}, "revision": 2, "name": "Ada & Co" });
    let (status, found) = owner.call(&harness, "PATCH", &org, current).await;
    assert_eq!((status, &found["settings"], &found["name"]), (200, &json!({}), &json!("Ada & Co")));
    for (body, field) in [
        (json!({ "quotas": { "sessions_max": 1 } }), "quotas"),
        (json!({ "settings": { "session_idle_seconds_max": 59 } }), "settings.session_idle_seconds_max"),
        (json!({ "settings": { "agents": ["gpt"] } }), "settings.agents[0]"),
        (json!({ "name": "" }), "name"),
    ] {
        let (status, problem) = owner.call(&harness, "PATCH", &org, body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
    let id = owner.tenant.org;
    for (quota, code) in [("sessions_max", "quota_sessions"), ("sessions_per_day_max", "quota_sessions_per_day")] {
        let both = "sessions_max = NULL, sessions_per_day_max = NULL";
        sql(&harness, &format!("UPDATE organizations SET {both} WHERE id = '{id}'"));
        assert_eq!(create("custom").await.0, 201);
        sql(&harness, &format!("UPDATE organizations SET {quota} = 2 WHERE id = '{id}'"));
        let (status, problem) = create("custom").await;
        assert_eq!((status, &problem["code"]), (429, &json!(code)));
    }
    let (_, found) = owner.call(&harness, "GET", &org, Value::Null).await;
    assert_eq!(found["quotas"], json!({ "sessions_max": null, "sessions_per_day_max": 2, "viewers_max": null }));
}

#[tokio::test]
async fn a_sandbox_is_no_more_than_the_organization_allows_and_its_field_is_named() {
    let harness = Harness::start().await;
    let owner = Person::new(&harness, OrgId::generate(), Role::Owner);
    let org = format!("/api/v1/organizations/{}", owner.tenant.org);
    let wanted = json!({ "network": "off", "limits": { "pids": 64 } });
    let (status, found) =
        owner.call(&harness, "PATCH", &org, json!({ "settings": { "sandbox": wanted.clone() } })).await;
    assert_eq!((status, &found["settings"]["sandbox"]), (200, &wanted));
    let create = async |sandbox: Value| {
        let body = json!({ "agent": "custom", "command": ["bash"], "sandbox": sandbox });
        owner.call(&harness, "POST", "/api/v1/sessions", body).await
    };
    let (status, problem) = create(json!({ "network": "filtered" })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("sandbox.network")), "{problem}");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("your organisation"), "{problem}");
    let (status, problem) = create(json!({ "limits": { "pids": 65 } })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("sandbox.limits.pids")), "{problem}");
    assert_eq!(create(json!({ "network": "off", "limits": { "pids": 64 } })).await.0, 201);
    for (sandbox, field) in [
        (json!({ "profiles": [] }), "settings.sandbox.profiles"),
        (json!({ "profiles": ["../dev"] }), "settings.sandbox.profiles[0]"),
        (json!({ "limits": { "pids": 1 } }), "settings.sandbox.limits.pids"),
    ] {
        let (status, problem) =
            owner.call(&harness, "PATCH", &org, json!({ "settings": { "sandbox": sandbox } })).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
    let (status, _) =
        owner.call(&harness, "PATCH", &org, json!({ "settings": { "sandbox": { "netwrok": "off" } } })).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_login_goes_between_organizations_and_a_key_does_not() {
    let harness = Harness::start().await;
    let cookie = log_in(&harness, clock::now() + time::Duration::HOUR).await;
    let browser = |method: &str, path: &str| {
        harness.request(method, path).header("cookie", &cookie).header("origin", &harness.base)
    };
    let (status, made) = answer(browser("POST", "/api/v1/organizations").json(&json!({ "name": "second" }))).await;
    assert_eq!((status, &made["role"], &made["current"]), (201, &json!("owner"), &json!(false)));
    let second = made["id"].as_str().unwrap().to_owned();
    let create = json!({ "agent": "custom", "command": ["bash"] });
    let there = browser("POST", "/api/v1/sessions").header("x-agentapi-organization", &second);
    let (status, session) = answer(there.json(&create)).await;
    assert_eq!(status, 201, "{session}");
    let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
    // Of the organisation it was made in, and of no other.
    assert_eq!(answer(browser("GET", &path)).await.0, 404);
    assert_eq!(answer(browser("GET", &path).header("x-agentapi-organization", &second)).await.0, 200);
    // As browsers say it where they send no headers of their own.
    let port = harness.base.rsplit(':').next().unwrap();
    let both = format!("{cookie}; agentapi_{port}_organization={second}");
    let request = harness.request("GET", "/api/v1/me").header("cookie", both);
    let (_, me) = answer(request).await;
    assert_eq!((&me["organization_id"], &me["organization"]), (&json!(second), &json!("second")));
    assert_eq!(me["memberships"].as_array().unwrap().len(), 2);
    let (_, me) = answer(browser("GET", "/api/v1/me")).await;
    assert_eq!(me["organization_id"], json!(DEFAULT_ORG));
    let foreign = Person::new(&harness, OrgId::generate(), Role::Owner).tenant.org.to_string();
    for (org, expected) in [(foreign.as_str(), 404), ("x", 404), (second.as_str(), 200)] {
        let request = browser("GET", "/api/v1/sessions").header("x-agentapi-organization", org);
        assert_eq!(answer(request).await.0, expected, "{org}");
    }
    // The admin's key is of the first one, whoever's it is.
    let by_key = |org: &str| {
        harness.request("GET", "/api/v1/me").bearer_auth(&harness.token).header("x-agentapi-organization", org)
    };
    let (status, problem) = answer(by_key(&second)).await;
    assert_eq!((status, &problem["code"]), (404, &json!("organization_not_found")));
    let (status, me) = answer(by_key(&DEFAULT_ORG.to_string())).await;
    assert_eq!((status, me["memberships"].as_array().unwrap().len()), (200, 1));
    let (status, _) =
        answer(browser("PATCH", &format!("/api/v1/organizations/{second}")).json(&json!({ "name": "2" }))).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn sessions_end_when_their_time_is_over_also_after_a_restart() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let [unwatched, watched, young] =
        [harness.create_running().await, harness.create_running().await, harness.create_running().await];
    let mut terminal = harness.view(watched, "mode=ro").await;
    see_keyframe(&mut terminal).await;
    // Records are kept as they were written; here the past is made by hand.
    sql(&harness, "DROP TRIGGER audit_logs_fixed");
    let old = |id: SessionId| {
        sql(&harness, &format!("UPDATE spawns SET created_at = '2026-01-01T00:00:00Z' WHERE session_id = '{id}'"));
        sql(&harness, &format!("UPDATE audit_logs SET created_at = '2026-01-01T00:00:00Z' WHERE session_id = '{id}'"));
    };
    old(unwatched);
    old(watched);
    let org = format!("/api/v1/organizations/{DEFAULT_ORG}");
    let settings = |settings: Value| harness.call("PATCH", &org, Some(json!({ "settings": settings })));
    assert_eq!(settings(json!({ "session_idle_seconds_max": 60 })).await.0, 200);
    harness.until_state(unwatched, "exited").await;
    let records = |id: SessionId| {
        let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
        let sql = "SELECT COUNT(*) FROM audit_logs WHERE session_id = ?1 AND actor_kind = 'system' AND action = 'session.stop'";
        rows.query_row(sql, [id.to_string()], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!((records(unwatched), records(watched), records(young)), (1, 0, 0));
    // The other limit does not care who watches.
    assert_eq!(settings(json!({ "session_age_seconds_max": 60 })).await.0, 200);
    harness.until_state(watched, "exited").await;
    assert_eq!(harness.get(&format!("/api/v1/sessions/{young}")).await["state"], "running");
    // What is due while nothing runs is done at the next start.
    assert_eq!(settings(json!({})).await.0, 200);
    old(young);
    let changed = "UPDATE organizations SET settings = '{\"session_age_seconds_max\":60,\"more\":1}'";
    assert_eq!(sql(&harness, changed), 1);
    let harness = harness.restart().await;
    harness.until_session(young, "asked to stop", |session| session["state"] != "running").await;
    assert_eq!(settings_of(&harness, &org).await, json!({ "session_age_seconds_max": 60 }));
    // Ended ones are kept as long as the organisation says.
    let (_host, _connection) = SimHost::connect(&harness).await;
    harness.until_session(young, "ended", |session| session["exit"].is_object()).await;
    let ended = "UPDATE spawns SET ended_at = '2026-01-03T00:00:00Z', created_at = '2026-01-01T00:00:00Z'";
    sql(&harness, ended);
    sql(&harness, "UPDATE user_sessions SET created_at = '2026-01-01T00:00:00Z'");
    let kept = json!({ "settings": { "session_retention_days": 1 } });
    assert_eq!(harness.call("PATCH", &org, Some(kept)).await.0, 200);
    let mut changed = harness.plane.events.watch();
    let wait = async {
        while harness.get("/api/v1/sessions").await["data"] != json!([]) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("ended sessions stayed");
}

async fn settings_of(harness: &Harness, org: &str) -> Value {
    harness.get(org).await["settings"].clone()
}
