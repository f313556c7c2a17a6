//! Hosts: starts, reports, the outbox, and what is settled when a host comes back.

use std::collections::BTreeMap;

use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::link::{Command, CommandError, OutboxItem};
use agentapi_shared::{EventId, SpawnState};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::client::Harness;
use super::host::SimHost;

#[tokio::test]
async fn a_session_is_started_seen_typed_into_and_stopped() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let body = json!({ "agent": "custom", "command": ["bash"], "env": { "KEY": "s3cret" }, "size": { "cols": 90, "rows": 20 } });
    let (status, session) = harness.call("POST", "/api/v1/sessions?wait=running", Some(body)).await;
    assert_eq!((status, &session["state"]), (201, &json!("running")), "{session}");
    assert!(!session.to_string().contains("s3cret") && !session.to_string().contains("KEY"));
    let id = session["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(host.with(|model| model.spawns[&(id, 1)].env.clone()), Some(vec!["KEY".to_owned()]));
    host.print((id, 1), b"$ ");
    let screen = harness.get(&format!("/api/v1/sessions/{id}/screen")).await;
    assert_eq!((&screen["text"], &screen["offset"]), (&json!("$ "), &json!(2)));
    let path = format!("/api/v1/sessions/{id}/input");
    let (status, written) = harness.call("POST", &path, Some(json!({ "keys": ["l", "s", "Enter"] }))).await;
    assert_eq!((status, written), (200, json!({ "written": 3, "offset": 2 })));
    assert_eq!(host.with(|model| model.spawns[&(id, 1)].input.clone()), b"ls\r");
    let (status, _) = harness.call("DELETE", &format!("/api/v1/sessions/{id}"), None).await;
    assert_eq!(status, 202);
    let session = harness.until_state(id, "exited").await;
    assert_eq!(session["exit"]["code"], 0);
    let metrics = harness.metrics().await;
    for line in ["agentapi_hosts_connected 1", r#"agentapi_spawns_ended_total{reason="exited"} 1"#, "# EOF"] {
        assert!(metrics.iter().any(|found| found == line), "{line}: {metrics:#?}");
    }
    assert!(
        !metrics.iter().any(|line| line.starts_with("agentapi_spawns{") || line.contains("s3cret")),
        "{metrics:#?}"
    );
    // Again is fine, and changes nothing.
    let (status, again) = harness.call("DELETE", &format!("/api/v1/sessions/{id}"), None).await;
    assert_eq!((status, &again["state"]), (202, &json!("exited")));
    let stops = host.with(|model| model.commands.iter().filter(|(_, c)| matches!(c, Command::Stop { .. })).count());
    assert_eq!(stops, 1);
    host.until("the end is acknowledged", |model| model.acked == 1).await;
    let (status, _) = harness.call("DELETE", &format!("/api/v1/sessions/{id}?purge=true"), None).await;
    assert_eq!(status, 202);
    host.until("purged", |model| model.spawns.is_empty()).await;
    let mut changed = harness.plane.events.watch();
    while harness.call("GET", &format!("/api/v1/sessions/{id}"), None).await.0 != 404 {
        changed.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_goes_to_the_host_with_every_spawn_and_the_posture_comes_back() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let sandbox = json!({ "profile": "strict", "network": "off", "limits": { "pids": 64 } });
    let body = json!({ "agent": "custom", "command": ["bash"], "sandbox": sandbox });
    let (status, session) = harness.call("POST", "/api/v1/sessions?wait=running", Some(body)).await;
    let posture = json!({
        "isolation": "root", "profile": "strict", "network": "off", "limits": { "pids": 64 }, "degraded": ["no-disk-quota"],
    });
    assert_eq!((status, &session["sandbox"]), (201, &posture), "{session}");
    let line = r#"agentapi_spawns{state="running",isolation="root",profile="strict",network="off",degraded="no-disk-quota"} 1"#;
    assert!(harness.metrics().await.iter().any(|found| found == line), "{:#?}", harness.metrics().await);
    let id = session["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/api/v1/sessions/{id}/restart");
    let (status, _) = harness.call("POST", &path, Some(json!({ "stop": true }))).await;
    assert_eq!(status, 202);
    host.until("the second spawn was asked for", |model| model.spawns.contains_key(&(id, 2))).await;
    let asked = host.with(|model| {
        let starts = model.commands.iter().filter_map(|(_, command)| match command {
            Command::Start(start) => Some(serde_json::to_value(&start.sandbox).unwrap()),
            _ => None,
        });
        starts.collect::<Vec<_>>()
    });
    assert_eq!(asked, [sandbox.clone(), sandbox]);
    let faulty = json!({ "agent": "custom", "command": ["bash"], "sandbox": { "profil": "strict" } });
    let (status, problem) = harness.call("POST", "/api/v1/sessions", Some(faulty)).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("sandbox.profil")), "{problem}");
}

