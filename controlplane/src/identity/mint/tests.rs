//! Tokens of our own, verified as strictly as everybody's, with the keys that we publish.

use std::fs;

use super::*;
use crate::identity::fetch;
use crate::identity::project::ProjectKeys;
use crate::identity::tests::Dir;
use crate::identity::tests::issuer::Issuer;
use crate::identity::verify::{TokenError, Verifier};

const OURS: &str = "https://agents.example";

/// Whoever accepts us as an issuer.
async fn project(keys: &Value) -> (Issuer, Verifier) {
    let keys: Vec<&Value> = keys["keys"].as_array().unwrap().iter().collect();
    let issuer = Issuer::start(&keys).await;
    let project = ProjectKeys::open(|name| match name {
        "SUPABASE_URL" => Some(issuer.url()),
        "SUPABASE_JWT_ISSUER" => Some(OURS.to_owned()),
        "SUPABASE_ANON_KEY" => Some("sb_publishable_a".to_owned()),
        "SUPABASE_SERVICE_ROLE_KEY" => Some("sb_secret_a".to_owned()),
        _ => None,
    });
    let verifier = Verifier::start(project.unwrap().unwrap(), fetch::client().unwrap()).await.unwrap().unwrap();
    (issuer, verifier)
}

#[tokio::test]
async fn our_tokens_are_good_wherever_our_keys_are_known() {
    let dir = Dir::new();
    let minter = Minter::open(&dir.path("signing.keys"), &format!("{OURS}/")).unwrap();
    let (_issuer, verifier) = project(&minter.key_set()).await;
    let user = UserId::generate();
    let token = minter.token(user).unwrap();
    let caller = verifier.verify(token.expose()).await.unwrap();
    assert_eq!((caller.user, caller.token), (user, token.clone()));
    let left = caller.expires_at - clock::now();
    assert!(left > LIFETIME - Duration::seconds(5) && left <= LIFETIME, "{left}");
    // Kept for the user, and nobody else's.
    assert_eq!(minter.token(user).unwrap(), token);
    assert_ne!(minter.token(UserId::generate()).unwrap(), token);

    // Another installation's keys, the same words.
    let elsewhere = Dir::new();
    let foreign = Minter::open(&elsewhere.path("signing.keys"), OURS).unwrap().token(user).unwrap();
    assert!(matches!(verifier.verify(foreign.expose()).await, Err(TokenError::Key)));

    // Another replica with the same file, and the next start: the same keys.
    let again = Minter::open(&dir.path("signing.keys"), OURS).unwrap();
    assert_eq!(again.key_set(), minter.key_set());
    verifier.verify(again.token(user).unwrap().expose()).await.unwrap();

    let text = fs::read_to_string(dir.path("signing.keys")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    let shown = format!("{minter:?}{}{}", minter.key_set(), minter.description());
    assert!(!shown.contains(stored["keys"][0]["pkcs8"].as_str().unwrap()));
    assert!(!shown.contains("\"d\""), "{shown}");
    assert_eq!(minter.description()["jwks_uri"], "https://agents.example/.well-known/jwks.json");
}

#[tokio::test]
async fn a_token_that_is_nearly_over_is_made_anew() {
    let dir = Dir::new();
    let minter = Minter::open(&dir.path("signing.keys"), OURS).unwrap();
    let user = UserId::generate();
    let first = minter.token(user).unwrap();
    let age = |by: Duration| {
        for (_, until) in minter.kept.lock().unwrap().values_mut() {
            *until -= by;
        }
    };
    age(LIFETIME - RENEWED_BEFORE - Duration::seconds(5));
    assert_eq!(minter.token(user).unwrap(), first);
    age(Duration::seconds(6));
    // Signatures of this kind are never the same twice.
    assert_ne!(minter.token(user).unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_announced_before_it_signs() {
    let dir = Dir::new();
    let path = dir.path("signing.keys");
    let minter = Minter::open(&path, OURS).unwrap();
    let kids = |set: &Value| -> Vec<String> {
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let kid = |ring: &KeyRing, at| kids(&json!({ "keys": [ring.signer(at).published_alone()] })).remove(0);
    let old = kids(&minter.key_set()).remove(0);

    Minter::rotate(&path, Rotation::Announced).unwrap();
    tokio::time::advance(LOOK_INTERVAL).await;
    let both = kids(&minter.key_set());
    assert!(both.len() == 2 && both[0] == old, "{both:?}");
    let (ring, now) = (minter.ring(), clock::now());
    assert_eq!(kid(&ring, now), old);
    assert_eq!(kid(&ring, now + ANNOUNCED_FOR + Duration::seconds(1)), both[1]);
    // A third would push out one that tokens are still signed with.
    assert!(matches!(Minter::rotate(&path, Rotation::Announced), Err(MintError::Announced { .. })));
    // Later there is a third, and the first is gone.
    let later = clock::now() + ANNOUNCED_FOR + Duration::minutes(1);
    KeyRing::read(&path).unwrap().rotate(&path, Rotation::Announced, later).unwrap();
    tokio::time::advance(LOOK_INTERVAL).await;
    let next = kids(&minter.key_set());
    assert!(next.len() == 2 && next[0] == both[1] && !next.contains(&old), "{next:?}");

    // A key that leaked goes at once.
    Minter::rotate(&path, Rotation::AtOnce).unwrap();
    tokio::time::advance(LOOK_INTERVAL).await;
    let last = kids(&minter.key_set());
    assert!(last.len() == 1 && !next.contains(&last[0]), "{last:?}");

    // A file that is spoilt changes nothing while we run, and is no start.
    fs::write(&path, r#"{"keys":[]}"#).unwrap();
    tokio::time::advance(LOOK_INTERVAL).await;
    assert_eq!(kids(&minter.key_set()), last);
    assert!(matches!(Minter::open(&path, OURS), Err(MintError::Key { .. })));
}

#[test]
fn more_users_than_are_kept_are_no_more_memory() {
    let dir = Dir::new();
    let minter = Minter::open(&dir.path("signing.keys"), OURS).unwrap();
    let token = minter.token(UserId::generate()).unwrap();
    let until = clock::now() + LIFETIME;
    {
        let mut kept = minter.kept.lock().unwrap();
        while kept.len() < KEPT_MAX {
            kept.insert(UserId::generate(), (token.clone(), until));
        }
    }
    minter.token(UserId::generate()).unwrap();
    assert_eq!(minter.kept.lock().unwrap().len(), 1);
}
