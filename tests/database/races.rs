//! What holds when many come at once: quotas, idempotency keys, revisions, login codes, the last owner.

use agentapi_tests::wait::eventually;
use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::calls::{attach, fill};
use crate::rest::{Answer, audit};
use crate::world::{PROOF, Person, World, create_session, new_session};
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt::{self, sha256_hex};

async fn set_quotas(world: &World, running: Option<u32>, a_day: Option<u32>) -> Result<()> {
    let quotas = json!({ "p_org": world.ours.id, "p_sessions_max": running, "p_sessions_per_day_max": a_day, "p_viewers_max": null,
        "p_audit": audit(world.ours.id, "system", "quotas", "organization.quotas") });
    world.rest.call(&world.service, "job_set_quotas", &quotas).await?.done()?;
    Ok(())
}

async fn create(world: &World, by: &Person) -> Result<Answer> {
    world
        .rest
        .call(&by.caller, "create_session", &create_session(world.ours.id, by.id, &new_session(Uuid::now_v7())))
        .await
}

/// Many creates at once, by several people; how many were done. Each other one must have been refused with this word.
async fn creates(world: &World, count: usize, refusal: &str) -> Result<usize> {
    let people = ["member", "admin", "owner"].map(|role| world.ours.in_role(role));
    let answers = join_all((0..count).map(|at| create(world, people[at % people.len()]))).await;
    let mut done = 0;
    for answer in answers {
        let answer = answer?;
        if answer.is_done() {
            done += 1;
        } else {
            assert_eq!((answer.status, answer.word()), (429, refusal), "{answer:?}");
        }
    }
    Ok(done)
}

async fn living(world: &World) -> Result<usize> {
    let text =
        format!("select count(*) from agentapi.user_sessions where org_id = '{}' and state = 'pending'", world.ours.id);
    Ok(world.cluster.sql(&text).await?.parse()?)
}

#[tokio::test]
async fn quotas_are_exact_under_races() -> Result<()> {
    let world = World::new(Release::System).await?;
    // Near the limit from the start: two sessions are there.
    set_quotas(&world, Some(7), None).await?;
    assert_eq!(creates(&world, 40, "quota_sessions").await?, 5);
    assert_eq!(living(&world).await?, 7);
    // Far from it at first, so that creates pass side by side, and beyond it in the end.
    set_quotas(&world, Some(130), None).await?;
    assert_eq!(creates(&world, 200, "quota_sessions").await?, 123);
    assert_eq!(living(&world).await?, 130);
    // Lower than what runs: nobody gets in, and nothing is taken away.
    set_quotas(&world, Some(3), None).await?;
    assert_eq!(creates(&world, 5, "quota_sessions").await?, 0);
    // What one organisation has used up is nothing to another.
    let theirs = world.session(&world.theirs).await;
    assert!(theirs.is_ok(), "{theirs:?}");
    Ok(())
}

#[tokio::test]
async fn as_many_viewers_attach_at_once_as_may() -> Result<()> {
    let world = World::new(Release::System).await?;
    let org = &world.ours;
    let quotas = json!({ "p_org": org.id, "p_sessions_max": null, "p_sessions_per_day_max": null, "p_viewers_max": 7,
        "p_audit": audit(org.id, "system", "quotas", "organization.quotas") });
    world.rest.call(&world.service, "job_set_quotas", &quotas).await?.done()?;
    let people = ["member", "admin", "viewer", "owner"].map(|role| org.in_role(role));
    let attempt = async |viewer: Uuid, by: &Person, replaces: Option<Uuid>| {
        let mut arguments = attach(org, viewer, by.id);
        arguments["p_replaces"] = json!(replaces);
        world.rest.call(&by.caller, "attach_viewer", &arguments).await
    };
    let all: Vec<(Uuid, &Person)> = (0..60).map(|at| (Uuid::now_v7(), people[at % people.len()])).collect();
    let answers = join_all(all.iter().map(|(viewer, by)| attempt(*viewer, by, None))).await;
    let mut there = Vec::new();
    for (one, answer) in all.iter().zip(answers) {
        let answer = answer?;
        if answer.is_done() {
            there.push(*one);
        } else {
            assert_eq!((answer.status, answer.word()), (429, "quota_viewers"), "{answer:?}");
        }
    }
    let live = "select count(*) from agentapi.viewers where leased_until > now()";
    assert_eq!((there.len(), world.cluster.sql(live).await?.as_str()), (7, "7"));
    // Each comes again in its own place, several times at once: one does, and nobody else gets in.
    let again = there.iter().flat_map(|one| [one; 3]).map(|(viewer, by)| attempt(Uuid::now_v7(), by, Some(*viewer)));
    let mut done = 0;
    for answer in join_all(again).await {
        let answer = answer?;
        done += usize::from(answer.is_done());
        assert!(answer.body == json!(true) || answer.word() == "quota_viewers", "{answer:?}");
    }
    assert_eq!((done, world.cluster.sql(live).await?.as_str()), (7, "7"));
    // Those of a control plane that died are over by themselves, and somebody else's place is nobody's to take.
    let taken = attempt(Uuid::now_v7(), org.in_role("service_account"), Some(there[0].0)).await?;
    assert_eq!(taken.word(), "quota_viewers");
    world.cluster.sql("update agentapi.viewers set leased_until = now() - interval '1 second'").await?;
    assert!(attempt(Uuid::now_v7(), people[0], None).await?.is_done());
    Ok(())
}

