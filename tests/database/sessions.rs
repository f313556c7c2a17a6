//! What the store of the control plane asks of sessions, through the functions: written, read, changed and purged.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::audit;
use crate::world::{World, create_session, new_session};
use agentapi_test_postgres::cluster::Release;

fn update(org: Uuid, user: Uuid, session: Uuid, revision: u64, change: &Value) -> Value {
    json!({
        "p_org": org, "p_id": session, "p_revision": revision, "p_change": change,
        "p_audit": audit(org, "user", &user.to_string(), "session.update")
    })
}

#[tokio::test]
async fn a_session_lives_as_the_control_plane_says() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, member) = (world.ours.id, world.ours.member().clone());
    let id = Uuid::now_v7();
    let made =
        world.rest.call(&member.caller, "create_session", &create_session(org, member.id, &new_session(id))).await?;
    let made = made.done()?["session"].clone();
    for (field, value) in new_session(id).as_object().into_iter().flatten().filter(|(field, _)| *field != "has_env") {
        if field == "created_at" {
            assert_eq!(made[field], "2026-01-02T03:04:05.678901+00:00");
        } else {
            assert_eq!(made[field], *value, "{field}");
        }
    }
    assert_eq!((&made["revision"], &made["generation"], &made["state"]), (&json!(1), &json!(1), &json!("pending")));
    assert_eq!(made["spawns"][0]["has_env"], true);
    // As the tenant reads it, with its spawns.
    let read = world.rest.get(&member.caller, &format!("user_sessions?id=eq.{id}&select=*,spawns(*)")).await?.done()?;
    assert_eq!(read[0], made);

    let spawn = json!({
        "number": 1, "state": "exited", "accepted": true, "report_generation": 1, "report_seq": 7, "boot_id": "boot",
        "started_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T03:04:06.000001Z", "exit": { "code": 1, "reason": "exited" }, "posture": null
    });
    let change = json!({ "name": null, "cols": 100, "desired": "stop", "stop_force": true, "spawn": spawn, "host_id": world.ours.host });
    let changed = world.rest.call(&member.caller, "update_session", &update(org, member.id, id, 1, &change)).await?;
    let changed = changed.done()?;
    assert_eq!((&changed["name"], &changed["cols"], &changed["rows"]), (&Value::Null, &json!(100), &json!(24)));
    assert_eq!(
        (&changed["revision"], &changed["generation"], &changed["state"]),
        (&json!(2), &json!(2), &json!("exited"))
    );
    assert_eq!((&changed["labels"], &changed["spawns"][0]["exit"]["code"]), (&made["labels"], &json!(1)));

    let stale = world.rest.call(&member.caller, "update_session", &update(org, member.id, id, 1, &change)).await?;
    assert_eq!((stale.status, stale.word()), (409, "stale"));
    let again = json!({ "desired": "run", "new_spawn": { "number": 2 } });
    let again =
        world.rest.call(&member.caller, "update_session", &update(org, member.id, id, 2, &again)).await?.done()?;
    assert_eq!(
        (&again["state"], &again["spawns"][1]["state"], &again["generation"]),
        (&json!("pending"), &json!("pending"), &json!(3))
    );

    // A record that tells something else than what is done makes the whole change fail.
    let mut lie = update(org, member.id, id, 3, &json!({ "name": "lie" }));
    lie["p_audit"] = audit(org, "user", &world.ours.owner().id.to_string(), "session.update");
    let refused = world.rest.call(&member.caller, "update_session", &lie).await?;
    assert_eq!((refused.status, refused.word()), (422, "audit_entry"));
    let read = world.rest.get(&member.caller, &format!("user_sessions?id=eq.{id}&select=revision")).await?.done()?;
    assert_eq!(read[0]["revision"], 3);

    let purge =
        json!({ "p_org": org, "p_id": id, "p_audit": audit(org, "user", &member.id.to_string(), "session.purge") });
    for _ in 0..2 {
        world.rest.call(&member.caller, "purge_session", &purge).await?.done()?;
    }
    let left = world.cluster.sql(&format!("select count(*) from agentapi.spawns where session_id = '{id}'")).await?;
    assert_eq!(left, "0");
    let records = world.cluster.sql("select count(*) from agentapi.audit_logs where action = 'session.purge'").await?;
    assert_eq!(records, "1", "one that is gone leaves no second record");
    Ok(())
}

