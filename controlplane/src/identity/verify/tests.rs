//! Forged tokens, each beside the token that it was made from; and keys that come, go and cannot be had.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::identity::fetch;
use crate::identity::tests::issuer::{Issuer, Mood};
use crate::identity::tests::signer::{Signer, encoded};

const PROJECT_SECRET: &str = "a-secret-of-a-project-with-enough-characters";
const USER: &str = "7d0c0a54-7a3c-4c8e-9b7e-1f2d3c4b5a69";

/// Moves the clock by which keys age.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

async fn verifier(issuer: &Issuer, secret: Option<&str>) -> Result<Verifier, VerifierError> {
    let project = ProjectKeys::open(|name| match name {
        "SUPABASE_URL" => Some(issuer.url()),
        "SUPABASE_ANON_KEY" => Some("sb_publishable_a".to_owned()),
        "SUPABASE_SERVICE_ROLE_KEY" => Some("sb_secret_a".to_owned()),
        "SUPABASE_JWT_SECRET" => secret.map(str::to_owned),
        _ => None,
    });
    Verifier::start(project.unwrap().unwrap(), fetch::client().unwrap()).await.map(Option::unwrap)
}

fn claims(issuer: &Issuer) -> Value {
    let now = clock::now().unix_timestamp();
    json!({
        "iss": format!("{}/auth/v1", issuer.url()), "aud": "authenticated", "sub": USER, "role": "authenticated",
        "exp": now + 3600, "iat": now, "session_id": "a-login", "email": "a@example.com", "is_anonymous": false,
        "aal": "aal1", "user_metadata": { "email_verified": true, "role": "service_role" },
    })
}

