//! Every function at PostgREST directly: by strangers, by forged tokens, without the proof, with a wrong and with an old one, by each role.
//! The same call, made by who may make it, is done.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;
use uuid::Uuid;

use crate::attackers::{Attacker, forgers, strangers};
use crate::calls::{Call, Rightful, calls, fill};
use crate::capabilities::{Capabilities, told};
use crate::rest::{Caller, audit};
use crate::world::{PROOF, ROLES, World, create_session, new_session};
use agentapi_test_postgres::cluster::{Release, root};
use agentapi_test_postgres::jwt::sha256_hex;

/// Foundings are of no organisation that exists, and have a test of their own.
pub(crate) const FOUNDING: &str = "create_organization";
/// What brings the proof cannot ask for it.
pub(crate) const BRINGS_PROOF: &str = "register_proof";

/// Who may make a call.
pub(crate) fn rightful(world: &World, call: &Call) -> Attacker {
    let person = if call.rightful == Rightful::Outsider { &world.outsider } else { world.ours.owner() };
    let caller = if call.rightful == Rightful::Service { world.service.clone() } else { person.caller.clone() };
    Attacker { caller, id: person.id }
}

/// Who must not be able to make a call.
fn attackers(world: &World, call: &Call) -> Vec<Attacker> {
    let right = rightful(world, call);
    let mut all: Vec<Attacker> = strangers(world).into_iter().chain(forgers(world)).collect();
    match call.rightful {
        Rightful::Outsider => all.retain(|attacker| attacker.id != world.outsider.id),
        Rightful::Service => {
            all.push(Attacker { id: world.ours.owner().id, caller: world.ours.owner().caller.clone() })
        }
        Rightful::With(_) => {
            all.push(Attacker { caller: Caller { name: "service", ..world.service.clone() }, id: right.id })
        }
        Rightful::Reader => {}
    }
    // The jobs that only read need no proof: the key of the service role reads what they give.
    if call.rightful != Rightful::Reader && !["job_host", "job_unsettled", "job_schema_version"].contains(&call.name) {
        for (name, proof) in [
            ("without proof", None),
            ("with a wrong proof", Some("wrong".to_owned())),
            ("with an empty proof", Some(String::new())),
        ] {
            all.push(Attacker { caller: Caller { name, proof, ..right.caller.clone() }, id: right.id });
        }
    }
    all
}

async fn every_function_refuses_whoever_may_not(release: Release) -> Result<()> {
    let world = World::new(release).await?;
    let things = fill(&world).await?;
    let calls = calls(&world, &things).await?;
    every_function_has_its_row(&world, &calls).await?;
    let mut violations = Vec::new();
    for call in &calls {
        let before = world.fingerprint().await?;
        for attacker in attackers(&world, call) {
            let answer = world.rest.call(&attacker.caller, call.name, &call.arguments(attacker.id)).await?;
            let is_refused = match call.rightful {
                Rightful::Reader => answer.rows() == 0,
                _ => [401, 403, 404].contains(&answer.status),
            };
            // What belongs to another organisation does not exist.
            let is_stranger = matches!(call.rightful, Rightful::With(_))
                && ["another tenant", "of no tenant"].contains(&attacker.caller.name);
            if !is_refused || (is_stranger && answer.status != 404) {
                violations.push(format!("{} by {}: {answer:?}", call.name, attacker.caller.name));
            }
        }
        if world.fingerprint().await? != before {
            violations.push(format!("{} wrote something", call.name));
        }
        let right = rightful(&world, call);
        let answer = world.rest.call(&right.caller, call.name, &call.arguments(right.id)).await?;
        let is_empty = call.rightful == Rightful::Reader && answer.rows() == 0;
        if !answer.is_done() || is_empty {
            violations.push(format!("{} is refused to {}: {answer:?}", call.name, right.caller.name));
        }
    }
    assert!(violations.is_empty(), "{release:?}:\n{}", violations.join("\n"));
    Ok(())
}

async fn every_function_has_its_row(world: &World, calls: &[Call]) -> Result<()> {
    let guide = std::fs::read_to_string(root().join("docs/supabase.md"))?;
    let exposed =
        world.cluster.sql("select proname from pg_proc where pronamespace = 'agentapi'::regnamespace").await?;
    let untold: Vec<&str> = exposed.lines().filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert!(untold.is_empty(), "not in docs/supabase.md: {untold:?}");
    let exposed: BTreeSet<&str> = exposed.lines().filter(|name| ![FOUNDING, BRINGS_PROOF].contains(name)).collect();
    let called: BTreeSet<&str> = calls.iter().map(|call| call.name).collect();
    ensure!(exposed.len() > 30, "the functions are found: {exposed:?}");
    assert_eq!(exposed, called, "every function has its call");
    Ok(())
}

