//! The audit trail: what is recorded, that it is only ever added to, that its chain shows any change, and what may be erased.

use std::time::SystemTime;

use agentapi_shared::audit::{Actor, ActorKind, Entry, Seal};
use agentapi_shared::{EventId, OrgId, SessionId};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::audit;
use crate::world::{PLATFORM, World};
use agentapi_test_postgres::cluster::Release;

/// A sealed record as a reader of the trail gets it.
struct Sealed {
    seal: Seal,
    id: EventId,
    entry: String,
}

async fn seal(world: &World) -> Result<u64> {
    let sealed = world.rest.call(&world.service, "job_seal_audit", &json!({ "p_max": 10_000 })).await?.done()?;
    sealed.as_u64().context("a count")
}

/// The chain of our organisation, as its auditor reads it.
async fn chain(world: &World) -> Result<Vec<Sealed>> {
    let auditor = &world.ours.in_role("auditor").caller;
    let rows = world.rest.get(auditor, "audit_seals?select=seq,hash,audit_logs(id,entry)&order=seq").await?.done()?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let read = |row: &Value| {
        let hash = text(&row["hash"])?;
        let hash = hash.strip_prefix("\\x").context("hexadecimal")?.parse()?;
        Ok(Sealed {
            seal: Seal { number: row["seq"].as_u64().context("a number")?, hash },
            id: text(&row["audit_logs"]["id"])?.parse()?,
            entry: text(&row["audit_logs"]["entry"])?,
        })
    };
    rows.as_array().into_iter().flatten().map(read).collect()
}

/// The number of the first record that is not as it was sealed, by the code that verifies exports.
fn first_bad(org: Uuid, chain: &[Sealed]) -> Option<u64> {
    let mut at = Seal::START;
    for record in chain {
        at = at.next(OrgId::from_u128(org.as_u128()), record.id, &record.entry);
        if record.seal != at {
            return Some(at.number);
        }
    }
    None
}

#[tokio::test]
async fn the_chain_shows_any_change() -> Result<()> {
    let world = World::new(Release::System).await?;
    let first = seal(&world).await?;
    ensure!(first > 10, "the world left records: {first}");
    assert_eq!(seal(&world).await?, 0, "each once");
    world.session(&world.ours).await?;
    assert_eq!(seal(&world).await?, 1);
    let (org, sealed) = (world.ours.id, chain(&world).await?);
    assert_eq!((first_bad(org, &sealed), sealed.len() > 10), (None, true));
    // The text is what was sent, to the byte: a database would have written 1.50 as 1.5.
    let ours = sealed.iter().filter(|record| !record.entry.contains("\"database\""));
    assert!(ours.into_iter().all(|record| record.entry.contains(":1.50}")));

    // Neither a tenant nor a job changes a record, nor does whoever owns the table.
    let third = sealed[2].id;
    for change in [
        format!("update agentapi.audit_logs set entry = replace(entry, 'api', 'apu') where id = '{third}'"),
        format!("delete from agentapi.audit_seals where audit_id = '{third}'"),
        "truncate agentapi.audit_logs cascade".to_owned(),
    ] {
        let refused = world.cluster.sql(&change).await;
        assert!(
            refused.as_ref().is_err_and(|error| error.to_string().contains("append_only")),
            "{change}: {refused:?}"
        );
    }
    // Whoever switches that off is seen.
    let by_force = |change: &str| format!("set session_replication_role = replica; {change}");
    let edit = format!(
        "update agentapi.audit_logs set entry = replace(entry, '\"channel\":\"api\"', '\"channel\":\"web\"') where id = '{third}'"
    );
    world.cluster.sql_as("supabase_admin", &by_force(&edit)).await?;
    assert_eq!(first_bad(org, &chain(&world).await?), Some(3));
    world
        .cluster
        .sql_as(
            "supabase_admin",
            &by_force(&edit.replace(
                "'\"channel\":\"api\"', '\"channel\":\"web\"'",
                "'\"channel\":\"web\"', '\"channel\":\"api\"'",
            )),
        )
        .await?;
    assert_eq!(first_bad(org, &chain(&world).await?), None);
    let remove = format!("delete from agentapi.audit_seals where org_id = '{org}' and seq = 5");
    world.cluster.sql_as("supabase_admin", &by_force(&remove)).await?;
    assert_eq!(first_bad(org, &chain(&world).await?), Some(5));
    Ok(())
}

