//! Logins at a real issuer (`tests/oidc`), with a browser that follows redirects and keeps cookies; and tokens that speak of other logins.

use serde_json::{Value, json};

use super::*;
use crate::identity::tests::Dir;
use crate::identity::tests::oidc::{BACK, Issuer, SECRET_CLIENT, visit};

fn client(issuer: &Issuer, id: &str, secret: Option<&str>) -> Oidc {
    let settings = OidcSettings {
        issuer: issuer.url.clone(),
        client_id: id.to_owned(),
        client_secret: secret.map(|secret| Secret::from_text(secret.to_owned())),
        redirect_uri: BACK.to_owned(),
    };
    Oidc::new(fetch::client().unwrap(), settings)
}

fn confidential(issuer: &Issuer) -> Oidc {
    client(issuer, SECRET_CLIENT.0, Some(SECRET_CLIENT.1))
}

fn sealer(dir: &Dir) -> Sealer {
    Sealer::open_file(&dir.path("sealing.keys")).unwrap()
}

#[tokio::test]
async fn people_log_in_at_a_real_issuer() {
    let dir = Dir::new();
    let sealer = sealer(&dir);
    for claims_in_token in [true, false] {
        let issuer = Issuer::start(json!({ "claims_in_token": claims_in_token })).await;
        let clients = [confidential(&issuer), client(&issuer, "public", None)];
        for (client, who) in clients.iter().flat_map(|client| ["ada", "bob", "nemo"].map(|who| (client, who))) {
            let begun = client.begin(&sealer).await.unwrap();
            let person = client.finish(&sealer, &begun.cookie, &visit(&begun.url, who).await).await.unwrap();
            let email = (who != "nemo").then(|| format!("{who}@example.com"));
            let expected = Person {
                issuer: issuer.url.clone(),
                subject: who.to_owned(),
                name: match who {
                    "ada" => Some("Ada".to_owned()),
                    "bob" => Some("Bob".to_owned()),
                    _ => None,
                },
                email,
                email_verified: who == "ada",
            };
            assert_eq!(person, expected);
        }
    }
    // An issuer that takes the secret in the form only.
    let issuer = Issuer::start(json!({ "methods": ["client_secret_post"] })).await;
    let form = client(&issuer, "form", Some("a-secret-of-the-form"));
    let begun = form.begin(&sealer).await.unwrap();
    form.finish(&sealer, &begun.cookie, &visit(&begun.url, "ada").await).await.unwrap();
}

#[tokio::test]
async fn a_login_is_finished_once_by_the_browser_that_began_it() {
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    let (sealer, issuer) = (sealer(&dir), Issuer::start(json!({})).await);
    let client = confidential(&issuer);
    let (ours, theirs) = (client.begin(&sealer).await.unwrap(), client.begin(&sealer).await.unwrap());
    let (back, their_back) = (visit(&ours.url, "ada").await, visit(&theirs.url, "bob").await);
    let with = |code: &Callback, state: &Callback, iss: Option<&str>| Callback {
        code: code.code.clone(),
        state: state.state.clone(),
        iss: iss.map(str::to_owned),
        error: None,
    };
    let url = issuer.url.as_str();
    let mut changed = ours.cookie.expose().to_owned();
    changed.replace_range(60..61, if &changed[60..61] == "A" { "B" } else { "A" });
    let other_key = Sealer::open_file(&elsewhere.path("other.keys")).unwrap();
    let table = [
        (
            "a link that somebody else began",
            &sealer,
            &ours.cookie,
            with(&their_back, &their_back, Some(url)),
            "NotBegun",
        ),
        ("our state with their cookie", &sealer, &theirs.cookie, with(&back, &back, Some(url)), "NotBegun"),
        ("no state", &sealer, &ours.cookie, Callback { state: None, ..with(&back, &back, Some(url)) }, "NotBegun"),
        ("another issuer", &sealer, &ours.cookie, with(&back, &back, Some("https://evil.example")), "NotBegun"),
        ("an issuer that says nothing", &sealer, &ours.cookie, with(&back, &back, None), "NotBegun"),
        ("another installation's cookie", &other_key, &ours.cookie, with(&back, &back, Some(url)), "NotBegun"),
        ("a cookie that was changed", &sealer, &Secret::from_text(changed), with(&back, &back, Some(url)), "NotBegun"),
        ("no cookie", &sealer, &Secret::from_text(String::new()), with(&back, &back, Some(url)), "NotBegun"),
        ("no code", &sealer, &ours.cookie, Callback { code: None, ..with(&back, &back, Some(url)) }, "no_code"),
        (
            "a made-up code",
            &sealer,
            &ours.cookie,
            Callback { code: Some("x".to_owned()), ..with(&back, &back, Some(url)) },
            "invalid_grant",
        ),
    ];
    for (what, sealer, cookie, callback, expected) in &table {
        let refused = client.finish(sealer, cookie, callback).await.unwrap_err();
        assert!(format!("{refused:?}").contains(expected), "{what}: {refused:?}");
    }
    assert!(matches!(
        client.pending(&sealer, &ours.cookie, &back, clock::now() + LIFETIME + Duration::seconds(1)),
        Err(LoginError::NotBegun)
    ));
    // The control: nothing of that kept the login from being finished. Twice it is not.
    assert_eq!(client.finish(&sealer, &ours.cookie, &back).await.unwrap().subject, "ada");
    let again = client.finish(&sealer, &ours.cookie, &back).await.unwrap_err();
    assert!(matches!(&again, LoginError::Issuer { code } if code == "invalid_grant"), "{again:?}");
    // A code that somebody else was given, put into our login: our verifier does not fit. (The control is theirs, before and after.)
    let (ours, theirs) = (client.begin(&sealer).await.unwrap(), client.begin(&sealer).await.unwrap());
    let (back, their_back) = (visit(&ours.url, "ada").await, visit(&theirs.url, "bob").await);
    let injected = client.finish(&sealer, &ours.cookie, &with(&their_back, &back, Some(url))).await.unwrap_err();
    assert!(matches!(&injected, LoginError::Issuer { code } if code == "invalid_grant"), "{injected:?}");
    assert_eq!(client.finish(&sealer, &ours.cookie, &back).await.unwrap().subject, "ada");

    let begun = client.begin(&sealer).await.unwrap();
    let cancelled = client.finish(&sealer, &begun.cookie, &visit(&begun.url, "ada:no").await).await.unwrap_err();
    assert!(matches!(&cancelled, LoginError::Issuer { code } if code == "access_denied"), "{cancelled:?}");
}