/// As PostgREST would run a create of the member, in a transaction that stays open.
fn open_create(world: &World) -> String {
    let member = world.ours.member().id;
    let arguments = create_session(world.ours.id, member, &new_session(Uuid::now_v7()));
    let literal = |name: &str| format!("'{}'", arguments[name].to_string().replace('\'', "''"));
    format!(
        "begin; set local role authenticated; set local request.jwt.claims = '{}'; set local request.headers = '{}';
         select agentapi.create_session('{}', {}, null, {});\n",
        jwt::claims(member),
        json!({ "x-agentapi-proof": PROOF }),
        world.ours.id,
        literal("p_session"),
        literal("p_audit")
    )
}

#[tokio::test]
async fn a_create_that_saw_room_is_waited_for_by_those_that_see_little() -> Result<()> {
    let world = World::new(Release::System).await?;
    let connections: u32 = world.cluster.sql("show max_connections").await?.parse()?;
    // Two are there: for the next one the limit is just far enough not to wait for anybody.
    let limit = connections + 2;
    set_quotas(&world, Some(limit), None).await?;
    let mut slow = world.cluster.connection()?;
    let mut input = slow.stdin.take().context("standard input")?;
    input.write_all(open_create(&world).as_bytes()).await?;
    let is_open = "select pid from pg_stat_activity where datname = current_database() and application_name = 'psql' and state = 'idle in transaction'";
    let pid = eventually("the create is made and not committed", async || {
        world.cluster.sql(is_open).await.ok().filter(|pid| !pid.is_empty())
    })
    .await;
    let many = usize::try_from(limit)? + 10;
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let creates = async {
        let done = creates(&world, many, "quota_sessions").await;
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        done
    };
    let commit = async {
        let waits = format!("select count(*) from pg_stat_activity where {pid} = any (pg_blocking_pids(pid))");
        eventually("somebody waits for it, or nobody had to", async || {
            let waiting = world.cluster.sql(&waits).await.ok()?;
            (waiting != "0" || is_over.load(std::sync::atomic::Ordering::Relaxed)).then_some(())
        })
        .await;
        input.write_all(b"commit;\n").await?;
        drop(input);
        slow.wait().await
    };
    let (done, committed) = tokio::join!(creates, commit);
    assert!(committed?.success());
    let (done, living) = (done?, living(&world).await?);
    assert_eq!((u32::try_from(living)?, done + 3), (limit, living));
    Ok(())
}

#[tokio::test]
async fn a_day_counts_what_was_purged() -> Result<()> {
    let world = World::new(Release::System).await?;
    let member = world.ours.member();
    set_quotas(&world, None, Some(6)).await?;
    let purge = json!({ "p_org": world.ours.id, "p_id": world.ours.session,
        "p_audit": audit(world.ours.id, "user", &member.id.to_string(), "session.purge") });
    world.rest.call(&member.caller, "purge_session", &purge).await?.done()?;
    assert_eq!(creates(&world, 20, "quota_sessions_per_day").await?, 4);
    // A session that starts again counts again among those that run, and not as one of the day.
    set_quotas(&world, Some(5), Some(6)).await?;
    let end = json!({ "p_host": null, "p_id": world.ours.shared, "p_revision": 2, "p_seen": null, "p_audit": null,
        "p_change": { "spawn": { "number": 1, "state": "exited", "accepted": true, "report_generation": 1, "report_seq": 1 } } });
    world.rest.call(&world.service, "job_update_session", &end).await?.done()?;
    set_quotas(&world, Some(4), Some(100)).await?;
    let again = |revision: u64| {
        json!({ "p_org": world.ours.id, "p_id": world.ours.shared, "p_revision": revision,
            "p_change": { "desired": "run", "new_spawn": { "number": 2 } },
            "p_audit": audit(world.ours.id, "user", &member.id.to_string(), "session.restart") })
    };
    let full = world.rest.call(&member.caller, "update_session", &again(3)).await?;
    assert_eq!((full.status, full.word()), (429, "quota_sessions"));
    set_quotas(&world, Some(5), Some(100)).await?;
    world.rest.call(&member.caller, "update_session", &again(3)).await?.done()?;
    Ok(())
}

