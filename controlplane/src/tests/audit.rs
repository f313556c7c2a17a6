//! The audit trail as its readers get it: what is recorded, when it is there, and that its export holds what it says.

use agentapi_shared::SessionId;
use agentapi_shared::audit::{Checkpoint, PLATFORM, Trust, Verifier};
use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::link::OutboxItem;
use agentapi_shared::viewer::{ClientMessage, ServerMessage};
use agentapi_shared::{EventId, OrgId, WindowSize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::client::{DEADLINE, Got, Harness};
use super::host::SimHost;
use crate::capability::Role;
use crate::store::records::{AuditFilter, TenantContext};

/// Every record about something, oldest first, as soon as there are `count`.
async fn records(harness: &Harness, filter: &str, count: usize) -> Vec<Value> {
    let wait = async {
        loop {
            let page = harness.get(&format!("/api/v1/audit?order=oldest&limit=200&{filter}")).await;
            let found: Vec<Value> = page["data"].as_array().unwrap().clone();
            if found.len() >= count {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never {count} records of {filter}"))
}

fn actions(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["entry"]["action"].as_str()).collect()
}

/// The platform's chain, which no caller reads.
async fn of_nobody(harness: &Harness) -> Vec<Value> {
    let filter = AuditFilter { limit: 200, ..AuditFilter::default() };
    let page = harness.plane.store.platform_records(filter).await.unwrap();
    page.records.iter().rev().map(|record| serde_json::from_str(&record.entry).unwrap()).collect()
}

async fn export(harness: &Harness, query: &str) -> String {
    let request = harness.request("GET", &format!("/api/v1/audit/export{query}")).bearer_auth(&harness.token);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    answer.text().await.unwrap()
}

fn verify(text: &str, trust: &Trust) -> agentapi_shared::audit::Report {
    let mut lines = text.lines();
    let mut verifier = Verifier::begin(lines.next().unwrap().as_bytes(), trust).unwrap();
    lines.for_each(|line| verifier.record(line.as_bytes()).unwrap());
    verifier.finish().unwrap()
}

#[tokio::test]
async fn what_callers_and_hosts_do_is_recorded_in_order() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let session = format!("/api/v1/sessions/{id}");
    harness.call("PATCH", &session, Some(json!({ "name": "renamed" }))).await;
    harness.call("POST", &format!("{session}/input"), Some(json!({ "text": "s3cret" }))).await;
    harness.call("POST", &format!("{session}/resize"), Some(json!({ "cols": 100, "rows": 30 }))).await;
    harness.call("POST", &format!("{session}/restart"), Some(json!({ "stop": true }))).await;
    harness
        .until_session(id, "restarted", |session| {
            session["spawns"].as_array().is_some_and(|spawns| spawns.len() == 2) && session["state"] == "running"
        })
        .await;
    harness.call("DELETE", &session, None).await;
    harness.until_state(id, "exited").await;
    harness.call("DELETE", &format!("{session}?purge=true"), None).await;
    host.until("purged", |model| model.spawns.is_empty()).await;
    let found = records(&harness, &format!("session={id}"), 11).await;
    let expected = [
        "session.create",
        "session.placed",
        "session.update",
        "session.input",
        "session.resize",
        "session.restart",
        "spawn.ended",
        "session.stop",
        "spawn.ended",
        "session.purge_requested",
        "session.purged",
    ];
    assert_eq!(actions(&found), expected, "{found:#?}");
    assert!(found.iter().all(|record| !record.to_string().contains("s3cret")));
    let (created, ended) = (&found[0], &found[6]);
    let me = harness.get("/api/v1/me").await;
    assert_eq!(created["entry"]["actor"]["kind"], "user");
    assert_eq!(created["entry"]["actor"]["credential"].as_str().map(str::len), Some(16));
    assert!(created["entry"]["request_id"].is_string() && ended["entry"]["request_id"].is_null());
    assert_eq!((&created["personal"]["name"], &created["personal"]["ip"]), (&me["name"], &json!("127.0.0.1")));
    assert!(!created["entry"].to_string().contains("127.0.0.1"), "an address stands beside the text");
    assert_eq!((&ended["entry"]["actor"]["kind"], &ended["personal"]), (&json!("host"), &Value::Null));
    let of_host = records(&harness, "actor=00000000-0000-7000-8000-000000000003&action=host.connected", 1).await;
    assert_eq!(actions(&of_host), ["host.connected"]);
}

#[tokio::test]
async fn a_refusal_is_recorded_once_and_its_repetitions_are_counted() {
    let mut harness = Harness::start().await;
    let (lost, other) = (SessionId::generate(), SessionId::generate());
    for id in [lost, lost, lost, other] {
        assert_eq!(harness.call("GET", &format!("/api/v1/sessions/{id}"), None).await.0, 404);
    }
    // A path that leads nowhere, and a request that is only wrong, refuse nothing.
    assert_eq!(harness.call("GET", "/api/v1/nothing", None).await.0, 404);
    assert_eq!(harness.call("POST", "/api/v1/sessions", Some(json!({}))).await.0, 422);
    for _ in 0..3 {
        let stranger = harness.request("GET", &format!("/api/v1/sessions/{lost}")).bearer_auth("aa_wrong");
        assert_eq!(stranger.send().await.unwrap().status(), 401);
    }
    let found = records(&harness, "action=request.refused", 2).await;
    let of = |record: &Value| (record["entry"]["detail"]["path"].clone(), record["entry"]["detail"]["code"].clone());
    let path = |id| json!(format!("/api/v1/sessions/{id}"));
    assert_eq!(of(&found[0]), (path(lost), json!("session_not_found")));
    assert_eq!((of(&found[1]).0, found.len()), (path(other), 2));
    assert_eq!(found[0]["entry"]["detail"]["route"], "/api/v1/sessions/{id}");
    harness.stop().await;
    // What was counted is written at the end of its minute, or of the server.
    let store = harness.plane.store.clone();
    let tenant = TenantContext {
        org: crate::store::records::DEFAULT_ORG,
        user: crate::store::records::LOCAL_ADMIN,
        role: Role::Owner,
        token: None,
    };
    let action = Some("request.refused".to_owned());
    let all = store.audit_records(tenant, AuditFilter { action, limit: 10, ..AuditFilter::default() }).await.unwrap();
    let last: Value = serde_json::from_str(&all.records[0].entry).unwrap();
    assert_eq!((all.records.len(), &last["detail"]["times"], &last["detail"]["path"]), (3, &json!(2), &path(lost)));
    assert_eq!(last["detail"]["since"], found[0]["entry"]["at"]);
    // Nobody knows whom a wrong token is of: the platform's chain has it, without the path that they chose.
    let strangers = of_nobody(&harness).await;
    assert_eq!(strangers.len(), 2, "{strangers:#?}");
    assert_eq!((&strangers[0]["actor"]["id"], &strangers[0]["detail"]["status"]), (&json!("anonymous"), &json!(401)));
    assert_eq!(strangers[0]["detail"]["path"], "/api/v1/sessions/{id}");
    assert_eq!(strangers[1]["detail"]["times"], 2);
}

#[tokio::test]
async fn no_caller_reads_the_platforms_trail() {
    let harness = Harness::start().await;
    let stranger = harness.request("GET", "/api/v1/sessions").bearer_auth("aa_wrong");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    let ask = async |path: &str, org: OrgId| {
        let request = harness.request("GET", path).bearer_auth(&harness.token);
        request.header("x-agentapi-organization", org.to_string()).send().await.unwrap().status().as_u16()
    };
    for path in ["/api/v1/audit", "/api/v1/audit/export"] {
        assert_eq!(ask(path, PLATFORM).await, 404, "{path}");
        assert_eq!(ask(path, crate::store::records::DEFAULT_ORG).await, 200, "{path}: the control");
    }
    crate::audit::seal_all(&*harness.plane.store).await.unwrap();
    assert!(of_nobody(&harness).await.iter().any(|record| record["action"] == "request.refused"), "it is there");
}

#[tokio::test]
async fn a_terminal_is_recorded_from_its_opening_to_its_end() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let mut first = harness.view(id, "").await;
    let mut second = harness.view(id, "").await;
    first.say(&ClientMessage::Resize { size: WindowSize::clamped(80, 24) }).await;
    first.say(&ClientMessage::TakeSize).await;
    let owner = |wanted: u64| {
        move |_: &_, got: &Got| {
            matches!(got, Got::Said(ServerMessage::SizeOwner { viewer: Some(viewer) }) if *viewer == wanted)
                .then_some(())
        }
    };
    second.until("the first owns it", owner(1)).await;
    second.say(&ClientMessage::TakeSize).await;
    first.until("the second owns it", owner(2)).await;
    drop((first, second));
    let found = records(&harness, &format!("session={id}&actor=00000000-0000-7000-8000-000000000002"), 6).await;
    assert_eq!(
        actions(&found),
        [
            "session.create",
            "terminal.attach",
            "terminal.attach",
            "terminal.size_taken",
            "terminal.detach",
            "terminal.detach"
        ]
    );
    assert_eq!(found[3]["entry"]["detail"], json!({ "viewer": 2, "from": 1 }));
    // What follows later names the request that opened the terminal.
    assert_eq!(found[3]["entry"]["request_id"], found[2]["entry"]["request_id"]);
    assert!(found[4]["entry"]["detail"]["seconds"].is_u64() && found[4]["entry"]["actor"]["credential"].is_string());
}

#[tokio::test]
async fn a_denied_way_out_is_recorded_before_its_host_may_forget_it() {
    let harness = Harness::start().await;
    let (host, _connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    let decision = |session, verdict, name: &str| EgressDecision {
        id: EventId::generate(),
        session,
        spawn: 1,
        at: OffsetDateTime::UNIX_EPOCH,
        host: name.to_owned(),
        port: 443,
        address: None,
        verdict,
        rule: "no_rule".to_owned(),
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: 0,
        times: 3,
    };
    let decisions = [
        decision(id, EgressVerdict::Denied, "evil.example"),
        decision(id, EgressVerdict::Denied, "evil.example"),
        decision(id, EgressVerdict::Allowed, "good.example"),
        decision(SessionId::generate(), EgressVerdict::Denied, "not.ours.example"),
    ];
    host.with(|model| decisions.iter().for_each(|decision| model.post(OutboxItem::Egress(decision.clone()))));
    host.until("all are acknowledged", |model| model.acked == 4).await;
    let found = records(&harness, "action=egress.denied", 1).await;
    assert_eq!((found.len(), &found[0]["entry"]["id"]), (1, &json!(decisions[0].id)));
    let expected = json!({ "spawn": 1, "host": "evil.example", "port": 443, "rule": "no_rule", "times": 3 });
    assert_eq!((&found[0]["entry"]["detail"], &found[0]["entry"]["session_id"]), (&expected, &json!(id)));
}

#[tokio::test]
async fn an_export_is_whole_and_says_how_far_it_is_vouched_for() {
    let harness = Harness::start().await;
    for _ in 0..3 {
        harness.create().await;
    }
    records(&harness, "action=session.create", 3).await;
    let before = verify(&export(&harness, "").await, &Trust::default());
    assert_eq!((before.checkpoint, before.end.number, before.signed), (None, 3, true));
    let harness = harness.restart().await;
    // The end signs what there is. That the trail was handed out is part of it.
    records(&harness, "action=audit.export", 1).await;
    let key = harness.get("/api/v1/audit/key").await;
    let file = std::fs::read_to_string(harness.dir.join("data/audit-checkpoints.jsonl")).unwrap();
    let checkpoints: Vec<Checkpoint> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let public_key: agentapi_shared::audit::PublicKey = key["public_key"].as_str().unwrap().parse().unwrap();
    let text = export(&harness, "").await;
    let report = verify(&text, &Trust { checkpoints, key: Some(public_key) });
    assert_eq!((report.checkpoint.map(|(number, _)| number), report.unvouched()), (Some(4), 0));
    assert_eq!(verify(&text, &Trust::default()).checkpoint, report.checkpoint, "the export brings them along");
    let rest = verify(&export(&harness, "?after=2").await, &Trust { checkpoints: Vec::new(), key: Some(public_key) });
    assert_eq!((rest.after, rest.checkpoint), (2, report.checkpoint));
    assert_eq!(harness.call("GET", "/api/v1/audit/export?after=99", None).await.0, 422);
    use std::os::unix::fs::PermissionsExt as _;
    let key = std::fs::metadata(harness.dir.join("data/audit-signing.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn pages_and_filters_are_checked() {
    let harness = Harness::start().await;
    for _ in 0..5 {
        harness.create().await;
    }
    records(&harness, "", 5).await;
    for order in ["newest", "oldest"] {
        let (mut numbers, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = harness.get(&format!("/api/v1/audit?limit=2&order={order}{cursor}")).await;
            numbers.extend(page["data"].as_array().unwrap().iter().filter_map(|record| record["number"].as_u64()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let expected: Vec<u64> = if order == "oldest" { (1..=5).collect() } else { (1..=5).rev().collect() };
        assert_eq!(numbers, expected);
    }
    for (query, field) in
        [("from=yesterday", "query.from"), ("session=7", "query.session"), ("order=up", "query.order")]
    {
        let (status, problem) = harness.call("GET", &format!("/api/v1/audit?{query}"), None).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)));
    }
}
