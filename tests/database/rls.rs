//! Row level security alone: functions without any check, owned by the roles that own ours, still reach nothing of another tenant.
//!
//! Each statement is run by somebody who may, and by strangers; the same function owned by `postgres` shows what a forgotten check would
//! have let through.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use agentapi_tests::wait::eventually;

use crate::attackers::{Attacker, forgers, strangers};
use crate::calls::fill;
use crate::rest::{Answer, Caller};
use crate::world::World;
use agentapi_test_postgres::cluster::Release;

/// Functions that run what they are given, with the rights of an owner, and ask nobody.
const UNCHECKED: &str = "
    create function agentapi.NAME(p_sql text) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    declare v_count bigint; begin execute p_sql; get diagnostics v_count = row_count; return v_count; end $$;
    grant execute on function agentapi.NAME to authenticated, service_role;";

async fn unchecked(world: &World) -> Result<()> {
    for (name, owner) in [("as_writer", "agentapi_writer"), ("as_system", "agentapi_system")] {
        let make = UNCHECKED.replace("NAME", name);
        let publish =
            format!("call agentapi_private.publish('agentapi.{name}', '{owner}', 'authenticated, service_role');");
        world.cluster.sql(&format!("{make}{publish}")).await?;
    }
    world.cluster.sql(&format!("{} notify pgrst, 'reload schema'", UNCHECKED.replace("NAME", "as_postgres"))).await?;
    eventually("PostgREST knows the new functions", async || {
        run(world, &world.ours.owner().caller, "as_postgres", "select 1").await.ok().filter(Answer::is_done)
    })
    .await;
    Ok(())
}

async fn run(world: &World, caller: &Caller, function: &str, sql: &str) -> Result<Answer> {
    world.rest.call(caller, function, &json!({ "p_sql": sql })).await
}

/// What a function might do to an organisation: each table and verb that the writing role has. `{new}` is an id, `{actor}` who acts.
fn statements(world: &World) -> Vec<String> {
    let org = world.ours.id;
    let (session, member, viewer) = (world.ours.session, world.ours.member().id, world.ours.in_role("viewer").id);
    let texts = [
        "insert into agentapi.user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace, sandbox, desired,
           generation, stop_grace_ms, revision, state)
         values ('{new}', '{org}', '{actor}', now(), '{}', 'a', '[]', '[]', 1, 1, '{}', '{}', 'run', 1, 1, 1, 'pending')",
        "update agentapi.user_sessions set name = 'taken' where id = '{session}'",
        "update agentapi.user_sessions set name = 'taken'",
        "insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state)
         values ('{session}', 7, '{org}', '{actor}', now(), 'pending')",
        "update agentapi.spawns set state = 'failed' where session_id = '{session}'",
        "update agentapi.organizations set name = 'taken' where id = '{org}'",
        "update agentapi.hosts set revoked_at = now() where org_id = '{org}'",
        "insert into agentapi.host_enrolments (hash, org_id, created_by, name, expires_at)
         values (sha256('{new}'), '{org}', '{actor}', 'h', now() + '1 day')",
        "update agentapi.memberships set role = 'admin' where org_id = '{org}' and user_id = '{viewer}'",
        "insert into agentapi.invitations (id, org_id, created_by, email, role, token_hash, expires_at)
         values ('{new}', '{org}', '{actor}', 'a@b.example', 'admin', sha256('{new}'), now() + '1 day')",
        "update agentapi.invitations set revoked_at = now() where org_id = '{org}' and email = 'somebody@mail.example'",
        "insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash)
         values ('{new}', '{org}', '{actor}', '{actor}', 'key', 'a', sha256('{new}'))",
        "update agentapi.api_keys set revoked_at = now() where org_id = '{org}'",
        "insert into agentapi.idempotency_keys (org_id, created_by, route, key, created_at, request_hash)
         values ('{org}', '{actor}', 'r', '{new}', now(), 'h')",
        "update agentapi.idempotency_keys set body = 'taken' where org_id = '{org}'",
        "insert into agentapi.login_codes (hash, org_id, created_by, created_at, expires_at)
         values (sha256('{new}'), '{org}', '{actor}', now(), now() + '1 day')",
        "insert into agentapi.audit_logs (id, org_id, created_by, actor_kind, created_at, action, channel, entry)
         values ('{new}', '{org}', '{actor}', 'user', now(), 'a', 'b', '{}')",
        "insert into agentapi.audit_personal (audit_id, org_id, created_by, data)
         select id, '{org}', '{actor}', '{}' from (values ('{last}'::uuid)) as v (id)",
        "insert into agentapi.viewers (id, org_id, created_by, session_id, leased_until)
         values ('{new}', '{org}', '{actor}', '{session}', now() + '1 minute')",
        "delete from agentapi.viewers where org_id = '{org}'",
        "delete from agentapi.idempotency_keys where org_id = '{org}'",
        "delete from agentapi.logins where org_id = '{org}'",
        "delete from agentapi.login_codes where org_id = '{org}'",
        "delete from agentapi.host_enrolments where org_id = '{org}'",
        "delete from agentapi.memberships where org_id = '{org}' and user_id = '{member}'",
        "delete from agentapi.user_sessions where id = '{session}'",
    ];
    let fill = |text: &str| {
        text.replace("{org}", &org.to_string())
            .replace("{session}", &session.to_string())
            .replace("{member}", &member.to_string())
            .replace("{viewer}", &viewer.to_string())
    };
    texts.into_iter().map(fill).collect()
}

