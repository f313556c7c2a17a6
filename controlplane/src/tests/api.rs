//! The REST surface: credentials, validation, idempotency, pages, events, the document.

use agentapi_shared::api::{ENROLMENT_SECONDS_MAX, EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN, INVITATION_SECONDS_MAX};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::client::{DEADLINE, Harness, answer};
use super::host::SimHost;

#[tokio::test]
async fn nothing_is_reached_without_a_credential() {
    let harness = Harness::start().await;
    let id = harness.create().await;
    let one = format!("/api/v1/sessions/{id}");
    let routes = [
        ("GET", "/api/v1/sessions".to_owned()),
        ("POST", "/api/v1/sessions".to_owned()),
        ("GET", one.clone()),
        ("PATCH", one.clone()),
        ("DELETE", one.clone()),
        ("POST", format!("{one}/restart")),
        ("GET", format!("{one}/screen")),
        ("POST", format!("{one}/input")),
        ("POST", format!("{one}/resize")),
        ("GET", format!("{one}/terminal")),
        ("GET", format!("{one}/egress")),
        ("GET", "/api/v1/hosts".to_owned()),
        ("GET", "/api/v1/hosts/x".to_owned()),
        ("GET", "/api/v1/agents".to_owned()),
        ("GET", "/api/v1/events".to_owned()),
        ("GET", "/api/v1/audit".to_owned()),
        ("GET", "/api/v1/audit/export".to_owned()),
        ("GET", "/api/v1/audit/key".to_owned()),
        ("GET", "/api/v1/me".to_owned()),
        ("POST", "/api/v1/login-codes".to_owned()),
        ("POST", "/api/v1/logout".to_owned()),
        ("GET", "/api/v1/link".to_owned()),
    ];
    let with = |name: &'static str, value: String| move |r: reqwest::RequestBuilder| r.header(name, value.clone());
    type Change = Box<dyn Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder>;
    let port = harness.base.rsplit(':').next().unwrap();
    let credentials: Vec<(&str, Change)> = vec![
        ("none", Box::new(|r| r)),
        ("unknown token", Box::new(with("authorization", "Bearer aa_nobody".to_owned()))),
        ("another scheme", Box::new(with("authorization", format!("Basic {}", harness.token)))),
        ("unknown cookie", Box::new(with("cookie", format!("agentapi_{port}=x")))),
        ("token as cookie", Box::new(with("cookie", format!("agentapi_{port}={}", harness.token)))),
    ];
    for (method, path) in &routes {
        for (what, change) in &credentials {
            let (status, problem) = answer(change(harness.request(method, path))).await;
            assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")), "{method} {path} with {what}");
        }
        let (status, _) = answer(harness.request(method, path).bearer_auth(&harness.host_token)).await;
        let expected = if path == "/api/v1/link" { 426 } else { 401 };
        assert_eq!(status, expected, "{method} {path} with a host's token");
    }
    let (status, _) = harness.call("GET", "/api/v1/link", None).await;
    assert_eq!(status, 403, "a person's token is no host's");
}

#[tokio::test]
async fn a_browser_logs_in_once_per_code_and_is_held_to_its_origin() {
    let harness = Harness::start().await;
    let (status, code) = harness.call("POST", "/api/v1/login-codes", None).await;
    assert_eq!(status, 201);
    assert!(code["url"].as_str().unwrap().contains("/#code="));
    let login = json!({ "code": code["code"] });
    let foreign = harness.request("POST", "/api/v1/login").header("origin", "http://evil.example").json(&login);
    assert_eq!(answer(foreign).await.0, 403);
    let response =
        harness.request("POST", "/api/v1/login").header("origin", &harness.base).json(&login).send().await.unwrap();
    assert_eq!(response.status(), 204);
    let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    let (status, problem) = answer(harness.request("POST", "/api/v1/login").json(&login)).await;
    assert_eq!((status, &problem["code"]), (401, &json!("invalid_login_code")));
    let with_cookie = |method: &str, path: &str| harness.request(method, path).header("cookie", &cookie);
    assert_eq!(answer(with_cookie("GET", "/api/v1/me")).await.1["role"], "owner");
    let (status, problem) = answer(with_cookie("POST", "/api/v1/login-codes")).await;
    assert_eq!((status, &problem["code"]), (403, &json!("origin_refused")));
    let own = with_cookie("POST", "/api/v1/login-codes").header("origin", &harness.base);
    assert_eq!(answer(own).await.0, 201);
    let terminal = |origin: &str| {
        let path = "/api/v1/sessions/00000000-0000-7000-8000-000000000009/terminal";
        answer(with_cookie("GET", path).header("upgrade", "websocket").header("origin", origin))
    };
    assert_eq!(terminal("http://evil.example").await.1["code"], "origin_refused");
    assert_eq!(terminal(&harness.base).await.1["code"], "session_not_found");
    let rebound = with_cookie("GET", "/api/v1/me").header("host", "evil.example");
    assert_eq!(answer(rebound).await.0, 403);
    assert_eq!(answer(with_cookie("POST", "/api/v1/logout").header("origin", &harness.base)).await.0, 204);
    assert_eq!(answer(with_cookie("GET", "/api/v1/me")).await.0, 401);
}