#[tokio::test]
async fn an_idempotency_key_is_taken_once() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, member) = (world.ours.id, world.ours.member());
    let key = |hash: &str| json!({ "route": "POST /sessions", "key": "it's \"one\"", "request_hash": hash });
    let attempt = async |hash: &str, by: &Person| {
        let mut arguments = create_session(org, by.id, &new_session(Uuid::now_v7()));
        arguments["p_key"] = key(hash);
        world.rest.call(&by.caller, "create_session", &arguments).await
    };
    let before = living(&world).await?;
    let answers = join_all((0..24).map(|_| attempt("a", member))).await;
    let bodies: Vec<Value> = answers.into_iter().map(|answer| answer?.done()).collect::<Result<_>>()?;
    let made = bodies.iter().filter(|body| body.get("session").is_some()).count();
    assert_eq!((made, living(&world).await?), (1, before + 1));
    assert!(bodies.iter().all(|body| body.get("session").is_some() || body["replay"]["state"] == "in_flight"));
    assert_eq!(attempt("b", member).await?.done()?["replay"]["state"], "mismatch");
    // Another person's key is another key, and so is another organisation's.
    assert!(attempt("b", world.ours.owner()).await?.done()?.get("session").is_some());
    let finish = json!({ "p_org": org, "p_key": key("a"), "p_status": 201, "p_body": "{\"id\":1.50}" });
    world.rest.call(&member.caller, "finish_idempotent", &finish).await?.done()?;
    let replay = attempt("a", member).await?.done()?["replay"].clone();
    assert_eq!(replay, json!({ "state": "done", "status": 201, "body": "{\"id\":1.50}" }));
    // A create that is refused leaves its key free.
    set_quotas(&world, Some(0), None).await?;
    let fresh = json!({ "route": "POST /sessions", "key": "fresh", "request_hash": "a" });
    let mut arguments = create_session(org, member.id, &new_session(Uuid::now_v7()));
    arguments["p_key"] = fresh.clone();
    assert_eq!(world.rest.call(&member.caller, "create_session", &arguments).await?.status, 429);
    let begin = |at: &str| json!({ "p_org": org, "p_key": fresh, "p_at": at });
    let began = async |at: &str| world.rest.call(&member.caller, "begin_idempotent", &begin(at)).await?.done();
    assert_eq!(began("2026-01-02T03:04:05Z").await?["state"], "fresh");
    assert_eq!(began("2026-01-03T03:04:05Z").await?["state"], "in_flight");
    assert_eq!(began("2026-01-03T03:04:06Z").await?["state"], "fresh", "a day is over");
    world.rest.call(&member.caller, "release_idempotent", &json!({ "p_org": org, "p_key": fresh })).await?.done()?;
    assert_eq!(began("2026-01-03T03:04:06Z").await?["state"], "fresh");
    Ok(())
}

#[tokio::test]
async fn of_many_changes_at_one_revision_one_is_made() -> Result<()> {
    let world = World::new(Release::System).await?;
    let member = world.ours.member();
    let rename = async |name: usize| {
        let arguments = json!({ "p_org": world.ours.id, "p_id": world.ours.session, "p_revision": 2, "p_change": { "name": name.to_string() },
            "p_audit": audit(world.ours.id, "user", &member.id.to_string(), "session.update") });
        world.rest.call(&member.caller, "update_session", &arguments).await
    };
    let answers = join_all((0..24).map(rename)).await.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(answers.iter().filter(|answer| answer.is_done()).count(), 1);
    assert!(answers.iter().all(|answer| answer.is_done() || answer.word() == "stale"), "{answers:?}");
    let records = "select count(*) from agentapi.audit_logs where action = 'session.update'";
    assert_eq!(world.cluster.sql(records).await?, "1", "what was not done leaves no record");
    Ok(())
}

