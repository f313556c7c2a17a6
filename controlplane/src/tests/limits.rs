//! Rate limits as callers meet them.

use super::client::Harness;
use super::credentials::log_in;
use super::host::SimHost;
use crate::clock;

#[tokio::test]
async fn answers_say_what_is_left_and_a_refusal_when_to_come_again() {
    let harness = Harness::start_with(|config| config.rates.key = 3).await;
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let ask = || harness.request("GET", "/api/v1/me").bearer_auth(&harness.token).send();
    for left in [2, 1, 0] {
        let answer = ask().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(header(&answer, "ratelimit").starts_with(&format!("\"key\";r={left};t=")), "{answer:?}");
        assert!(header(&answer, "ratelimit-policy").starts_with("\"key\";q=3;w=60, \"user\";q="), "{answer:?}");
    }
    let refused = ask().await.unwrap();
    assert_eq!((refused.status().as_u16(), header(&refused, "ratelimit")), (429, "\"key\";r=0;t=60".to_owned()));
    assert!((1..=21).contains(&header(&refused, "retry-after").parse::<u64>().unwrap()), "{refused:?}");
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited", "{problem}");
    // Whoever is not known has no limit of their own and is told of none.
    let stranger = harness.request("GET", "/api/v1/me").send().await.unwrap();
    assert_eq!((stranger.status().as_u16(), header(&stranger, "ratelimit")), (401, String::new()));
    assert_eq!(harness.request("GET", "/livez").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn whoever_is_not_known_is_held_by_where_they_come_from() {
    let harness = Harness::start_with(|config| {
        config.rates.address = 3;
        config.client_address_header = Some("x-forwarded-for".parse().unwrap());
    })
    .await;
    let attempt = async |method: &str, path: &str, body: serde_json::Value, from: &str| {
        let request = harness.request(method, path).header("x-forwarded-for", from);
        let answer = if body.is_null() { request } else { request.json(&body) }.send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let told = (header("ratelimit"), header("retry-after"));
        let status = answer.status().as_u16();
        (status, told, answer.json::<serde_json::Value>().await.unwrap())
    };
    let (code, token) = (serde_json::json!({ "code": "x" }), serde_json::json!({ "token": "x" }));
    let (login, redeem) = ("/api/v1/login", "/api/v1/host-enrolments/redeem");
    let first = attempt("POST", login, code.clone(), "192.0.2.1").await;
    assert_eq!(first.0, 401);
    assert!(first.1.0.as_deref().is_some_and(|told| told.starts_with("\"address\";r=2;t=")), "{first:?}");
    // All of them together, whatever the client says of itself before the proxy's word.
    let accept = "/api/v1/invitations/accept";
    assert_eq!(attempt("POST", redeem, token.clone(), "203.0.113.9, 192.0.2.1").await.0, 401);
    assert_eq!(attempt("POST", accept, serde_json::json!({}), "192.0.2.1").await.0, 401);
    for (method, path, body) in [
        ("POST", login, code.clone()),
        ("POST", redeem, token),
        ("POST", accept, serde_json::json!({})),
        ("POST", "/api/v1/invitations/lookup", serde_json::json!({})),
        ("POST", "/api/v1/login/password", serde_json::json!({ "email": "a@example.com", "password": "b" })),
        ("GET", "/api/v1/login/issuer", serde_json::Value::Null),
        ("GET", "/api/v1/login/issuer/callback", serde_json::Value::Null),
    ] {
        let (status, told, problem) = attempt(method, path, body, "192.0.2.1").await;
        assert_eq!((status, &problem["code"]), (429, &serde_json::json!("rate_limited")), "{path}: {problem}");
        assert_eq!(told.0.as_deref(), Some("\"address\";r=0;t=60"));
        assert!((1..=21).contains(&told.1.unwrap().parse::<u64>().unwrap()));
    }
    // Others go on, a network of theirs as one; and whoever is known.
    for (from, status) in
        [("192.0.2.2", 401), ("2001:db8::1", 401), ("2001:db8::2", 401), ("2001:db8::3", 401), ("2001:db8::4", 429)]
    {
        assert_eq!(attempt("POST", login, code.clone(), from).await.0, status, "{from}");
    }
    let known = harness.request("GET", "/api/v1/me").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(known.bearer_auth(&harness.token).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_proxy_nobody_says_where_they_come_from() {
    let harness = Harness::start_with(|config| config.rates.address = 1).await;
    let attempt = async |from: &str| {
        let request = harness.request("POST", "/api/v1/login").header("x-forwarded-for", from);
        request.json(&serde_json::json!({ "code": "x" })).send().await.unwrap().status().as_u16()
    };
    assert_eq!((attempt("192.0.2.1").await, attempt("192.0.2.2").await), (401, 429));
}

/// Asks with a header who somebody is; gives the status, when to come again, and what it was about.
async fn ask(harness: &Harness, from: &str, header: (&str, &str)) -> (u16, Option<u64>, String) {
    let request = harness.request("GET", "/api/v1/me").header("x-forwarded-for", from).header(header.0, header.1);
    let answer = request.send().await.unwrap();
    let again = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let status = answer.status().as_u16();
    let problem: serde_json::Value = answer.json().await.unwrap();
    (status, again, problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn wrong_credentials_are_held_by_where_they_come_from_and_good_ones_are_not() {
    let harness = Harness::start_with(|config| {
        config.rates.failures = 3;
        config.client_address_header = Some("x-forwarded-for".parse().unwrap());
    })
    .await;
    let good = format!("Bearer {}", harness.token);
    let cookie = log_in(&harness, clock::now() + time::Duration::hours(1)).await;
    let wrong_cookie = format!("{}=wrong", cookie.split('=').next().unwrap());
    let bearer =
        async |token: &str, from: &str| ask(&harness, from, ("authorization", &format!("Bearer {token}"))).await;
    let known = async |from: &str| ask(&harness, from, ("authorization", &good)).await.0;
    // One that is shown again and again counts once.
    for _ in 0..20 {
        assert_eq!(bearer("stale", "192.0.2.1").await, (401, None, "unauthorized".to_owned()));
    }
    assert_eq!(known("192.0.2.1").await, 200);
    assert_eq!(bearer("guess", "203.0.113.9, 192.0.2.1").await.0, 401);
    assert_eq!(ask(&harness, "192.0.2.1", ("cookie", &wrong_cookie)).await.0, 401);
    let sql = |statement: &str| {
        rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap().execute_batch(statement).unwrap();
    };
    // Whatever asks the store fails from here on.
    sql("ALTER TABLE api_keys RENAME TO away; ALTER TABLE browser_sessions RENAME TO far");
    for header in [("authorization", "Bearer another"), ("cookie", wrong_cookie.replace("=wrong", "=other").as_str())] {
        let (status, again, code) = ask(&harness, "192.0.2.1", header).await;
        assert_eq!((status, code.as_str()), (429, "rate_limited"), "{header:?}");
        assert!(again.is_some_and(|seconds| (1..=21).contains(&seconds)), "{again:?}");
    }
    // Hosts have a share of their own: the store is asked.
    let host = harness.request("POST", "/api/v1/hosts/credential").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(host.bearer_auth("aah_wrong").send().await.unwrap().status(), 503);
    assert_eq!((bearer("elsewhere", "192.0.2.2").await.0, known("192.0.2.1").await), (503, 503));
    sql("ALTER TABLE away RENAME TO api_keys; ALTER TABLE far RENAME TO browser_sessions");
    // Who was known goes on, and so does everybody elsewhere. A store that is away was nobody's fault.
    assert_eq!((known("192.0.2.1").await, bearer("elsewhere", "192.0.2.2").await.0), (200, 401));
    assert_eq!(ask(&harness, "192.0.2.1", ("cookie", &cookie)).await.0, 429);
    assert_eq!(ask(&harness, "192.0.2.2", ("cookie", &cookie)).await.0, 200);
    assert_eq!(ask(&harness, "192.0.2.1", ("cookie", &cookie)).await.0, 200);
}

#[tokio::test]
async fn hosts_have_a_share_of_wrong_credentials_that_is_theirs() {
    let harness = Harness::start_with(|config| config.rates.failures = 3).await;
    let me = async |token: &str| {
        harness.request("GET", "/api/v1/me").bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let host = async |token: &str| {
        let request = harness.request("POST", "/api/v1/hosts/credential").bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(me(&harness.token).await, 200);
    for (guess, status) in [("one", 401), ("two", 401), ("three", 401), ("four", 429)] {
        assert_eq!(me(guess).await, status, "{guess}");
    }
    // One that this server has not seen yet, as after its restart.
    let _linked = SimHost::connect(&harness).await;
    for (guess, status) in [("aah_one", 401), ("aah_two", 401), ("aah_three", 401), ("aah_four", 429)] {
        assert_eq!(host(guess).await, status, "{guess}");
    }
    assert_eq!(me(&harness.token).await, 200);
}