#[tokio::test]
async fn a_browser_logs_in_under_the_public_url_and_under_no_name_beside_it() {
    let harness =
        Harness::start_with(|config| config.public_url = Some("https://agents.example".parse().unwrap())).await;
    let (host, page) = ("agents.example", "https://agents.example");
    let log_in = async |origin: &str| {
        let (_, code) = harness.call("POST", "/api/v1/login-codes", None).await;
        let request = harness.request("POST", "/api/v1/login").header("host", host).header("origin", origin);
        request.json(&json!({ "code": code["code"] })).send().await.unwrap()
    };
    for other in ["http://agents.example", "https://evil.agents.example", "https://agents.example:8443", &harness.base]
    {
        assert_eq!(log_in(other).await.status(), 403, "{other}");
    }
    let response = log_in(page).await;
    assert_eq!(response.status(), 204);
    let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.starts_with("__Host-agentapi_443=") && set.contains("; Path=/; Secure; HttpOnly; "), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    let ask = |method: &str, path: &str, host: &str| {
        harness.request(method, path).header("cookie", &cookie).header("host", host)
    };
    assert_eq!(answer(ask("GET", "/api/v1/me", host)).await.0, 200);
    // A name that is none of ours, and one of ours for which the cookie is not.
    for (host, status) in [("evil.agents.example", 401), ("agents.example.evil.example", 401), ("localhost", 401)] {
        assert_eq!(answer(ask("GET", "/api/v1/me", host)).await.0, status, "{host}");
    }
    let terminal = async |origin: &str| {
        let path = "/api/v1/sessions/00000000-0000-7000-8000-000000000009/terminal";
        answer(ask("GET", path, host).header("upgrade", "websocket").header("origin", origin)).await.1["code"].clone()
    };
    assert_eq!(terminal(page).await, "session_not_found");
    for other in ["https://evil.agents.example", "http://agents.example", &harness.base] {
        assert_eq!(terminal(other).await, "origin_refused", "{other}");
    }
    let make = |origin: Option<&str>| {
        let request = ask("POST", "/api/v1/login-codes", host);
        answer(if let Some(origin) = origin { request.header("origin", origin) } else { request })
    };
    assert_eq!(make(None).await.1["code"], "origin_refused");
    assert_eq!(make(Some("https://evil.agents.example")).await.1["code"], "origin_refused");
    let (status, code) = make(Some(page)).await;
    assert!(status == 201 && code["url"].as_str().unwrap().starts_with("https://agents.example/#code="), "{code}");
    // Whoever is invited is somewhere else, and is told the public name.
    let invite = json!({ "email": "ada@example.com", "role": "member" });
    let (_, invited) = harness.call("POST", "/api/v1/invitations", Some(invite)).await;
    assert!(invited["url"].as_str().unwrap().starts_with("https://agents.example/#invitation="), "{invited}");
    let logout = answer(ask("POST", "/api/v1/logout", host).header("origin", page)).await;
    assert_eq!((logout.0, answer(ask("GET", "/api/v1/me", host)).await.0), (204, 401));
}

