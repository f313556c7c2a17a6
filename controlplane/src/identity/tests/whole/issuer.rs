//! People of an OpenID Connect issuer, without a project.

use agentapi_shared::InvitationId;
use agentapi_test_postgres::jwt;
use serde_json::{Value, json};

use super::{Dir, Running, Signer, oidc};
use crate::auth::Secret;
use crate::capability::Role;
use crate::domain::audit;
use crate::store::records::{DEFAULT_ORG, LOCAL_ADMIN, NewInvitation, TenantContext};
use crate::{clock, config};

/// An invitation to somebody's address, by the owner whom the embedded store has from the start.
async fn invited_by_admin(server: &Running, who: &str) -> Secret {
    let token = Secret::generate("");
    let new = NewInvitation {
        id: InvitationId::generate(),
        email: format!("{who}@example.com"),
        role: Role::Member,
        token_hash: token.hash(),
        expires_at: clock::now() + time::Duration::HOUR,
    };
    let owner = TenantContext { org: DEFAULT_ORG, user: LOCAL_ADMIN, role: Role::Owner, token: None };
    let entry = audit::of_account("api", "test");
    server.plane.store.create_invitation(owner, new, entry).await.unwrap();
    token
}

#[tokio::test]
async fn people_of_an_issuer_log_in_with_a_browser() {
    let dir = Dir::new();
    let issuer = oidc::Issuer::start(json!({})).await;
    let secret = dir.path("secret");
    std::fs::write(&secret, format!("{}\n", oidc::SECRET_CLIENT.1)).unwrap();
    let server = Running::start(&dir, None, |config| {
        // Where the issuer has it that browsers come back to; here they are led to where the test's server is.
        config.public_url = oidc::BACK.strip_suffix(crate::api::BACK).map(|base| base.parse().unwrap());
        config.oidc = Some(config::Oidc {
            issuer: issuer.url.clone(),
            client_id: oidc::SECRET_CLIENT.0.to_owned(),
            client_secret_file: Some(secret.clone()),
        });
    })
    .await;
    let log_in = async |who: &str| {
        let begun = server.get("/api/v1/login/issuer", ("", "")).await;
        assert_eq!(begun.status, 303, "{begun:?}");
        assert!(begun.cookies[0].contains("HttpOnly; SameSite=Lax"), "{begun:?}");
        let back = oidc::visit(begun.location.as_deref().unwrap(), who).await;
        let mut url = reqwest::Url::parse("http://x").unwrap();
        for (name, value) in [("code", &back.code), ("state", &back.state), ("iss", &back.iss)] {
            url.query_pairs_mut().append_pair(name, value.as_deref().unwrap());
        }
        (begun.cookie(), format!("{}?{}", crate::api::BACK, url.query().unwrap()))
    };

    // They are invited by address; who has it, the issuer says when they log in, and it does not of Bob's.
    let mut ada = Value::Null;
    for (who, refused) in
        [("bob", Some("address_not_confirmed")), ("nemo", Some("address_not_confirmed")), ("ada", None)]
    {
        let token = invited_by_admin(&server, who).await;
        let (kept, back) = log_in(who).await;
        let nowhere = server.get(&back, ("cookie", &kept)).await;
        assert_eq!((nowhere.status.as_u16(), nowhere.location.as_deref()), (303, Some("/")), "{nowhere:?}");
        let cookie = nowhere.cookie();
        server.get("/api/v1/me", ("cookie", &cookie)).await.refused(403, "no_organization");
        let body = json!({ "organization_id": DEFAULT_ORG, "token": token.expose() });
        let accepted = server.ask_as_page("POST", "/api/v1/invitations/accept", &cookie, Some(body)).await;
        let me = server.get("/api/v1/me", ("cookie", &cookie)).await;
        match refused {
            Some(code) => accepted.refused(403, code),
            None => assert_eq!((accepted.status.as_u16(), &me.body["role"]), (204, &json!("member")), "{accepted:?}"),
        }
        ada = me.body["user_id"].clone();
    }

    let (kept, back) = log_in("ada").await;
    let (other, _) = log_in("bob").await;
    server.get(&back, ("", "")).await.refused(400, "login_not_begun");
    server.get(&back, ("cookie", &other)).await.refused(400, "login_not_begun");
    let done = server.get(&back, ("cookie", &kept)).await;
    assert_eq!((done.status.as_u16(), done.location.as_deref()), (303, Some("/")), "{done:?}");
    let me = server.get("/api/v1/me", ("cookie", &done.cookie())).await;
    assert_eq!((me.status.as_u16(), &me.body["user_id"], &me.body["role"]), (200, &ada, &json!("member")), "{me:?}");
    // Once.
    server.get(&back, ("cookie", &kept)).await.refused(403, "issuer_refused");
    server
        .get("/api/v1/login/issuer/callback?error=access_denied", ("cookie", &kept))
        .await
        .refused(400, "login_not_begun");
    // No password is taken where nobody judges it, and no token of a project.
    server.log_in(json!({ "email": "a", "password": "b" })).await.refused(404, "login_not_offered");
    let jwt = format!("Bearer {}", Signer::secret(jwt::SECRET).token(&json!({ "sub": ada })));
    server.get("/api/v1/me", ("authorization", &jwt)).await.refused(401, "unauthorized");
    server.end().await;
}
