//! Who must not get through: people of another organisation and of none, and tokens that are not good.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::Caller;
use crate::world::{PROOF, World};
use agentapi_test_postgres::jwt;

/// Somebody, with the id that they would write into an audit record.
#[derive(Debug, Clone)]
pub(crate) struct Attacker {
    pub(crate) caller: Caller,
    pub(crate) id: Uuid,
}

fn without(mut claims: Value, name: &str) -> Value {
    if let Some(claims) = claims.as_object_mut() {
        claims.remove(name);
    }
    claims
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// Good tokens of people who are no members of `world.ours`.
pub(crate) fn strangers(world: &World) -> Vec<Attacker> {
    let theirs = world.theirs.owner();
    vec![
        Attacker { caller: Caller { name: "another tenant", ..theirs.caller.clone() }, id: theirs.id },
        Attacker { caller: Caller { name: "of no tenant", ..world.outsider.caller.clone() }, id: world.outsider.id },
    ]
}

/// Tokens that say they are of our owner, and are not good; and none at all. All of them with the proof, so that it is not what refuses.
pub(crate) fn forgers(world: &World) -> Vec<Attacker> {
    let id = world.ours.owner().id;
    let good = || jwt::claims(id);
    let forged = |name, token| Caller { name, token: Some(token), proof: Some(PROOF.to_owned()) };
    let claiming = |name, claims: &Value| forged(name, jwt::signed(claims, jwt::SECRET));
    let callers = [
        Caller::anon().proven(PROOF),
        claiming("expired", &with(good(), "exp", json!(jwt::now() - 60))),
        claiming("not yet good", &with(good(), "nbf", json!(jwt::now() + 600))),
        claiming("of another audience", &with(good(), "aud", json!("elsewhere"))),
        // These two are taken by PostgREST.
        claiming("without expiry", &without(good(), "exp")),
        claiming("without audience", &without(good(), "aud")),
        claiming("with no audience in its list", &with(good(), "aud", json!([]))),
        claiming("without role", &without(good(), "role")),
        claiming("of the role postgres", &with(good(), "role", json!("postgres"))),
        claiming("of the role that owns functions", &with(good(), "role", json!("agentapi_writer"))),
        claiming("without subject", &without(good(), "sub")),
        claiming("whose subject is no id", &with(good(), "sub", json!(format!("{id}' or true --")))),
        forged("signed by another", jwt::signed(&good(), "the-secret-of-another-project-of-this-world")),
        forged("signed by nobody", jwt::unsigned(&good())),
        forged("no token", "sb_secret_something".to_owned()),
    ];
    callers.into_iter().map(|caller| Attacker { caller, id }).collect()
}