#[tokio::test]
async fn bad_requests_name_the_field_and_leave_nothing() {
    let harness = Harness::start().await;
    async fn check(harness: &Harness, method: &str, path: &str, body: Value, status: u16, field: &str) {
        let (got, problem) = harness.call(method, path, Some(body.clone())).await;
        assert_eq!((got, &problem["errors"][0]["field"]), (status, &json!(field)), "{method} {path} {body}: {problem}");
    }
    let create = "/api/v1/sessions";
    check(&harness, "POST", create, json!({ "agent": "custom", "comand": [] }), 422, "comand").await;
    check(&harness, "POST", create, json!({ "agent": "gpt" }), 422, "agent").await;
    check(&harness, "POST", create, json!({ "agent": "custom" }), 422, "command").await;
    let sized = |cols: u32| json!({ "agent": "custom", "command": ["x"], "size": { "cols": cols, "rows": 24 } });
    check(&harness, "POST", create, sized(0), 422, "size").await;
    check(&harness, "POST", create, sized(65535), 422, "size").await;
    check(&harness, "POST", "/api/v1/sessions?wait=forever", json!({ "agent": "claude" }), 422, "query.wait").await;
    check(&harness, "POST", "/api/v1/sessions?w=1", json!({ "agent": "claude" }), 422, "query.w").await;
    assert_eq!(harness.get(create).await["data"], json!([]));
    let (_host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let one = format!("{create}/{id}");
    check(&harness, "PATCH", &one, json!({ "name": "x".repeat(101) }), 422, "name").await;
    check(&harness, "PATCH", &one, json!({ "state": "exited" }), 422, "state").await;
    check(&harness, "POST", &format!("{one}/resize"), json!({ "cols": 0, "rows": 24 }), 422, "cols").await;
    check(&harness, "POST", &format!("{one}/resize"), json!({ "cols": 80, "rows": 65535 }), 422, "rows").await;
    check(&harness, "POST", &format!("{one}/input"), json!({}), 422, "text").await;
    check(&harness, "POST", &format!("{one}/input"), json!({ "keys": ["Enter", "Foo"] }), 422, "keys[1]").await;
    for (path, field) in [
        (format!("{create}?limit=0"), "query.limit"),
        (format!("{create}?limit=201"), "query.limit"),
        (format!("{create}?cursor=x"), "query.cursor"),
        (format!("{create}?state=dead"), "query.state"),
        (format!("{create}?label=x"), "query.label"),
        (format!("{one}/screen?scrollback=10001"), "query.scrollback"),
        (format!("{one}/screen?format=html"), "query.format"),
        (format!("{one}/terminal?from=1"), "query.from"),
        (format!("{one}/terminal?mode=x&catchup=y"), "query.mode"),
    ] {
        let (status, problem) = harness.call("GET", &path, None).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{path}: {problem}");
    }
    let (status, problem) = harness.call("GET", &format!("{one}/screen?spawn=2"), None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("spawn_not_found")));
    let (status, problem) = harness.call("GET", &format!("{one}/terminal"), None).await;
    assert_eq!((status, &problem["code"]), (426, &json!("upgrade_required")));
    for path in ["/api/v1/sessions/x", "/api/v1/sessions/00000000-0000-7000-8000-000000000009"] {
        assert_eq!(harness.call("GET", path, None).await.0, 404, "{path}");
    }
    let garbage =
        harness.request("POST", create).bearer_auth(&harness.token).header("content-type", "application/json");
    assert_eq!(answer(garbage.body(vec![0xff; 100])).await.0, 400);
    let large = harness.request("POST", &format!("{one}/input")).bearer_auth(&harness.token);
    let text = json!({ "text": "x".repeat(1024 * 1024 + 1) }).to_string();
    assert_eq!(answer(large.header("content-type", "application/json").body(text)).await.0, 413);
}

#[tokio::test]
async fn the_same_key_has_one_effect_and_one_answer() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let post = |path: String, key: &'static str, body: Value| {
        answer(harness.request("POST", &path).bearer_auth(&harness.token).header("idempotency-key", key).json(&body))
    };
    let body = json!({ "agent": "custom", "command": ["bash"] });
    let first = post("/api/v1/sessions?wait=running".to_owned(), "a", body.clone()).await;
    let again = post("/api/v1/sessions?wait=running".to_owned(), "a", body.clone()).await;
    assert_eq!((first.0, &first), (201, &again));
    let (status, problem) = post("/api/v1/sessions".to_owned(), "a", json!({ "agent": "claude" })).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    assert_eq!(harness.get("/api/v1/sessions").await["data"].as_array().unwrap().len(), 1);
    let id = first.1["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/sessions/{id}/input");
    for _ in 0..2 {
        let (status, written) = post(path.clone(), "k", json!({ "text": "x" })).await;
        assert_eq!((status, &written["written"]), (200, &json!(1)));
    }
    assert_eq!(post(path, "k", json!({ "text": "y" })).await.0, 422);
    assert_eq!(host.with(|model| model.spawns[&(id.parse().unwrap(), 1)].input.clone()), b"x");
}

