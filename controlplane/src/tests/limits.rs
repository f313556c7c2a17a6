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