#[tokio::test]
async fn changes_around_the_functions_are_recorded() -> Result<()> {
    let world = World::new(Release::System).await?;
    let by_hand = "select count(*) from agentapi.audit_logs where actor_kind = 'database'";
    assert_eq!(world.cluster.sql(by_hand).await?, "0", "functions write records of their own");
    let (org, viewer) = (world.ours.id, world.ours.in_role("viewer").id);
    let change =
        format!("update agentapi.memberships set role = 'owner' where org_id = '{org}' and user_id = '{viewer}'");
    world.cluster.sql(&change).await?;
    world.cluster.sql(&format!("delete from agentapi.user_sessions where id = '{}'", world.ours.session)).await?;
    world.cluster.sql("truncate agentapi.system_prompts").await?;
    let auditor = &world.ours.in_role("auditor").caller;
    let path = "audit_logs?channel=eq.database&select=action,created_by,session_id,entry&order=recorded_at,action";
    let rows = world.rest.get(auditor, path).await?.done()?;
    let found: Vec<(&str, &str)> = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| Some((row["action"].as_str()?, row["created_by"].as_str()?)))
        .collect();
    assert_eq!(found, [("database.update", "postgres"), ("database.delete", "postgres")]);
    let entry: Value = serde_json::from_str(rows[0]["entry"].as_str().unwrap_or_default())?;
    assert_eq!(
        entry["detail"],
        json!({ "table": "memberships", "row": format!("{org}/{viewer}"), "columns": ["role"] })
    );
    assert_eq!(rows[1]["session_id"], json!(world.ours.session));
    let platform = format!(
        "select count(*) from agentapi.audit_logs where org_id = '{PLATFORM}' and action = 'database.truncate'"
    );
    assert_eq!(world.cluster.sql(&platform).await?, "1");
    ensure!(seal(&world).await? > 10, "they are sealed as any other");
    assert_eq!(first_bad(org, &chain(&world).await?), None);
    Ok(())
}

#[tokio::test]
async fn a_person_is_erased_and_the_chain_holds() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, member, auditor) = (world.ours.id, world.ours.member(), &world.ours.in_role("auditor").caller);
    seal(&world).await?;
    let path = format!("audit_personal?created_by=eq.{}&select=data", member.id);
    let before = world.rest.get(auditor, &path).await?;
    assert!(before.rows() >= 3, "{before:?}");
    assert_eq!(before.body[0]["data"]["ip"], "192.0.2.1");
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 0, "a member reads no records");
    let erase = json!({ "p_user": member.id, "p_force": false, "p_audit": audit(PLATFORM, "system", "operator", "user.erase") });
    let erased = world.rest.call(&world.service, "job_erase_person", &erase).await?.done()?;
    assert_eq!(erased, json!({ "records": before.rows(), "sessions": 2 }));
    assert_eq!(world.rest.get(auditor, &path).await?.rows(), 0);
    let user = world.rest.get(auditor, &format!("users?id=eq.{}&select=name,email", member.id)).await?.done()?;
    assert_eq!(user[0], json!({ "name": null, "email": null }));
    assert_eq!(first_bad(org, &chain(&world).await?), None);
    let left = "select count(*) from agentapi.audit_logs where entry ~ 'Somebody|192.0.2.1|@'";
    assert_eq!(world.cluster.sql(left).await?, "0", "no record's text names a person");
    Ok(())
}