#[tokio::test]
async fn lists_have_pages_and_filters() {
    let harness = Harness::start().await;
    let mut made = Vec::new();
    for n in 0..5 {
        let body = json!({ "agent": "custom", "command": ["x"], "labels": { "n": n.to_string(), "all": "y" } });
        made.push(harness.call("POST", "/api/v1/sessions", Some(body)).await.1["id"].clone());
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/api/v1/sessions?limit=2".to_owned();
    loop {
        let page = harness.get(&path).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|session| session["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/sessions?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made);
    let count =
        async |query: &str| harness.get(&format!("/api/v1/sessions?{query}")).await["data"].as_array().unwrap().len();
    assert_eq!(count("label=n:3").await, 1);
    assert_eq!(count("label=n:3&label=all:y").await, 1);
    assert_eq!(count("label=n:3&label=all:z").await, 0);
    assert_eq!(count("state=pending&agent=custom").await, 5);
    assert_eq!(count("state=running").await, 0);
    assert_eq!(count("host=00000000-0000-7000-8000-000000000003").await, 0);
    let path = format!("/api/v1/sessions/{}", made[0].as_str().unwrap());
    let (_, named) = harness.call("PATCH", &path, Some(json!({ "name": "a", "labels": {} }))).await;
    assert_eq!((&named["name"], &named["labels"]), (&json!("a"), &json!({})));
    let (_, unnamed) = harness.call("PATCH", &path, Some(json!({ "name": null }))).await;
    assert_eq!(unnamed["name"], Value::Null);
}

#[tokio::test]
async fn events_resume_after_the_last_one_seen() {
    let harness = Harness::start().await;
    async fn events(
        harness: &Harness,
        last: Option<&str>,
        until: impl Fn(&str, &Value) -> bool,
    ) -> Vec<(String, String, Value)> {
        let mut request = harness.request("GET", "/api/v1/events").bearer_auth(&harness.token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let mut chunks = request.send().await.unwrap().bytes_stream();
        let (mut text, mut found) = (String::new(), Vec::new());
        loop {
            let chunk = tokio::time::timeout(DEADLINE, chunks.next()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((event, rest)) = text.clone().split_once("\n\n") {
                text = rest.to_owned();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
                let data: Value = serde_json::from_str(&field("data: ")).unwrap();
                assert_eq!(data["event"], field("event: "));
                let is_last = until(&field("event: "), &data);
                found.push((field("event: "), field("id: "), data));
                if is_last {
                    return found;
                }
            }
        }
    }
    let hello = events(&harness, None, |name, _| name == "hello").await;
    assert_eq!(hello[0].2["resume"], "gap");
    let id = harness.create().await;
    let is = |name: &str, data: &Value| name == "session" && data["session"]["id"] == id.to_string();
    let missed = events(&harness, Some(&hello[0].1), is).await;
    assert_eq!(missed[0].2["resume"], "resumed");
    let other = harness.create().await;
    let rest = events(&harness, Some(&missed.last().unwrap().1), |name, _| name == "session").await;
    assert_eq!(rest.last().unwrap().2["session"]["id"], other.to_string());
    let gap = events(&harness, Some("x-1"), |name, _| name == "hello").await;
    assert_eq!(gap[0].2["resume"], "gap");
}

/// Whatever part of the document refers to is in it.
fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                assert!(target.is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| check_references(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_and_health_are_public() {
    let harness = Harness::start().await;
    let response = harness.request("GET", "/api/v1/openapi.json").send().await.unwrap();
    let document: Value = response.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["components"]["schemas"]["Session"].is_object());
    check_references(&document, &document);
    let lifetimes = [
        ("CreateInvitation", INVITATION_SECONDS_MAX),
        ("CreateApiKey", EXPIRY_SECONDS_MAX),
        ("CreateHostEnrolment", ENROLMENT_SECONDS_MAX),
    ];
    for (schema, most) in lifetimes {
        let field = &document["components"]["schemas"][schema]["properties"]["expires_in_seconds"];
        assert_eq!((&field["minimum"], &field["maximum"]), (&json!(EXPIRY_SECONDS_MIN), &json!(most)), "{schema}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(harness.request("GET", path).send().await.unwrap().status(), 200, "{path}");
    }
    let (status, _) = answer(harness.request("GET", "/api/v1/nothing")).await;
    assert_eq!(status, 404);
    let response = harness.request("PUT", "/api/v1/hosts").send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
}
