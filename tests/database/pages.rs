//! Pages of an organisation with 100,000 sessions: the last one costs what the first one does, for whoever sees all of them and for
//! whoever made ten.
//!
//! What is compared is blocks read, which a busy machine does not change, and plans; not time.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt;

/// As many as an organisation may come to have.
const SESSIONS: usize = 100_000;
/// On a page.
const LIMIT: usize = 50;
/// Of the member who has few, evenly spread.
const FEW: usize = 10;
/// Blocks that a page may read: each of its rows may lie in a block of its own, found by way of an index. All rows lie in thousands.
const BLOCKS_MAX: f64 = 4.0 * LIMIT as f64;

/// Sessions with ids that grow, made by the member, a few of them shared; ten of the service account. The triggers are left out: they
/// would record each row.
async fn seed(world: &World) -> Result<()> {
    let (org, member, few) = (world.ours.id, world.ours.member().id, world.ours.in_role("service_account").id);
    let every = SESSIONS / FEW;
    world
        .cluster
        .sql_as(
            "supabase_admin",
            &format!(
                "set session_replication_role = replica;
                 insert into agentapi.user_sessions (id, org_id, created_by, created_at, visibility, labels, agent, command, args, cols, rows,
                   workspace, sandbox, desired, generation, stop_grace_ms, revision, state)
                 select ('01a00000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{org}',
                   (case when n % {every} = 7 then '{few}' else '{member}' end)::uuid, now(),
                   case when n % 5000 = 50 then 'organization' else 'private' end, '{{}}', 'custom', '[]', '[]', 80, 24, '{{}}', '{{}}', 'run',
                   1, 1, 1, 'exited'
                 from generate_series(1, {SESSIONS}) as n;
                 insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state)
                 select id, 1, org_id, created_by, now(), state from agentapi.user_sessions where agent = 'custom' and state = 'exited';
                 analyze agentapi.user_sessions; analyze agentapi.spawns;"
            ),
        )
        .await?;
    Ok(())
}

/// As PostgREST runs a statement in somebody's name.
fn in_the_name_of(user: Uuid, sql: &str) -> String {
    format!("set local role authenticated;\nset local request.jwt.claims = '{}';\n{sql}", jwt::claims(user))
}

async fn plan(world: &World, user: Uuid, sql: &str) -> Result<Value> {
    // As a connection of PostgREST's pool is when somebody gets it: used by others before, often enough for plans to be kept.
    let page = format!("select * from agentapi.sessions_page('{}', {LIMIT});", world.ours.id);
    let used = in_the_name_of(world.ours.owner().id, &format!("\\o /dev/null\n{}{sql};\n\\o\n", page.repeat(8)));
    let explain = in_the_name_of(user, &format!("explain (analyze, buffers, format json, timing off) {sql}"));
    let plan: Value = serde_json::from_str(&world.cluster.sql(&format!("{used}{explain}")).await?)?;
    Ok(plan[0]["Plan"].clone())
}

/// Blocks that a page reads, with its spawns.
async fn blocks(world: &World, org: Uuid, user: Uuid, before: &str) -> Result<f64> {
    let page = format!("select * from agentapi.sessions_page('{org}', {LIMIT}, {before})");
    let plan = plan(world, user, &page).await?;
    let count = |name: &str| plan[name].as_f64().context("a count of blocks");
    Ok(count("Shared Hit Blocks")? + count("Shared Read Blocks")?)
}

/// Whether a plan walks this index, and neither sorts nor reads the whole table.
fn walks(plan: &Value, index: &str) -> bool {
    let below = plan["Plans"].as_array().map_or(&[][..], Vec::as_slice);
    let is_bad =
        plan["Node Type"] == "Sort" || (plan["Node Type"] == "Seq Scan" && plan["Relation Name"] == "user_sessions");
    // What policies ask stands below as plans of its own, and asks no sessions.
    let is_asked = plan["Index Name"] == index || below.iter().any(|plan| walks(plan, index));
    is_asked && !is_bad
}