/// The same claims but for some; null removes one.
fn but(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A project with one key of each kind.
struct Project {
    issuer: Issuer,
    verifier: Verifier,
    ec: Signer,
    rsa: Signer,
    secret: Signer,
}

impl Project {
    async fn start() -> Self {
        let (ec, rsa) = (Signer::es256("the-ec-key"), Signer::rs256("the-rsa-key"));
        let issuer = Issuer::start(&[&ec.jwk, &rsa.jwk]).await;
        let verifier = verifier(&issuer, Some(PROJECT_SECRET)).await.unwrap();
        Self { issuer, verifier, ec, rsa, secret: Signer::secret(PROJECT_SECRET) }
    }

    fn signers(&self) -> [&Signer; 3] {
        [&self.ec, &self.rsa, &self.secret]
    }

    /// Refused as expected; the token that it was made from is taken right after.
    async fn refuses(&self, what: &str, forged: &str, genuine: &str, expected: &str) {
        let refused = self.verifier.verify(forged).await.expect_err(what);
        assert!(format!("{refused:?}").starts_with(expected), "{what}: {refused:?}, and not {expected}");
        self.verifier.verify(genuine).await.unwrap_or_else(|error| panic!("the control of {what}: {error:?}"));
    }
}

#[tokio::test]
async fn a_token_of_each_algorithm_says_who_brought_it() {
    let project = Project::start().await;
    let claims = claims(&project.issuer);
    for signer in project.signers() {
        let token = signer.token(&claims);
        let caller = project.verifier.verify(&token).await.unwrap();
        assert_eq!(caller.user.to_string(), USER);
        assert_eq!(caller.session.as_deref(), Some("a-login"));
        // What a user can write about themselves verifies nothing.
        assert_eq!((caller.email.as_deref(), caller.email_verified), (Some("a@example.com"), false));
        assert_eq!(caller.expires_at.unix_timestamp(), claims["exp"].as_i64().unwrap());
        assert_eq!(caller.token.expose(), token);
    }
    // Several audiences, and claims that nobody asked for.
    let token = project.ec.token(&but(&claims, &json!({ "aud": ["other", "authenticated"], "phone": "" })));
    project.verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn claims_that_are_wrong_are_refused_under_every_algorithm() {
    let project = Project::start().await;
    let (claims, now) = (claims(&project.issuer), clock::now().unix_timestamp());
    let table = [
        ("another audience", json!({ "aud": "anon" }), "Audience"),
        ("audiences without ours", json!({ "aud": ["authenticated2", "x"] }), "Audience"),
        ("no audience in the list", json!({ "aud": [] }), "Audience"),
        ("no audience", json!({ "aud": null }), "Malformed"),
        ("expired", json!({ "exp": now - 31 }), "Expired"),
        ("expired long ago", json!({ "exp": i64::MIN }), "Expired"),
        ("no end", json!({ "exp": null }), "Malformed"),
        ("an end in words", json!({ "exp": "2099-01-01" }), "Malformed"),
        ("an end beyond time", json!({ "exp": i64::MAX }), "Malformed"),
        ("issued in the future", json!({ "iat": now + 60 }), "Early"),
        ("not good yet", json!({ "nbf": now + 60 }), "Early"),
        ("another issuer", json!({ "iss": "https://evil.example/auth/v1" }), "Issuer"),
        ("almost our issuer", json!({ "iss": format!("{}/auth/v1/", project.issuer.url()) }), "Issuer"),
        ("issuers", json!({ "iss": [format!("{}/auth/v1", project.issuer.url())] }), "Malformed"),
        ("no issuer", json!({ "iss": null }), "Malformed"),
        ("the service role", json!({ "role": "service_role" }), "Role"),
        ("a role of the database", json!({ "role": "postgres" }), "Role"),
        ("no role", json!({ "role": null }), "Malformed"),
        ("no user", json!({ "sub": "" }), "Subject"),
        ("a user in braces", json!({ "sub": format!("{{{USER}}}") }), "Subject"),
        ("a filter as user", json!({ "sub": "00000000-0000-0000-0000-0000000or=1" }), "Subject"),
        ("nobody", json!({ "sub": null }), "Malformed"),
        ("an anonymous user", json!({ "is_anonymous": true }), "Anonymous"),
        ("another application's", json!({ "client_id": "9a8b7c" }), "Application"),
    ];
    for signer in project.signers() {
        for (what, changes, expected) in &table {
            project.refuses(what, &signer.token(&but(&claims, changes)), &signer.token(&claims), expected).await;
        }
        // Clocks that are a little apart: taken.
        let skewed = but(&claims, &json!({ "exp": now - 20, "iat": now + 20, "nbf": now + 20 }));
        project.verifier.verify(&signer.token(&skewed)).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_signs_with_its_own_algorithm_only() {
    let project = Project::start().await;
    let claims = claims(&project.issuer);
    let forger = Signer::es256("the-ec-key");
    for key in [&project.ec, &project.rsa] {
        let (genuine, kid) = (key.token(&claims), key.jwk["kid"].clone());
        // What is public about a key, as the secret of an HMAC.
        for public in [key.pem.clone(), key.pem.trim().to_owned(), key.jwk.to_string(), String::new()] {
            let confused = Signer::secret(&public);
            let with_kid = confused.sign(&json!({ "alg": "HS256", "kid": kid }), &claims);
            project.refuses("HMAC with a public key", &with_kid, &genuine, "Algorithm").await;
            let without = confused.sign(&json!({ "alg": "HS256" }), &claims);
            project.refuses("HMAC with a public key, unnamed", &without, &genuine, "Signature").await;
        }
        // Not even the project's secret signs in the name of a key that is published.
        let secret = project.secret.sign(&json!({ "alg": "HS256", "kid": kid }), &claims);
        project.refuses("the secret under another key's name", &secret, &genuine, "Algorithm").await;
    }
    let crossed = project.ec.sign(&json!({ "alg": "ES256", "kid": "the-rsa-key" }), &claims);
    project.refuses("the name of the other key", &crossed, &project.ec.token(&claims), "Algorithm").await;
    let relabelled = project.ec.sign(&json!({ "alg": "RS256", "kid": "the-ec-key" }), &claims);
    project.refuses("the other algorithm", &relabelled, &project.ec.token(&claims), "Algorithm").await;
    project
        .refuses("another key of the same name", &forger.token(&claims), &project.ec.token(&claims), "Signature")
        .await;
    let other = Signer::secret("another-secret-with-enough-characters-in-it");
    project.refuses("another secret", &other.token(&claims), &project.secret.token(&claims), "Signature").await;

    let asked = project.issuer.asked();
    for name in ["none", "None", "NONE", "", "HS512", "ES384", "PS256", "EdDSA", "hs256"] {
        let header = json!({ "alg": name, "typ": "JWT", "kid": "the-ec-key" });
        let signed = project.secret.sign(&header, &claims);
        project.refuses(name, &signed, &project.secret.token(&claims), "Algorithm").await;
        let unsigned = format!("{}.{}.", encoded(&header), encoded(&claims));
        project.refuses(name, &unsigned, &project.secret.token(&claims), "Malformed").await;
    }
    assert_eq!(project.issuer.asked(), asked, "none of it is worth a question");
}

#[tokio::test]
async fn a_header_leads_to_no_key() {
    let project = Project::start().await;
    let (claims, forger) = (claims(&project.issuer), Signer::es256("forged"));
    let elsewhere = Issuer::start(&[&forger.jwk]).await;
    let set = format!("{}/auth/v1/.well-known/jwks.json", elsewhere.url());
    let genuine = project.ec.token(&claims);
    let headers = [
        json!({ "alg": "ES256", "kid": "forged", "jku": set }),
        json!({ "alg": "ES256", "kid": "forged", "x5u": set }),
        json!({ "alg": "ES256", "kid": "forged", "jwk": forger.jwk }),
        json!({ "alg": "ES256", "kid": set }),
        json!({ "alg": "ES256", "kid": "../../../../dev/null" }),
        json!({ "alg": "ES256", "kid": "/proc/self/environ" }),
        json!({ "alg": "ES256", "kid": "x' UNION SELECT 'key" }),
        json!({ "alg": "ES256", "kid": "THE-EC-KEY" }),
        json!({ "alg": "ES256", "kid": "the-ec-key\u{0}" }),
        json!({ "alg": "ES256", "kid": "the-ec-key " }),
        json!({ "alg": "ES256", "kid": "" }),
        json!({ "alg": "ES256" }),
    ];
    for header in headers {
        project.refuses(&header.to_string(), &forger.sign(&header, &claims), &genuine, "Key").await;
    }
    // Its own key in its header, under the name of ours.
    let header = json!({ "alg": "ES256", "kid": "the-ec-key", "jwk": forger.jwk, "jku": set });
    project.refuses("a key of its own", &forger.sign(&header, &claims), &genuine, "Signature").await;
    let header = json!({ "alg": "ES256", "kid": "the-ec-key", "crit": ["b64"], "b64": false });
    project.refuses("a critical header", &project.ec.sign(&header, &claims), &genuine, "Critical").await;
    for kid in [json!(["the-ec-key"]), json!({ "a": 1 }), json!(7), json!("k".repeat(300))] {
        let header = json!({ "alg": "ES256", "kid": kid });
        project.refuses("a name that is none", &forger.sign(&header, &claims), &genuine, "Malformed").await;
    }
    assert_eq!(elsewhere.asked(), 0, "nobody went where a token said");
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let project = Project::start().await;
    for signer in project.signers() {
        let genuine = signer.token(&claims(&project.issuer));
        let parts: Vec<&str> = genuine.split('.').collect();
        let (head, payload, signature) = (parts[0], parts[1], parts[2]);
        let admin = encoded(&but(&claims(&project.issuer), &json!({ "sub": "00000000-0000-7000-8000-000000000002" })));
        let table = [
            ("truncated", genuine[..genuine.len() - 7].to_owned(), "Signature"),
            ("without signature", format!("{head}.{payload}"), "Malformed"),
            ("with an empty one", format!("{head}.{payload}."), "Malformed"),
            ("doubled dots", format!("{head}..{payload}.{signature}"), "Malformed"),
            ("doubled dots later", format!("{head}.{payload}..{signature}"), "Malformed"),
            ("a dot before", format!(".{genuine}"), "Malformed"),
            ("a dot behind", format!("{genuine}."), "Malformed"),
            ("five parts", format!("{genuine}.{payload}.{signature}"), "Malformed"),
            ("a space before", format!(" {genuine}"), "Malformed"),
            ("a line behind", format!("{genuine}\n"), "Signature"),
            ("padded", format!("{head}.{payload}.{signature}="), "Signature"),
            ("other claims", format!("{head}.{admin}.{signature}"), "Signature"),
            ("a megabyte", format!("{head}.{}.{signature}", "A".repeat(1 << 20)), "TooLong"),
            ("a megabyte of dots", ".".repeat(1 << 20), "TooLong"),
            ("an opaque key", "sb_secret_abc".to_owned(), "Malformed"),
            ("nothing", String::new(), "Malformed"),
        ];
        for (what, forged, expected) in table {
            project.refuses(what, &forged, &genuine, expected).await;
        }
    }
    // The same claim twice: readers differ on which counts.
    let text = claims(&project.issuer).to_string();
    let twice = text.replacen('{', r#"{"role":"authenticated","#, 1);
    let token = project.ec.sign_text(&json!({ "alg": "ES256", "kid": "the-ec-key" }), &twice);
    project.refuses("a claim twice", &token, &project.ec.token(&claims(&project.issuer)), "Malformed").await;
}

#[tokio::test]
async fn keys_are_replaced_while_tokens_come() {
    let (old, new) = (Signer::es256("old"), Signer::rs256("new"));
    let issuer = Issuer::start(&[&old.jwk]).await;
    let verifier = verifier(&issuer, None).await.unwrap();
    let claims = claims(&issuer);
    pass(11).await;
    verifier.verify(&old.token(&claims)).await.unwrap();
    assert_eq!(issuer.asked(), 1, "known keys are not asked for again");

    issuer.publish(&[&old.jwk, &new.jwk]);
    verifier.verify(&new.token(&claims)).await.unwrap();
    verifier.verify(&old.token(&claims)).await.unwrap();
    assert_eq!(issuer.asked(), 2);

    // The old one is taken back: gone with the next look, which comes by itself when keys are old.
    issuer.publish(&[&new.jwk]);
    verifier.verify(&old.token(&claims)).await.unwrap();
    pass(601).await;
    assert!(matches!(verifier.verify(&old.token(&claims)).await, Err(TokenError::Key)));
    verifier.verify(&new.token(&claims)).await.unwrap();
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn made_up_names_ask_every_ten_seconds_at_most() {
    let key = Signer::es256("key");
    let issuer = Issuer::start(&[&key.jwk]).await;
    let verifier = verifier(&issuer, None).await.unwrap();
    let claims = claims(&issuer);
    let made_up: Vec<String> = (0..20).map(|name| Signer::es256(&format!("made-up-{name}")).token(&claims)).collect();
    for rounds in 1..=3 {
        // At once, so that they meet.
        let all = futures_util::future::join_all(made_up.iter().map(|token| verifier.verify(token))).await;
        assert!(all.iter().all(|answer| matches!(answer, Err(TokenError::Key))), "{all:?}");
        assert_eq!(issuer.asked(), rounds);
        pass(10).await;
    }
}

#[tokio::test]
async fn known_keys_do_not_wait_for_an_issuer_that_is_slow() {
    let key = Signer::es256("key");
    let issuer = Issuer::start(&[&key.jwk]).await;
    let verifier = verifier(&issuer, None).await.unwrap();
    let claims = claims(&issuer);
    let told = Arc::new(Notify::new());
    issuer.answer(Mood::Waits(told.clone(), json!({ "keys": [key.jwk] }).to_string()));
    pass(601).await;
    let (made_up, known) = (Signer::es256("made-up").token(&claims), key.token(&claims));
    let asking = verifier.verify(&made_up);
    tokio::pin!(asking);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    while issuer.asked() < 2 {
        tokio::select! {
            answered = &mut asking => panic!("answered without keys: {answered:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert!(tokio::time::Instant::now() < deadline, "the issuer is asked");
    }
    for _ in 0..20 {
        verifier.verify(&known).await.unwrap();
    }
    told.notify_one();
    assert!(matches!(asking.await, Err(TokenError::Key)));
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn keys_outlive_an_issuer_that_is_gone_for_a_while_only() {
    let key = Signer::es256("key");
    let issuer = Issuer::start(&[&key.jwk]).await;
    let claims = claims(&issuer);
    let verifier = verifier(&issuer, None).await.unwrap();
    pass(601).await;
    let broken = [
        Mood::Says(500, "{}".to_owned()),
        Mood::Says(200, "<html>".to_owned()),
        Mood::Says(200, "[".repeat(300 * 1024)),
        Mood::Says(302, String::new()),
        Mood::Gone,
    ];
    for mood in broken {
        issuer.answer(mood);
        let asked = issuer.asked();
        verifier.verify(&key.token(&claims)).await.unwrap();
        assert_eq!(issuer.asked(), asked + 1);
        pass(11).await;
    }
    pass(3000).await;
    let refused = verifier.verify(&key.token(&claims)).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused:?}");
    // And back with the issuer.
    issuer.publish(&[&key.jwk]);
    pass(10).await;
    verifier.verify(&key.token(&claims)).await.unwrap();
}

#[tokio::test]
async fn a_project_without_keys_is_named_at_the_start() {
    let issuer = Issuer::start(&[]).await;
    let error = verifier(&issuer, None).await.unwrap_err().to_string();
    assert!(error.contains("publishes no key") && error.contains("SUPABASE_JWT_SECRET"), "{error}");
    verifier(&issuer, Some(PROJECT_SECRET)).await.unwrap();

    issuer.answer(Mood::Says(404, "{}".to_owned()));
    let error = verifier(&issuer, Some(PROJECT_SECRET)).await.unwrap_err();
    let text = agentapi_shared::runtime::chain(&error);
    assert!(text.contains("is SUPABASE_URL right") && text.contains("404"), "{text}");

    // Keys that are not for us do not spoil the others, and sign nothing.
    let key = Signer::es256("key");
    let (encrypts, pss) = (Signer::es256("encrypts"), Signer::rs256("pss"));
    let twins = [Signer::es256("twin"), Signer::es256("twin")];
    let odd = [
        json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": "c2VjcmV0" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "AAAA" }),
        but(&encrypts.jwk, &json!({ "use": "enc" })),
        but(&pss.jwk, &json!({ "alg": "PS256" })),
        twins[0].jwk.clone(),
        twins[1].jwk.clone(),
        but(&Signer::es256("nameless").jwk, &json!({ "kid": null })),
        json!({ "kty": "future" }),
        json!("nonsense"),
    ];
    let mut all: Vec<&Value> = odd.iter().collect();
    all.push(&key.jwk);
    issuer.publish(&all);
    let verifier = verifier(&issuer, None).await.unwrap();
    let claims = claims(&issuer);
    verifier.verify(&key.token(&claims)).await.unwrap();
    for signer in [&encrypts, &pss, &twins[0], &twins[1]] {
        assert!(matches!(verifier.verify(&signer.token(&claims)).await, Err(TokenError::Key)));
    }
    let published = Signer::secret("secret").sign(&json!({ "alg": "HS256", "kid": "oct" }), &claims);
    assert!(matches!(verifier.verify(&published).await, Err(TokenError::Algorithm)));
}