#[tokio::test]
async fn pending_until_a_host_comes_and_failed_if_it_refuses() {
    let harness = Harness::start().await;
    let id = harness.create().await;
    let session = harness.get(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!((&session["state"], &session["host_id"]), (&json!("pending"), &Value::Null));
    let stopped = harness.create().await;
    harness.call("DELETE", &format!("/api/v1/sessions/{stopped}"), None).await;
    let session = harness.get(&format!("/api/v1/sessions/{stopped}")).await;
    assert_eq!((&session["state"], &session["exit"]["reason"]), (&json!("exited"), &json!("stopped")));
    let (host, _connection) = SimHost::connect(&harness).await;
    harness.until_state(id, "running").await;
    assert!(!host.with(|model| model.spawns.contains_key(&(stopped, 1))));
    host.with(|model| model.refuse_start = Some(CommandError::new("refused", "no such directory")));
    let refused = harness.create().await;
    let session = harness.until_state(refused, "failed").await;
    assert_eq!(session["exit"]["reason"], "start_failed");
    assert_eq!(session["state_reason"], "no such directory");
}

#[tokio::test]
async fn a_host_that_comes_back_is_settled() {
    let harness = Harness::start().await;
    let (mut host, connection) = SimHost::connect(&harness).await;
    let kept = harness.create_running().await;
    let lost = harness.create_running().await;
    let stopped = harness.create_running().await;
    let ended = harness.create_running().await;
    let purged = harness.create_running().await;
    drop(connection);
    harness.until_host(false).await;
    let session = harness.get(&format!("/api/v1/sessions/{kept}")).await;
    assert_eq!((&session["state"], &session["unreachable"]), (&json!("running"), &json!(true)));
    // Meanwhile here one is stopped, and there one is lost and one ends.
    harness.call("DELETE", &format!("/api/v1/sessions/{stopped}"), None).await;
    harness.call("DELETE", &format!("/api/v1/sessions/{purged}?purge=true"), None).await;
    host.with(|model| {
        model.spawns.remove(&(lost, 1));
        model.end((ended, 1), 4);
        let unknown = model.spawns[&(kept, 1)].clone();
        model.spawns.insert((agentapi_shared::SessionId::generate(), 1), unknown);
    });
    let _connection = host.reconnect(&harness).await;
    assert_eq!(harness.until_state(lost, "failed").await["exit"]["reason"], "shim_lost");
    assert_eq!(harness.until_state(ended, "exited").await["exit"]["code"], 4);
    harness.until_state(stopped, "exited").await;
    harness.until_session(kept, "reachable", |session| session["unreachable"] == false).await;
    host.until("the unknown and the purged are gone", |model| model.spawns.len() == 3).await;
    assert_eq!(harness.get(&format!("/api/v1/sessions/{kept}")).await["state"], "running");
}

#[tokio::test]
async fn after_a_reboot_what_is_missing_was_rebooted() {
    let harness = Harness::start().await;
    let (mut host, connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    drop(connection);
    host.with(|model| {
        model.spawns.clear();
        model.boot_id = "boot-2".to_owned();
    });
    let _connection = host.reconnect(&harness).await;
    assert_eq!(harness.until_state(id, "failed").await["exit"]["reason"], "host_rebooted");
}

#[tokio::test]
async fn an_item_that_comes_twice_has_one_effect() {
    let harness = Harness::start().await;
    let (mut host, connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let item = OutboxItem::Audit {
        id: EventId::generate(),
        at: OffsetDateTime::UNIX_EPOCH,
        session: Some(id),
        action: "spawn.readopted".to_owned(),
        detail: json!({}),
    };
    host.with(|model| {
        model.post(item.clone());
        model.end((id, 1), 0);
    });
    host.until("acknowledged", |model| model.acked == 2).await;
    drop(connection);
    // It lost the acknowledgement: everything comes again, with a report that is older than what is known.
    host.with(|model| {
        model.acked = 0;
        model.post(item);
        model.spawns.get_mut(&(id, 1)).unwrap().state = SpawnState::Running;
        model.spawns.get_mut(&(id, 1)).unwrap().seq = 1;
    });
    let _connection = host.reconnect(&harness).await;
    host.until("acknowledged", |model| model.acked == 3).await;
    let session = harness.get(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!(session["state"], "exited");
    let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
    let count: i64 = rows
        .query_row("SELECT COUNT(*) FROM audit_logs WHERE action = 'spawn.readopted'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_second_connection_of_a_host_replaces_the_first() {
    let harness = Harness::start().await;
    let (mut host, first) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let _second = host.reconnect(&harness).await;
    host.print((id, 1), b"x");
    assert_eq!(harness.get(&format!("/api/v1/sessions/{id}/screen")).await["text"], "x");
    drop(first);
    assert_eq!(harness.get(&format!("/api/v1/sessions/{id}/screen")).await["text"], "x");
}

#[tokio::test]
async fn an_environment_that_was_lost_fails_the_spawn_and_nothing_else_is_lost() {
    let harness = Harness::start().await;
    let plain = harness.create().await;
    let body = json!({ "agent": "custom", "command": ["bash"], "env": { "KEY": "s3cret" } });
    let (_, session) = harness.call("POST", "/api/v1/sessions", Some(body)).await;
    let with_env = session["id"].as_str().unwrap().parse().unwrap();
    let harness = harness.restart().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    harness.until_state(plain, "running").await;
    assert_eq!(harness.until_state(with_env, "failed").await["exit"]["reason"], "environment_lost");
    let mut stored = Vec::new();
    for name in ["controlplane.db", "controlplane.db-wal"] {
        stored.extend(std::fs::read(harness.dir.join("data").join(name)).unwrap_or_default());
    }
    assert!(!stored.windows(6).any(|window| window == b"s3cret"));
}

#[tokio::test]
async fn a_restart_appends_a_spawn() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let path = format!("/api/v1/sessions/{id}/restart");
    let (status, problem) = harness.call("POST", &path, None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("session_running")));
    let (status, _) = harness.call("POST", &path, Some(json!({ "stop": true }))).await;
    assert_eq!(status, 202);
    let session = harness
        .until_session(id, "in its second spawn", |session| {
            session["state"] == "running" && session["spawns"].as_array().is_some_and(|spawns| spawns.len() == 2)
        })
        .await;
    assert_eq!(session["spawns"][0]["state"], "exited");
    host.end((id, 2), 0);
    harness.until_state(id, "exited").await;
    let (status, _) = harness.call("POST", &path, None).await;
    assert_eq!(status, 202);
    harness
        .until_session(id, "in its third", |session| session["spawns"].as_array().is_some_and(|s| s.len() == 3))
        .await;
}

#[tokio::test]
async fn a_session_that_does_not_end_can_be_stopped_harder() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    host.with(|model| model.keep_running = true);
    harness.call("DELETE", &format!("/api/v1/sessions/{id}?grace_ms=1000"), None).await;
    harness.until_state(id, "stopping").await;
    harness.call("DELETE", &format!("/api/v1/sessions/{id}?force=true"), None).await;
    host.until("asked twice", |model| {
        let stops: BTreeMap<u64, bool> = model
            .commands
            .iter()
            .filter_map(|(_, command)| match command {
                Command::Stop { generation, force, .. } => Some((*generation, *force)),
                _ => None,
            })
            .collect();
        stops.into_iter().collect::<Vec<_>>() == [(2, false), (3, true)]
    })
    .await;
}

#[tokio::test]
async fn without_its_store_terminals_go_on_and_nothing_is_lost() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let mut viewer = harness.view(id, "catchup=bytes").await;
    viewer.until("keyframe", |_, got| matches!(got, super::client::Got::Keyframe { .. }).then_some(())).await;
    // Somebody else holds the write lock: every operation fails after its timeout.
    let other = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    host.print((id, 1), b"still here");
    viewer.until_offset(10).await;
    viewer.input(1, b"x").await;
    viewer
        .until("ack", |_, got| {
            let acked = agentapi_shared::viewer::ServerMessage::InputAck { seq: 1 };
            (*got == super::client::Got::Said(acked)).then_some(())
        })
        .await;
    host.end((id, 1), 5);
    let response = harness.request("GET", "/api/v1/me").bearer_auth(&harness.token).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    assert_eq!(host.with(|model| model.acked), 0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(harness.until_state(id, "exited").await["exit"]["code"], 5);
    host.until("acknowledged", |model| model.acked == 1).await;
}

#[tokio::test]
async fn a_host_that_comes_back_with_other_settings_changes_the_posture_of_what_runs() {
    let harness = Harness::start().await;
    let (mut host, connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let path = format!("/api/v1/sessions/{id}");
    assert_eq!(harness.get(&path).await["sandbox"]["network"], "filtered");
    host.with(|model| {
        for spawn in model.spawns.values_mut() {
            spawn.posture.network = agentapi_shared::api::NetworkMode::Off;
        }
    });
    drop(connection);
    let mut changed = harness.plane.events.watch();
    let _connection = host.reconnect(&harness).await;
    while harness.get(&path).await["sandbox"]["network"] != "off" {
        changed.changed().await.unwrap();
    }
    assert_eq!(harness.get(&path).await["state"], "running");
}

#[tokio::test]
async fn egress_decisions_of_a_host_are_listed_by_page_and_verdict() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let decision = |host: &str, verdict| {
        OutboxItem::Egress(EgressDecision {
            id: EventId::generate(),
            session: id,
            spawn: 1,
            at: OffsetDateTime::UNIX_EPOCH,
            host: host.to_owned(),
            port: 443,
            address: None,
            verdict,
            rule: "no_rule".to_owned(),
            bytes_up: 1,
            bytes_down: 2,
            duration_ms: 3,
            times: 1,
        })
    };
    host.with(|model| {
        for name in ["a.test", "b.test", "c.test"] {
            model.post(decision(name, EgressVerdict::Denied));
        }
        model.post(decision("d.test", EgressVerdict::WouldDeny));
    });
    host.until("acknowledged", |model| model.acked == 4).await;
    let counted = harness.metrics().await;
    for line in [r#"{verdict="denied"} 3"#, r#"{verdict="would_deny"} 1"#] {
        let line = format!("agentapi_egress_decisions_total{line}");
        assert!(counted.contains(&line), "{counted:#?}");
    }
    let path = format!("/api/v1/sessions/{id}/egress");
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|one| one["host"].as_str().unwrap().to_owned()).collect()
    };
    let first = harness.get(&format!("{path}?verdict=denied&limit=2")).await;
    assert_eq!(names(&first), ["c.test", "b.test"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = harness.get(&format!("{path}?verdict=denied&limit=2&cursor={cursor}")).await;
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["a.test".to_owned()], &serde_json::Value::Null));
    assert_eq!(names(&harness.get(&format!("{path}?verdict=would_deny")).await), ["d.test"]);
    for (query, field) in [("verdict=maybe", "query.verdict"), ("limit=0", "query.limit"), ("cursor=x", "query.cursor")]
    {
        let (status, problem) = harness.call("GET", &format!("{path}?{query}"), None).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
}