#[tokio::test]
async fn the_platforms_chain_is_read_by_no_tenant() -> Result<()> {
    let world = World::new(Release::System).await?;
    let record = json!({ "p_org": PLATFORM, "p_host": null, "p_seen": null, "p_audit": audit(PLATFORM, "system", "anonymous", "request.refused") });
    world.rest.call(&world.service, "job_record_audit", &record).await?.done()?;
    seal(&world).await?;
    let tables = ["audit_logs", "audit_seals", "audit_personal"];
    for table in tables {
        let path = format!("{table}?org_id=eq.{PLATFORM}&select=org_id");
        for person in world.ours.people.iter().chain(&world.theirs.people).chain([&world.outsider]) {
            let answer = world.rest.get(&person.caller, &path).await?;
            assert_eq!(answer.rows(), 0, "{table} by {}: {answer:?}", person.caller.name);
        }
        assert!(world.rest.get(&world.service, &path).await?.rows() > 0, "{table}: the control");
        let auditor = &world.ours.in_role("auditor").caller;
        let ours = format!("{table}?org_id=eq.{}&select=org_id&limit=1", world.ours.id);
        assert_eq!(world.rest.get(auditor, &ours).await?.rows(), 1, "{table}: the control");
    }
    // Nobody founds an organisation that the chain would be the trail of.
    let outsider = &world.outsider;
    let found = |org: Uuid| json!({ "p_org": org, "p_name": "platform", "p_by": "sign_up", "p_audit": audit(org, "user", &outsider.id.to_string(), "organization.create") });
    let refused = world.rest.call(&outsider.caller, "create_organization", &found(PLATFORM)).await?;
    assert_eq!(refused.code(), "23514", "{refused:?}");
    world.rest.call(&outsider.caller, "create_organization", &found(Uuid::now_v7())).await?.done()?;
    Ok(())
}

/// The embedded store is held to the same by its own tests: what both make of the same texts is the same.
#[tokio::test]
async fn texts_of_the_control_plane_are_taken_to_the_byte_and_chained_as_everywhere() -> Result<()> {
    let world = World::new(Release::System).await?;
    seal(&world).await?;
    let before = chain(&world).await?.last().map_or(Seal::START, |record| record.seal);
    let (org, member) = (OrgId::from_u128(world.ours.id.as_u128()), world.ours.member());
    let actor = member.id.to_string();
    let details = [
        json!(null),
        json!({ "b": "gr\u{fc}\u{df}e \u{2028}", "a": [1.5, "nul \0", "\\u0000"] }),
        json!("x".repeat(70_000)),
    ];
    let mut expected = before;
    for detail in &details {
        let entry = Entry {
            id: EventId::generate(),
            org,
            at: SystemTime::now().into(),
            action: "session.input",
            channel: "api",
            actor: Actor { kind: ActorKind::User, id: &actor, credential: Some("0123456789abcdef") },
            session: Some(SessionId::from_u128(world.ours.session.as_u128())),
            host: None,
            request: Some(EventId::generate()),
            detail,
        };
        let text = entry.text();
        expected = expected.next(org, entry.id, &text);
        let arguments =
            json!({ "p_org": world.ours.id, "p_audit": { "entry": text, "personal": null, "job": "system" } });
        world.rest.call(&member.caller, "record_audit", &arguments).await?.done()?;
        // One at a time: the order of records of one moment is the database's.
        assert_eq!(seal(&world).await?, 1);
    }
    let sealed = chain(&world).await?;
    assert_eq!((first_bad(world.ours.id, &sealed), sealed.last().map(|record| record.seal)), (None, Some(expected)));
    let heads = world.rest.call(&world.service, "job_audit_heads", &json!({})).await?.done()?;
    let head = heads.as_array().into_iter().flatten().find(|head| head["org_id"] == json!(world.ours.id));
    let expected = json!({ "org_id": world.ours.id, "seq": expected.number, "hash": expected.hash });
    assert_eq!(head, Some(&expected));
    Ok(())
}