#[tokio::test]
async fn functions_refuse_whoever_may_not_on_the_systems() -> Result<()> {
    every_function_refuses_whoever_may_not(Release::System).await
}

#[tokio::test]
async fn functions_refuse_whoever_may_not_on_17() -> Result<()> {
    every_function_refuses_whoever_may_not(Release::V17).await
}

#[tokio::test]
async fn an_organisation_is_founded_by_somebody_with_the_proof_and_once() -> Result<()> {
    let world = World::new(Release::System).await?;
    let found_by = async |caller: &Caller, org: Uuid, actor: Uuid, by: Option<&str>| {
        let record = audit(org, "user", &actor.to_string(), "organization.create");
        let mut arguments = json!({ "p_org": org, "p_name": "new", "p_audit": record });
        if let Some(by) = by {
            arguments["p_by"] = json!(by);
        }
        world.rest.call(caller, FOUNDING, &arguments).await
    };
    let found = async |caller: &Caller, org, actor| found_by(caller, org, actor, Some("sign_up")).await;
    let (outsider, before) = (&world.outsider, world.fingerprint().await?);
    let mut refused = forgers(&world);
    for (name, proof) in [("without proof", None), ("with a wrong proof", Some("wrong".to_owned()))] {
        refused.push(Attacker { caller: Caller { name, proof, ..outsider.caller.clone() }, id: outsider.id });
    }
    refused.push(Attacker { caller: Caller { name: "service", ..world.service.clone() }, id: outsider.id });
    // A token of the project whose user never logged in here.
    let stranger = Uuid::now_v7();
    refused.push(Attacker { caller: Caller::person("unknown", stranger).proven(PROOF), id: stranger });
    for Attacker { caller, id } in refused {
        let answer = found(&caller, Uuid::now_v7(), id).await?;
        assert!([401, 403].contains(&answer.status), "{}: {answer:?}", caller.name);
    }
    // One that exists is not founded again, by its founder or by others.
    for (person, by) in
        [(outsider, "sign_up"), (outsider, "operator"), (world.theirs.owner(), "owner"), (world.ours.owner(), "owner")]
    {
        let answer = found_by(&person.caller, world.ours.id, person.id, Some(by)).await?;
        assert_eq!((answer.status, answer.code()), (409, "23505"), "{answer:?}");
    }
    // Each right is for those who have it: owners, and whoever is in no organisation. What is not said is the narrowest.
    let (member, admin) = (world.theirs.member(), world.theirs.in_role("admin"));
    for (person, by) in [
        (outsider, Some("owner")),
        (outsider, None),
        (outsider, Some("platform")),
        (member, Some("owner")),
        (member, Some("sign_up")),
        (admin, Some("owner")),
        (admin, None),
        (world.theirs.owner(), Some("sign_up")),
    ] {
        let answer = found_by(&person.caller, Uuid::now_v7(), person.id, by).await?;
        assert_eq!((answer.status, answer.word()), (403, "forbidden"), "{by:?}: {answer:?}");
    }
    assert_eq!(world.fingerprint().await?, before);
    let org = Uuid::now_v7();
    found(&outsider.caller, org, outsider.id).await?.done()?;
    let members = world.rest.get(&outsider.caller, &format!("memberships?org_id=eq.{org}&select=role,user_id")).await?;
    assert_eq!(members.done()?, json!([{ "role": "owner", "user_id": outsider.id }]));
    // Whoever signed up owns one, and founds more as an owner.
    assert_eq!(found(&outsider.caller, Uuid::now_v7(), outsider.id).await?.status, 403);
    found_by(&outsider.caller, Uuid::now_v7(), outsider.id, None).await?.done()?;
    Ok(())
}