/// Nothing was written: refused, or no row was there for it.
fn is_harmless(answer: &Answer) -> bool {
    if answer.is_done() { answer.body == json!(0) } else { [400, 401, 403].contains(&answer.status) }
}

/// Writes that nobody may make in anybody's name, whatever their role.
fn never(world: &World) -> Vec<String> {
    let (ours, theirs) = (world.ours.id, world.theirs.id);
    let (session, member, host) = (world.ours.session, world.ours.member().id, world.theirs.host);
    vec![
        format!("update agentapi.organizations set sessions_max = null where id = '{ours}'"),
        format!("update agentapi.organizations set viewers_max = null where id = '{ours}'"),
        format!("update agentapi.viewers set leased_until = now() + '1 day' where org_id = '{ours}'"),
        format!(
            "insert into agentapi.viewers (id, org_id, created_by, session_id, leased_until)
                 values ('{}', '{ours}', '{}', '{session}', now() + '1 day')",
            Uuid::now_v7(),
            world.outsider.id
        ),
        format!("update agentapi.user_sessions set host_id = '{host}' where id = '{session}'"),
        format!("update agentapi.user_sessions set org_id = '{theirs}' where id = '{session}'"),
        format!("update agentapi.memberships set org_id = '{theirs}' where user_id = '{member}'"),
        format!(
            "insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{ours}', '{}', 'viewer', '{{actor}}')",
            world.outsider.id
        ),
        format!("update agentapi.logins set org_id = null where org_id = '{ours}'"),
        format!("update agentapi.logins set org_id = '{theirs}' where org_id = '{ours}'"),
        format!("update agentapi.invitations set role = 'owner' where org_id = '{ours}'"),
        format!("update agentapi.api_keys set hash = sha256('mine') where org_id = '{ours}'"),
        format!("update agentapi.hosts set org_id = '{theirs}' where org_id = '{ours}'"),
        "update agentapi.hosts set name = 'mine' where org_id is null".to_owned(),
        format!("insert into agentapi.host_credentials (hash, host_id) values (sha256('mine'), '{}')", world.ours.host),
        format!("update agentapi.users set email = 'mine@mail.example' where id = '{member}'"),
        format!("update agentapi.audit_logs set entry = '' where org_id = '{ours}'"),
        format!("delete from agentapi.audit_logs where org_id = '{ours}'"),
        format!("delete from agentapi.audit_personal where org_id = '{ours}'"),
        format!(
            "insert into agentapi.audit_logs (id, org_id, created_by, actor_kind, created_at, action, channel, entry)
                 values ('{}', '{ours}', '{member}', 'user', now(), 'a', 'b', '{{}}')",
            Uuid::now_v7()
        ),
        "delete from agentapi_private.audit_queue".to_owned(),
        "insert into agentapi_private.proofs (hash, expires_at) values (sha256('mine'), now() + '1 day')".to_owned(),
        "insert into agentapi_private.capabilities values ('viewer', 'organization.manage')".to_owned(),
    ]
}

