//! Places of viewers: how many an organisation has, what frees one, and what becomes of them when the store is away.

use agentapi_shared::viewer::{ServerMessage, close};
use agentapi_shared::{SessionId, ViewerId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::client::{DEADLINE, Got, Harness, Viewer};
use super::credentials::{closed, see_keyframe};
use super::host::SimHost;
use crate::store::records::{DEFAULT_ORG, LOCAL_ADMIN};

fn sql(harness: &Harness, statement: &str) -> usize {
    rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap().execute(statement, []).unwrap()
}

/// Waits until the store says so. What happens there is told to nobody here.
async fn until(harness: &Harness, what: &str, condition: &str) {
    let rows = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
    let look = async {
        while !rows.query_row(condition, [], |row| row.get::<_, bool>(0)).unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("never {what}"));
}

async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

async fn limited(viewers_max: u32) -> (Harness, SimHost, super::host::Connection, SessionId) {
    let harness = Harness::start().await;
    let (host, connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    sql(&harness, &format!("UPDATE organizations SET viewers_max = {viewers_max} WHERE id = '{DEFAULT_ORG}'"));
    (harness, host, connection, id)
}

/// Status and problem of an upgrade that was refused.
async fn refused(harness: &Harness, id: SessionId, query: &str) -> (u16, Value) {
    match harness.try_view(id, query).await {
        Err(SocketError::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            (answer.status().as_u16(), serde_json::from_slice(body).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

async fn hello(viewer: &mut Viewer) -> ViewerId {
    let id = |_: &Viewer, got: &Got| match got {
        Got::Said(ServerMessage::Hello { id, .. }) => *id,
        _ => None,
    };
    viewer.until("hello", id).await
}

#[tokio::test]
async fn one_too_many_is_refused_until_another_detaches() {
    let (harness, _host, _connection, id) = limited(2).await;
    let (_first, second) = (harness.view(id, "").await, harness.view(id, "mode=ro").await);
    let (status, problem) = refused(&harness, id, "").await;
    assert_eq!((status, &problem["code"]), (429, &json!("quota_viewers")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("detach one of them"), "{problem}");
    until(&harness, "recorded", "SELECT COUNT(*) = 2 FROM audit_logs WHERE action = 'terminal.attach'").await;
    drop(second);
    until(&harness, "freed", "SELECT COUNT(*) = 1 FROM viewers").await;
    until(&harness, "recorded", "SELECT COUNT(*) = 1 FROM audit_logs WHERE action = 'terminal.detach'").await;
    see_keyframe(&mut harness.view(id, "").await).await;
}

#[tokio::test]
async fn a_connection_that_broke_unseen_is_not_in_the_way_of_the_next() {
    let (harness, _host, _connection, id) = limited(1).await;
    let mut first = harness.view(id, "").await;
    let name = hello(&mut first).await;
    see_keyframe(&mut first).await;
    let (status, problem) = refused(&harness, id, &format!("replaces={}", ViewerId::generate())).await;
    assert_eq!((status, &problem["code"]), (429, &json!("quota_viewers")));
    let (status, problem) = refused(&harness, id, "replaces=me").await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("query.replaces")), "{problem}");
    let mut second = harness.view(id, &format!("replaces={name}")).await;
    assert_eq!(closed(&mut first).await, close::REPLACED);
    assert_ne!(hello(&mut second).await, name);
    // Of those served elsewhere it is the store that tells.
    sql(&harness, "DELETE FROM viewers");
    pass(21).await;
    assert_eq!(closed(&mut second).await, close::REPLACED);
}

#[tokio::test]
async fn places_of_a_control_plane_that_died_are_free_once_their_lease_is_over() {
    let (harness, _host, _connection, id) = limited(1).await;
    let dead = ViewerId::generate();
    let insert = |until: &str| {
        sql(
            &harness,
            &format!("INSERT INTO viewers VALUES ('{dead}', '{DEFAULT_ORG}', '{LOCAL_ADMIN}', '', '{id}', '{until}')"),
        )
    };
    insert("2999-01-01T00:00:00Z");
    assert_eq!(refused(&harness, id, "").await.0, 429);
    // Nobody here renews it.
    pass(21).await;
    sql(&harness, "UPDATE viewers SET leased_until = '2026-01-01T00:00:00Z'");
    see_keyframe(&mut harness.view(id, "").await).await;
    // Its end is told by nobody else.
    assert_eq!(harness.plane.store.sweep(crate::clock::now()).await.unwrap(), 1);
    until(
        &harness,
        "told",
        "SELECT COUNT(*) = 1 FROM audit_logs WHERE action = 'terminal.detach' AND actor_kind = 'system'",
    )
    .await;
    // Whoever comes back to it does not wait.
    until(&harness, "freed", "SELECT COUNT(*) = 0 FROM viewers").await;
    insert("2999-01-01T00:00:00Z");
    see_keyframe(&mut harness.view(id, &format!("replaces={dead}")).await).await;
}

#[tokio::test]
async fn whoever_waits_for_output_is_no_viewer() {
    let (harness, host, _connection, id) = limited(0).await;
    assert_eq!(refused(&harness, id, "mode=ro").await.0, 429);
    host.print((id, 1), b"before");
    let screen = format!("/api/v1/sessions/{id}/screen");
    let (status, problem) = harness.call("GET", &format!("{screen}?after=1"), None).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("query.after")), "{problem}");
    // What is there is answered at once, and so is the end of another spawn.
    assert_eq!(harness.get(&format!("{screen}?after=1:2")).await["text"], "before");
    assert_eq!(harness.get(&format!("{screen}?after=9:0")).await["text"], "before");
    let later = format!("{screen}?after=1:6");
    let (found, ()) = tokio::join!(harness.get(&later), async {
        host.until("its output is followed", |model| model.watches.contains(&(1, Some(6)))).await;
        host.print((id, 1), b", after");
    });
    assert_eq!((&found["text"], &found["offset"]), (&json!("before, after"), &json!(13)));
    // The end of what is waited for ends it, and so does the end of whoever waits.
    let last = format!("{screen}?after=1:13");
    let (found, ()) = tokio::join!(harness.get(&last), async {
        host.until("its output is followed", |model| model.watches.contains(&(1, Some(13)))).await;
        assert_eq!(harness.call("DELETE", &format!("/api/v1/sessions/{id}?force=true"), None).await.0, 202);
    });
    assert_eq!(found["text"], "before, after");
    let seen =
        "SELECT (SELECT COUNT(*) FROM viewers) + (SELECT COUNT(*) FROM audit_logs WHERE action LIKE 'terminal.%') = 0";
    until(&harness, "left alone", seen).await;
}

#[tokio::test]
async fn whoever_goes_away_while_they_are_attached_is_detached() {
    let (harness, _host, _connection, id) = limited(1).await;
    // Their attachment is slow to be written.
    sql(
        &harness,
        "CREATE VIEW slow AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 4000000) SELECT x FROM n",
    );
    sql(&harness, "CREATE TRIGGER slowly BEFORE INSERT ON viewers BEGIN SELECT COUNT(*) FROM slow; END");
    let address = harness.base.trim_start_matches("http://");
    let request = format!(
        "GET /api/v1/sessions/{id}/terminal HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
         Sec-WebSocket-Protocol: {}\r\n\r\n",
        harness.token,
        agentapi_shared::viewer::SUBPROTOCOL
    );
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.unwrap();
    // Nothing else holds the database for so long.
    let other = rusqlite::Connection::open(harness.dir.join("data/controlplane.db")).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let mut busy = 0;
    let at_work = async {
        while busy < 20 {
            busy = if other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() { busy + 1 } else { 0 };
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, at_work).await.expect("it was never at work");
    drop(client);
    until(&harness, "attached", "SELECT COUNT(*) = 1 FROM audit_logs WHERE action = 'terminal.attach'").await;
    let of = |action: &str| format!("(SELECT entry FROM audit_logs WHERE action = '{action}')");
    let (attached, detached) = (of("terminal.attach"), of("terminal.detach"));
    let ended = format!(
        "SELECT COUNT(*) = 0 AND COALESCE({detached} ->> '$.detail.reason' = 'never opened'
             AND {detached} ->> '$.detail.connection' = {attached} ->> '$.detail.connection'
             AND {detached} ->> '$.request_id' = {attached} ->> '$.request_id', 0) FROM viewers"
    );
    until(&harness, "detached", &ended).await;
}

#[tokio::test]
async fn a_store_that_is_away_ends_no_terminal() {
    let (harness, _host, _connection, id) = limited(1).await;
    let mut viewer = harness.view(id, "").await;
    see_keyframe(&mut viewer).await;
    sql(&harness, "UPDATE viewers SET leased_until = '2026-01-01T00:00:00Z'");
    sql(&harness, "ALTER TABLE viewers RENAME TO away");
    pass(21).await;
    let (status, problem) = refused(&harness, id, "").await;
    assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")));
    viewer.input(1, b"x").await;
    viewer.until("ack", |_, got| matches!(got, Got::Said(ServerMessage::InputAck { seq: 1 })).then_some(())).await;
    sql(&harness, "ALTER TABLE away RENAME TO viewers");
    pass(6).await;
    // It is asked again soon, and what was over is good again.
    until(&harness, "renewed", "SELECT leased_until > '2026-01-02' FROM viewers").await;
    assert_eq!(refused(&harness, id, "").await.0, 429);
    viewer.input(2, b"x").await;
    viewer.until("ack", |_, got| matches!(got, Got::Said(ServerMessage::InputAck { seq: 2 })).then_some(())).await;
}

#[tokio::test]
async fn a_session_that_is_watched_through_another_control_plane_is_not_idle() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let [watched, unwatched] = [harness.create_running().await, harness.create_running().await];
    sql(&harness, "DROP TRIGGER audit_logs_fixed");
    sql(&harness, "UPDATE spawns SET created_at = '2026-01-01T00:00:00Z'");
    sql(&harness, "UPDATE audit_logs SET created_at = '2026-01-01T00:00:00Z'");
    let elsewhere = ViewerId::generate();
    let until = "2999-01-01T00:00:00Z";
    sql(
        &harness,
        &format!(
            "INSERT INTO viewers VALUES ('{elsewhere}', '{DEFAULT_ORG}', '{LOCAL_ADMIN}', '', '{watched}', '{until}')"
        ),
    );
    let org = format!("/api/v1/organizations/{DEFAULT_ORG}");
    let idle = |seconds: u32| {
        harness.call("PATCH", &org, Some(json!({ "settings": { "session_idle_seconds_max": seconds } })))
    };
    assert_eq!(idle(60).await.0, 200);
    harness.until_state(unwatched, "exited").await;
    assert_eq!(harness.get(&format!("/api/v1/sessions/{watched}")).await["state"], "running");
    sql(&harness, "UPDATE viewers SET leased_until = '2026-01-01T00:00:00Z'");
    assert_eq!(idle(61).await.0, 200);
    harness.until_state(watched, "exited").await;
}