#[tokio::test]
async fn each_role_may_call_what_its_capabilities_say() -> Result<()> {
    let world = World::new(Release::System).await?;
    let things = fill(&world).await?;
    let capabilities: Capabilities = told()?;
    let mut violations = Vec::new();
    for call in calls(&world, &things).await? {
        let Rightful::With(capability) = call.rightful else { continue };
        // Those who may not come first; of those who may, the owner is enough: the call can be made once.
        for role in ROLES.iter().rev().filter(|role| !capabilities[capability].contains(**role)) {
            // A session of one's own may be managed with less.
            if call.name.ends_with("_session") && *role == "member" {
                continue;
            }
            let person = world.ours.in_role(role);
            let answer = world.rest.call(&person.caller, call.name, &call.arguments(person.id)).await?;
            let is_hidden = call.name == "revoke_api_key" && answer.status == 404;
            if answer.status != 403 && !is_hidden {
                violations.push(format!("{} by {role}: {answer:?}", call.name));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    // And those who may, on a call that each of them can make.
    for role in ROLES {
        let person = world.ours.in_role(role);
        let made = create_session(world.ours.id, person.id, &new_session(Uuid::now_v7()));
        let answer = world.rest.call(&person.caller, "create_session", &made).await?;
        assert_eq!(answer.is_done(), capabilities["session.create"].contains(role), "{role}: {answer:?}");
        let revision = world
            .cluster
            .sql(&format!("select revision from agentapi.organizations where id = '{}'", world.ours.id))
            .await?;
        let update = json!({ "p_org": world.ours.id, "p_revision": revision.parse::<u64>()?, "p_name": role, "p_settings": null,
            "p_audit": audit(world.ours.id, "user", &person.id.to_string(), "organization.update") });
        let answer = world.rest.call(&person.caller, "update_organization", &update).await?;
        assert_eq!(answer.is_done(), capabilities["organization.manage"].contains(role), "{role}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn foreign_ids_do_not_exist_in_ones_own_organisation() -> Result<()> {
    let world = World::new(Release::System).await?;
    let things = fill(&world).await?;
    let ours = format!(
        "select md5(string_agg(t::text, ' ' order by t::text)) from (
           select s::text from agentapi.user_sessions s where org_id = '{0}' union all select m::text from agentapi.memberships m where org_id = '{0}'
           union all select i::text from agentapi.invitations i where org_id = '{0}' union all select k::text from agentapi.api_keys k where org_id = '{0}'
           union all select l::text from agentapi.logins l where org_id = '{0}' union all select k::text from agentapi.idempotency_keys k where org_id = '{0}'
           union all select a::text from agentapi.audit_logs a where org_id = '{0}') as t",
        world.ours.id
    );
    let calls = calls(&world, &things).await?;
    let before = world.cluster.sql(&ours).await?;
    let theirs = world.theirs.owner();
    for call in calls.iter().filter(|call| matches!(call.rightful, Rightful::With(_))) {
        let mut arguments = call.arguments(theirs.id);
        arguments["p_org"] = json!(world.theirs.id);
        if arguments.get("p_audit").is_some() {
            let action = if matches!(call.name, "create_session" | "make_session") { "session.create" } else { "try" };
            arguments["p_audit"] = audit(world.theirs.id, "user", &theirs.id.to_string(), action);
        }
        let answer = world.rest.call(&theirs.caller, call.name, &arguments).await?;
        let names_something_of_ours = [
            "update_session",
            "attach_viewer",
            "set_member_role",
            "remove_member",
            "revoke_invitation",
            "revoke_api_key",
            "revoke_host",
        ]
        .contains(&call.name);
        assert_eq!(answer.status == 404, names_something_of_ours, "{}: {answer:?}", call.name);
    }
    assert_eq!(world.cluster.sql(&ours).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_proof_can_be_changed_and_an_old_one_ends() -> Result<()> {
    let world = World::new(Release::System).await?;
    let member = world.ours.member();
    let create = async |secret: &str| {
        let caller = member.caller.proven(secret);
        world
            .rest
            .call(&caller, "create_session", &create_session(world.ours.id, member.id, &new_session(Uuid::now_v7())))
            .await
    };
    let register = async |caller: Caller, secret: &str, others_end_s: i32| {
        let arguments = json!({ "p_hash": sha256_hex(secret), "p_others_end_s": others_end_s });
        world.rest.call(&caller, "register_proof", &arguments).await
    };
    assert_eq!(create("second").await?.word(), "proof");
    for caller in [member.caller.clone(), world.ours.owner().caller.clone(), Caller::anon().proven(PROOF)] {
        let refused = register(caller, "second", 0).await?;
        assert_eq!(refused.code(), "42501", "{refused:?}");
    }
    // One after the other: for a while both are good.
    register(Caller::service(), "second", 600).await?.done()?;
    create(PROOF).await?.done()?;
    create("second").await?.done()?;
    register(Caller::service(), "third", 0).await?.done()?;
    create("third").await?.done()?;
    for old in [PROOF, "second"] {
        let refused = create(old).await?;
        assert_eq!((refused.status, refused.word()), (403, "proof"), "{old}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_is_disabled_or_leaves_has_nothing_at_once() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, member) = (world.ours.id, world.ours.member());
    let path = format!("user_sessions?org_id=eq.{org}&select=id");
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 2);
    let disable = |is: bool| json!({ "p_user": member.id, "p_disabled": is, "p_force": false, "p_audit": audit(Uuid::nil(), "system", "job", "user.disable") });
    world.rest.call(&world.service, "job_disable_user", &disable(true)).await?.done()?;
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 0);
    world.rest.call(&world.service, "job_disable_user", &disable(false)).await?.done()?;
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 2);
    let leave = json!({ "p_org": org, "p_user": member.id, "p_audit": audit(org, "user", &member.id.to_string(), "member.leave") });
    world.rest.call(&member.caller, "remove_member", &leave).await?.done()?;
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 0);
    let again = world.rest.call(&member.caller, "remove_member", &leave).await?;
    assert_eq!(again.status, 404, "{again:?}");
    Ok(())
}