#[tokio::test]
async fn a_function_that_forgets_its_check_reaches_no_other_tenant() -> Result<()> {
    let world = World::new(Release::System).await?;
    fill(&world).await?;
    unchecked(&world).await?;
    let owner = world.ours.owner();
    // Records of personal data belong to a record that is there.
    let last = world.cluster.sql("select id from agentapi.audit_logs a where not exists (select from agentapi.audit_personal p where p.audit_id = a.id) limit 1").await?;
    let statements: Vec<String> = statements(&world).into_iter().map(|text| text.replace("{last}", &last)).collect();
    let as_actor = |text: &str, actor: Uuid| {
        text.replace("{actor}", &actor.to_string()).replace("{new}", &Uuid::now_v7().to_string())
    };
    let ours = format!(
        "select md5(string_agg(s::text, '' order by s.id)) from agentapi.user_sessions s where s.org_id = '{}'",
        world.ours.id
    );
    let mut violations = Vec::new();
    for statement in &statements {
        let before = world.fingerprint().await?;
        let (sessions, is_of_all) =
            (world.cluster.sql(&ours).await?, !statement.contains("where") && statement.starts_with("update"));
        for Attacker { caller, id } in strangers(&world).into_iter().chain(forgers(&world)) {
            for function in ["as_writer", "as_system"] {
                let answer = run(&world, &caller, function, &as_actor(statement, id)).await?;
                // Without a condition a statement changes one's own rows, and no others.
                if !is_harmless(&answer) && !is_of_all {
                    violations.push(format!("{} {function}: {statement}: {answer:?}", caller.name));
                }
            }
        }
        if world.cluster.sql(&ours).await? != sessions || (!is_of_all && world.fingerprint().await? != before) {
            violations.push(format!("changed by a stranger: {statement}"));
        }
        let answer = run(&world, &owner.caller, "as_writer", &as_actor(statement, owner.id)).await?;
        if !answer.is_done() || answer.body == json!(0) {
            violations.push(format!("refused to our owner: {statement}: {answer:?}"));
        }
    }
    let before = world.fingerprint().await?;
    for statement in never(&world) {
        for caller in [owner, world.ours.member(), world.theirs.owner()] {
            let answer = run(&world, &caller.caller, "as_writer", &as_actor(&statement, caller.id)).await?;
            if !is_harmless(&answer) {
                violations.push(format!("{}: {statement}: {answer:?}", caller.caller.name));
            }
        }
    }
    assert_eq!(world.fingerprint().await?, before);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

#[tokio::test]
async fn the_owner_is_what_makes_the_difference() -> Result<()> {
    let world = World::new(Release::System).await?;
    unchecked(&world).await?;
    let theirs = &world.theirs.owner().caller;
    let take = format!("update agentapi.user_sessions set name = 'taken' where id = '{}'", world.ours.session);
    assert_eq!(run(&world, theirs, "as_writer", &take).await?.body, json!(0));
    assert_eq!(run(&world, theirs, "as_system", &take).await?.body, json!(0));
    // The key of the service role is what the roles of jobs ask for.
    assert_eq!(run(&world, &world.service, "as_system", &take).await?.body, json!(1));
    assert_eq!(
        run(&world, theirs, "as_postgres", &take).await?.body,
        json!(1),
        "what a function of postgres would have done"
    );
    let read = "select count(*) as n into temp seen from agentapi.user_sessions";
    assert_ne!(run(&world, theirs, "as_writer", read).await?.body, Value::Null, "temporary tables prove nothing here");
    Ok(())
}