#[tokio::test]
async fn a_login_code_works_once_and_in_time() -> Result<()> {
    let world = World::new(Release::System).await?;
    let member = world.ours.member();
    let code = |name: &str, until: &str| {
        json!({ "p_org": world.ours.id, "p_hash": sha256_hex(name), "p_expires_at": until,
            "p_audit": audit(world.ours.id, "user", &member.id.to_string(), "login.code") })
    };
    let redeem = async |name: &str, cookie: usize, at: &str| {
        let arguments = json!({ "p_code": sha256_hex(name), "p_cookie": sha256_hex(&cookie.to_string()), "p_at": at,
            "p_expires_at": "2026-01-03T00:00:00Z" });
        world.rest.call(&world.service, "job_redeem_login_code", &arguments).await?.done()
    };
    world.rest.call(&member.caller, "create_login_code", &code("code", "2026-01-02T00:01:00Z")).await?.done()?;
    world.rest.call(&member.caller, "create_login_code", &code("late", "2026-01-02T00:01:00Z")).await?.done()?;
    let holders = join_all((0..12).map(|cookie| redeem("code", cookie, "2026-01-02T00:00:00Z"))).await;
    let holders = holders.into_iter().collect::<Result<Vec<_>>>()?;
    let of_member = |holder: &&Value| holder["user_id"] == json!(member.id) && holder["role"] == "member";
    assert_eq!(
        (holders.iter().filter(of_member).count(), holders.iter().filter(|holder| holder.is_null()).count()),
        (1, 11)
    );
    assert_eq!(redeem("late", 20, "2026-01-02T00:01:00Z").await?, Value::Null);
    assert_eq!(redeem("unknown", 21, "2026-01-02T00:00:00Z").await?, Value::Null);
    let records = format!(
        "select count(*) from agentapi.audit_logs where action = 'login' and org_id = '{}' and created_by = '{}'",
        world.ours.id, member.id
    );
    assert_eq!(world.cluster.sql(&records).await?, "1");
    let winner = holders.iter().position(|holder| !holder.is_null()).unwrap_or_default();
    let session = async |at: &str| {
        let arguments = json!({ "p_hash": sha256_hex(&winner.to_string()), "p_now": at });
        world.rest.call(&world.service, "job_browser_session", &arguments).await?.done()
    };
    assert_eq!(session("2026-01-02T12:00:00Z").await?["organization"], "ours");
    assert_eq!(session("2026-01-03T00:00:00Z").await?, Value::Null);
    let end = json!({ "p_org": world.ours.id, "p_hash": sha256_hex(&winner.to_string()),
        "p_audit": audit(world.ours.id, "user", &member.id.to_string(), "logout") });
    world.rest.call(&member.caller, "end_browser_session", &end).await?.done()?;
    assert_eq!(session("2026-01-02T12:00:00Z").await?, Value::Null);
    Ok(())
}

#[tokio::test]
async fn an_organisation_keeps_an_owner() -> Result<()> {
    let world = World::new(Release::System).await?;
    fill(&world).await?;
    let (org, owner, admin) = (world.ours.id, world.ours.owner(), world.ours.in_role("admin"));
    let role = async |by: &Person, who: &Person, role: &str| {
        let arguments = json!({ "p_org": org, "p_user": who.id, "p_role": role, "p_audit": audit(org, "user", &by.id.to_string(), "member.role") });
        world.rest.call(&by.caller, "set_member_role", &arguments).await
    };
    let remove = async |by: &Person, who: &Person| {
        let arguments = json!({ "p_org": org, "p_user": who.id, "p_audit": audit(org, "user", &by.id.to_string(), "member.remove") });
        world.rest.call(&by.caller, "remove_member", &arguments).await
    };
    assert_eq!(remove(owner, owner).await?.word(), "last_owner");
    assert_eq!(role(owner, owner, "member").await?.word(), "last_owner");
    // An admin neither makes nor unmakes an owner, themselves included.
    assert_eq!(role(admin, admin, "owner").await?.status, 403);
    assert_eq!(role(admin, owner, "member").await?.status, 403);
    assert_eq!(remove(admin, owner).await?.status, 403);
    role(owner, admin, "owner").await?.done()?;
    // Each removes the other at once: one of them stays.
    let (first, second) = tokio::join!(remove(owner, admin), remove(admin, owner));
    let (first, second) = (first?, second?);
    assert_eq!(usize::from(first.is_done()) + usize::from(second.is_done()), 1, "{first:?} {second:?}");
    let owners = format!("select count(*) from agentapi.memberships where org_id = '{org}' and role = 'owner'");
    assert_eq!(world.cluster.sql(&owners).await?, "1");
    Ok(())
}