#[tokio::test]
async fn settings_that_are_wrong_are_named() {
    let dir = Dir::new();
    let (sealer, issuer) = (sealer(&dir), Issuer::start(json!({})).await);
    let with = |settings| Oidc::new(fetch::client().unwrap(), settings);
    let right = confidential(&issuer).settings;
    let at = |issuer: String| with(OidcSettings { issuer, ..right.clone() });
    let table = [
        (format!("{}/", issuer.url), "calls itself otherwise"),
        ("http://issuer.example".to_owned(), "use https"),
        ("http://127.0.0.1:1".to_owned(), "cannot be asked"),
        (format!("{}/nowhere", issuer.url), "cannot be asked"),
    ];
    for (issuer, said) in table {
        let error = at(issuer).begin(&sealer).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} does not say {said:?}");
    }
    let wrong = with(OidcSettings { client_secret: Some(Secret::from_text("wrong".to_owned())), ..right.clone() });
    let begun = wrong.begin(&sealer).await.unwrap();
    let refused = wrong.finish(&sealer, &begun.cookie, &visit(&begun.url, "ada").await).await.unwrap_err();
    assert!(matches!(&refused, LoginError::Issuer { code } if code == "invalid_client"), "{refused:?}");
}

#[test]
fn a_token_of_another_login_is_not_ours() {
    let now = clock::now();
    let seconds = now.unix_timestamp();
    let claims = json!({
        "iss": "https://issuer.example", "sub": "somebody", "aud": "us", "exp": seconds + 300, "iat": seconds,
        "nonce": "n", "email": "a@example.com", "email_verified": true
    });
    let expected = Expected { issuer: "https://issuer.example", client: "us", nonce: "n" };
    let judge = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let claims: Result<IdClaims, _> = serde_json::from_value(claims);
        claims.map_err(|_| TokenError::Malformed).and_then(|claims| claims.person(&expected, now))
    };
    let table = [
        (json!({ "iss": "https://issuer.example/" }), "Issuer"),
        (json!({ "aud": "them" }), "Audience"),
        (json!({ "aud": ["us", "them"] }), "Audience"),
        (json!({ "aud": ["us", "them"], "azp": "them" }), "Audience"),
        (json!({ "aud": "us", "azp": "them" }), "Audience"),
        (json!({ "exp": seconds - 31 }), "Expired"),
        (json!({ "exp": null }), "Malformed"),
        (json!({ "iat": seconds + 31 }), "Early"),
        (json!({ "iat": null }), "Malformed"),
        (json!({ "nbf": seconds + 31 }), "Early"),
        (json!({ "nonce": "m" }), "Nonce"),
        (json!({ "nonce": null }), "Nonce"),
        (json!({ "sub": "" }), "Subject"),
        (json!({ "sub": "s".repeat(256) }), "Subject"),
    ];
    for (changes, wanted) in table {
        let refused = judge(changes.clone()).unwrap_err();
        assert!(format!("{refused:?}").starts_with(wanted), "{changes}: {refused:?}");
    }
    // The controls.
    for changes in [
        json!({}),
        json!({ "aud": ["us"] }),
        json!({ "aud": ["us", "them"], "azp": "us" }),
        json!({ "email_verified": "true" }),
    ] {
        assert!(judge(changes.clone()).unwrap().email_verified, "{changes}");
    }
    for changes in [json!({ "email_verified": false }), json!({ "email_verified": null }), json!({ "email": "" })] {
        assert!(!judge(changes.clone()).unwrap().email_verified, "{changes}");
    }
    let person = judge(json!({ "email": null, "email_verified": true })).unwrap();
    assert_eq!((person.email.as_deref(), person.email_verified), (None, false));
    // What is told of somebody else is not added.
    let more: id_token::More = serde_json::from_value(json!({ "sub": "else", "email": "root@example.com" })).unwrap();
    assert!(matches!(more.added_to(person.clone()), Err(TokenError::Subject)));
    let more: id_token::More = serde_json::from_value(json!({ "sub": "somebody", "email": "a@example.com" })).unwrap();
    assert_eq!(more.added_to(person).unwrap().email.as_deref(), Some("a@example.com"));
}