#[tokio::test]
async fn the_last_page_costs_what_the_first_does() -> Result<()> {
    let world = World::new(Release::System).await?;
    seed(&world).await?;
    let (owner, few) = (world.ours.owner().id, world.ours.in_role("service_account").id);
    let deep = "'01a00000-0000-7000-8000-000000000100'";
    for (name, org, user, before) in [
        ("the owner's first page", world.ours.id, owner, "null"),
        ("the owner's deep page", world.ours.id, owner, deep),
        ("the page of whoever made ten", world.ours.id, few, "null"),
        ("their deep page", world.ours.id, few, deep),
        ("the auditor's deep page", world.ours.id, world.ours.in_role("auditor").id, deep),
        ("the viewer's page", world.ours.id, world.ours.in_role("viewer").id, "null"),
        ("a small organisation's page", world.theirs.id, world.theirs.owner().id, "null"),
        ("the page of a member of it", world.theirs.id, world.theirs.member().id, deep),
    ] {
        let blocks = blocks(&world, org, user, before).await?;
        assert!((5.0..BLOCKS_MAX).contains(&blocks), "{name}: {blocks} blocks");
    }
    // Jobs ask for the few that are not settled, of 100,000 that are.
    let unsettled = format!("select * from agentapi.job_unsettled('{}')", world.ours.host);
    let explain = "explain (analyze, buffers, format json, timing off)";
    let asked = format!("set local role service_role;\n\\o /dev/null\n{unsettled};\n\\o\n{explain} {unsettled}");
    let plan_of_job: Value = serde_json::from_str(&world.cluster.sql(&asked).await?)?;
    let read = plan_of_job[0]["Plan"]["Shared Hit Blocks"].as_f64().context("a count of blocks")?;
    assert!(read < BLOCKS_MAX, "what is not settled: {read} blocks");
    let org = world.ours.id;
    // What the function is for: the same rows by their policy alone.
    let by_policy =
        format!("select * from agentapi.user_sessions where org_id = '{org}' order by id desc limit {LIMIT}");
    let read = plan(&world, few, &by_policy).await?["Shared Hit Blocks"].as_f64().context("a count of blocks")?;
    ensure!(read > 2.0 * BLOCKS_MAX, "the count of blocks tells something: {read}");
    let all = format!(
        "select * from agentapi.user_sessions where org_id = '{org}' and id < {deep} order by id desc limit {LIMIT}"
    );
    let own = format!(
        "select * from agentapi.user_sessions where org_id = '{org}' and created_by = '{few}' and id < {deep} order by id desc limit {LIMIT}"
    );
    let shared = format!(
        "select * from agentapi.user_sessions where org_id = '{org}' and visibility = 'organization' and id < {deep} order by id desc limit {LIMIT}"
    );
    for (user, sql, index) in [
        (world.theirs.owner().id, all.replace(&org.to_string(), &world.theirs.id.to_string()), "user_sessions_by_org"),
        (few, own, "user_sessions_by_maker"),
        (few, shared, "user_sessions_shared"),
    ] {
        let plan = plan(&world, user, &sql).await?;
        assert!(walks(&plan, index), "{index}: {plan:#}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() -> Result<()> {
    let world = World::new(Release::System).await?;
    for _ in 0..5 {
        world.session(&world.ours).await?;
    }
    let org = world.ours.id;
    let page = async |role: &str, more: Value| {
        let mut arguments = json!({ "p_org": org, "p_limit": 3 });
        for (name, value) in more.as_object().into_iter().flatten() {
            arguments[name] = value.clone();
        }
        let answer = world.rest.call(
            &world.ours.in_role(role).caller,
            "sessions_page?select=id,name,spawns(number)",
            &arguments,
        );
        let rows = answer.await?.done()?;
        Ok::<_, anyhow::Error>(rows.as_array().cloned().unwrap_or_default())
    };
    for role in ["owner", "member"] {
        let mut seen: Vec<Uuid> = Vec::new();
        loop {
            let rows = page(role, json!({ "p_before": seen.last() })).await?;
            if rows.is_empty() {
                break;
            }
            assert_eq!(rows[0]["spawns"], json!([{ "number": 1 }]));
            seen.extend(rows.iter().filter_map(|row| row["id"].as_str()?.parse::<Uuid>().ok()));
        }
        assert_eq!(seen.len(), 7, "{role}");
        assert!(seen.is_sorted_by(|newer, older| newer > older), "{role}: {seen:?}");
    }
    assert_eq!(page("viewer", json!({})).await?.len(), 1, "what is shared");
    assert_eq!(page("service_account", json!({})).await?.len(), 1);
    assert_eq!(page("auditor", json!({ "p_limit": 100 })).await?.len(), 7);
    let label = |value: &str| json!({ "p_labels": { "key": value } });
    assert_eq!(page("owner", label("it's \"quoted\"; --")).await?.len(), 3);
    assert_eq!(page("owner", label("it's")).await?.len(), 0);
    assert_eq!(
        page("owner", json!({ "p_host": world.ours.host, "p_state": "pending", "p_agent": "custom" })).await?.len(),
        2
    );
    assert_eq!(page("owner", json!({ "p_state": "exited" })).await?.len(), 0);
    Ok(())
}
