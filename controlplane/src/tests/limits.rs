//! Rate limits as callers meet them.

use super::client::Harness;

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
