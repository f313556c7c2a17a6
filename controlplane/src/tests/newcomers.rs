//! People who are in no organisation, over HTTP: how they come into one, and that they have nothing before.

use serde_json::{Value, json};

use super::client::{Harness, answer};
use super::people::Person;
use crate::capability::Role;
use crate::domain::policy::SignUp;
use crate::store::records::DEFAULT_ORG;

/// A browser of somebody's.
struct Browser<'a> {
    harness: &'a Harness,
    cookie: String,
}

impl Browser<'_> {
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.harness.request(method, path).header("cookie", &self.cookie);
        let request = request.header("origin", &self.harness.base);
        answer(if body.is_null() { request } else { request.json(&body) }).await
    }

    async fn refused(&self, method: &str, path: &str, body: Value, status: u16, code: &str) {
        let (got, problem) = self.call(method, path, body).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{method} {path}: {problem}");
    }
}

async fn open() -> Harness {
    Harness::start_with(|config| config.foundings.sign_up = SignUp::Open).await
}

#[tokio::test]
async fn an_invitation_is_accepted_after_the_login_and_by_its_addressee_alone() {
    let harness = Harness::start().await;
    let owner = Person::new(&harness, DEFAULT_ORG, Role::Owner);
    let invited = async |of: &Person| {
        let email = format!("{}@example.com", of.tenant.user);
        let (_, token) = owner.invites(&harness, &email, Role::Member).await;
        json!({ "organization_id": DEFAULT_ORG, "token": token })
    };
    let (ada, cookie) = Person::newcomer(&harness, true).await;
    let browser = Browser { harness: &harness, cookie };
    let accept = "/api/v1/invitations/accept";
    for path in ["/api/v1/me", "/api/v1/sessions", "/api/v1/organizations", "/api/v1/events"] {
        browser.refused("GET", path, Value::Null, 403, "no_organization").await;
    }
    browser.refused("POST", "/api/v1/login-codes", Value::Null, 403, "no_organization").await;
    browser.refused("POST", "/api/v1/organizations", json!({ "name": "mine" }), 403, "no_organization").await;
    let (stranger, other) = Person::newcomer(&harness, true).await;
    let to_stranger = invited(&stranger).await;
    browser.refused("POST", accept, to_stranger, 404, "invitation_not_found").await;
    // Her own, and only from a page of ours.
    let own = invited(&ada).await;
    let foreign = harness.request("POST", accept).header("cookie", &browser.cookie).json(&own);
    let foreign = answer(foreign.header("origin", "http://evil.example")).await;
    assert_eq!((foreign.0, &foreign.1["code"]), (403, &json!("origin_refused")));
    // Who holds the link sees where it leads, logged in or not; without its token nobody does.
    let lookup = "/api/v1/invitations/lookup";
    let (status, shown) = answer(harness.request("POST", lookup).json(&own)).await;
    assert_eq!((status, &shown["organization"], &shown["role"]), (200, &json!("default"), &json!("member")), "{shown}");
    assert_eq!(browser.call("POST", lookup, own.clone()).await.1["organization"], "default");
    let guess = json!({ "organization_id": DEFAULT_ORG, "token": "guess" });
    let (status, problem) = answer(harness.request("POST", lookup).json(&guess)).await;
    assert_eq!((status, &problem["code"]), (404, &json!("invitation_not_found")), "{problem}");
    assert!(!problem.to_string().contains("default"), "{problem}");
    assert_eq!(browser.call("POST", accept, own.clone()).await.0, 204);
    browser.refused("POST", lookup, own.clone(), 404, "invitation_not_found").await;
    let (status, me) = browser.call("GET", "/api/v1/me", Value::Null).await;
    assert_eq!((status, &me["role"], &me["organization_id"]), (200, &json!("member"), &json!(DEFAULT_ORG)), "{me}");
    browser.refused("POST", accept, own, 404, "invitation_not_found").await;

    let (unconfirmed, cookie) = Person::newcomer(&harness, false).await;
    let body = invited(&unconfirmed).await;
    Browser { harness: &harness, cookie }.refused("POST", accept, body, 403, "address_not_confirmed").await;

    // Whoever does not come in logs out.
    let other = Browser { harness: &harness, cookie: other };
    assert_eq!(other.call("POST", "/api/v1/logout", Value::Null).await.0, 204);
    other.refused("GET", "/api/v1/me", Value::Null, 401, "unauthorized").await;

    // A login ends with the membership, and stays ended.
    let member = format!("/api/v1/members/{}", ada.tenant.user);
    assert_eq!(owner.call(&harness, "DELETE", &member, Value::Null).await.0, 204);
    browser.refused("GET", "/api/v1/me", Value::Null, 401, "unauthorized").await;
    let again = invited(&ada).await;
    browser.refused("POST", accept, again.clone(), 401, "unauthorized").await;
}

#[tokio::test]
async fn where_signing_up_is_open_a_newcomer_founds_one_organisation_and_owns_it() {
    let harness = open().await;
    let methods = answer(harness.request("GET", "/api/v1/login/methods")).await.1;
    assert_eq!(methods["sign_up"], "open");
    let found = json!({ "name": "Analytical Engines" });
    let path = "/api/v1/organizations";
    let (_, cookie) = Person::newcomer(&harness, true).await;
    let browser = Browser { harness: &harness, cookie };
    let (status, problem) = browser.call("POST", path, json!({ "name": "" })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("name")));
    let (status, made) = browser.call("POST", path, found.clone()).await;
    assert_eq!((status, &made["role"], &made["current"]), (201, &json!("owner"), &json!(true)), "{made}");
    let (status, me) = browser.call("GET", "/api/v1/me", Value::Null).await;
    assert_eq!((status, &me["role"], &me["organization_id"]), (200, &json!("owner"), &made["id"]), "{me}");
    // It is given quotas, which are the operator's to change, as of every organisation.
    let quotas = json!({ "sessions_max": 10, "sessions_per_day_max": 200, "viewers_max": 50 });
    assert_eq!(made["quotas"], quotas, "{made}");
    // A second one is no way around them, and there is an end to how many.
    for _ in 1..10 {
        let (status, made) = browser.call("POST", path, found.clone()).await;
        assert_eq!((status, &made["quotas"]), (201, &quotas), "{made}");
    }
    let (status, problem) = browser.call("POST", path, found.clone()).await;
    assert_eq!((status, &problem["code"]), (429, &json!("quota_organizations")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("founded-organizations-max"), "{problem}");

    let (_, cookie) = Person::newcomer(&harness, false).await;
    let unconfirmed = Browser { harness: &harness, cookie };
    unconfirmed.refused("POST", path, found.clone(), 403, "address_not_confirmed").await;
    // Whoever is in one already, as anything but an owner, founds none.
    let member = Person::new(&harness, DEFAULT_ORG, Role::Member);
    assert_eq!(member.call(&harness, "POST", path, found).await.0, 403);
}