#[tokio::test]
async fn a_host_speaks_for_what_is_placed_on_it() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, host, session) = (world.ours.id, world.ours.host, world.ours.session);
    let decision = |session: Uuid| {
        json!({
            "p_host": host, "p_seen": 3, "p_decision": {
                "id": Uuid::now_v7(), "session": session, "spawn": 1, "at": "2026-01-02T03:04:05Z", "host": "it's.example", "port": 443,
                "address": null, "verdict": "denied", "rule": "no_rule", "bytes_up": 1, "bytes_down": 4_294_967_296_u64, "duration_ms": 3
            }
        })
    };
    let ours = decision(session);
    for _ in 0..2 {
        world.rest.call(&world.service, "job_record_egress", &ours).await?.done()?;
    }
    // Of another host's session: nothing to keep, and no reason to send it again.
    let mut foreign = decision(world.theirs.session);
    foreign["p_seen"] = json!(2);
    world.rest.call(&world.service, "job_record_egress", &foreign).await?.done()?;
    let member = &world.ours.member().caller;
    let seen = world.rest.get(member, "egress_decisions?select=*&order=id.desc").await?.done()?;
    assert_eq!(seen.as_array().map(Vec::len), Some(1));
    assert_eq!((&seen[0]["bytes_down"], &seen[0]["org_id"]), (&json!(4_294_967_296_u64), &json!(org)));
    assert!(world.rest.get(&world.theirs.owner().caller, "egress_decisions").await?.rows() == 0);
    let outbox = world.cluster.sql(&format!("select outbox_seq from agentapi.hosts where id = '{host}'")).await?;
    assert_eq!(outbox, "3", "it only grows");

    let change = |host: Uuid, session: Uuid| {
        json!({
            "p_host": host, "p_id": session, "p_revision": 2, "p_change": { "cols": 99 },
            "p_audit": audit(org, "host", &host.to_string(), "session.report"), "p_seen": 4
        })
    };
    let foreign = world.rest.call(&world.service, "job_update_session", &change(host, world.theirs.session)).await?;
    assert_eq!((foreign.status, foreign.word()), (404, "not_found"));
    world.rest.call(&world.service, "job_update_session", &change(host, session)).await?.done()?;

    // No session lands on another organisation's host, whoever asks.
    let elsewhere = world.session(&world.ours).await?;
    let mut place = change(host, elsewhere);
    place["p_host"] = Value::Null;
    place["p_revision"] = json!(1);
    place["p_audit"] = audit(org, "system", "fleet", "session.place");
    place["p_change"] = json!({ "host_id": world.theirs.host });
    let refused = world.rest.call(&world.service, "job_update_session", &place).await?;
    assert_eq!((refused.status, refused.code()), (403, "42501"), "{refused:?}");
    place["p_change"] = json!({ "host_id": host });
    world.rest.call(&world.service, "job_update_session", &place).await?.done()?;

    let hosts = world.rest.call(member, "hosts_of", &json!({ "p_org": org })).await?.done()?;
    assert_eq!((hosts.as_array().map(Vec::len), &hosts[0]["sessions_running"]), (Some(1), &json!(3)));
    let known = world.rest.call(&world.service, "job_host", &json!({ "p_host": host })).await?.done()?;
    assert_eq!(known, hosts, "as a job reads it");
    let facts = json!({ "p_host": host, "p_version": "0.1.0", "p_facts": { "cores": 2 }, "p_at": "2026-01-02T03:04:05Z",
        "p_audit": audit(org, "host", &host.to_string(), "host.connected") });
    world.rest.call(&world.service, "job_host_connected", &facts).await?.done()?;
    let hosts = world.rest.call(member, "hosts_of", &json!({ "p_org": org })).await?.done()?;
    assert_eq!((&hosts[0]["version"], &hosts[0]["facts"]["cores"]), (&json!("0.1.0"), &json!(2)));
    Ok(())
}

#[tokio::test]
async fn what_is_not_settled_is_found() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, host, member) = (world.ours.id, world.ours.host, world.ours.member());
    let waiting = world.session(&world.ours).await?;
    let unsettled = async |host: Option<Uuid>| {
        let path = "job_unsettled?select=id,spawns(number)";
        let rows = world.rest.call(&world.service, path, &json!({ "p_host": host })).await?.done()?;
        let ids = rows.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str()?.parse().ok());
        Ok::<Vec<Uuid>, anyhow::Error>(ids.collect())
    };
    assert_eq!(unsettled(None).await?, [waiting]);
    assert_eq!(unsettled(Some(host)).await?, [world.ours.session, world.ours.shared]);
    let ended = json!({ "spawn": { "number": 1, "state": "exited", "accepted": true, "report_generation": 1, "report_seq": 1 } });
    for (revision, change, found) in [
        (2, ended, 1),
        (3, json!({ "purging": true }), 2),
        (4, json!({ "purging": false }), 1),
        (5, json!({ "restarting": true }), 2),
    ] {
        world
            .rest
            .call(&member.caller, "update_session", &update(org, member.id, world.ours.session, revision, &change))
            .await?
            .done()?;
        assert_eq!(unsettled(Some(host)).await?.len(), found, "{change}");
    }
    Ok(())
}
