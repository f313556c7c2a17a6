//! Logins: of people who are in no organisation, of those whom Supabase Auth has banned, and what ends with a key or a membership.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::audit;
use crate::world::{PLATFORM, World, join};
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt::sha256_hex;

const ISSUER: &str = "https://project.example/auth/v1";
const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2099-01-01T00:00:00Z";

async fn begin(world: &World, user: Uuid, cookie: &str, newcomer: bool) -> Result<Value> {
    let login = json!({ "p_user": user, "p_org": null, "p_cookie": sha256_hex(cookie), "p_by": "password", "p_at": NOW,
        "p_expires_at": LATER, "p_auth_session": null, "p_refresh": null, "p_newcomer": newcomer });
    world.rest.call(&world.service, "job_begin_login", &login).await?.done()
}

async fn whose(world: &World, cookie: &str) -> Result<Value> {
    let session = json!({ "p_hash": sha256_hex(cookie), "p_now": NOW });
    world.rest.call(&world.service, "job_browser_session", &session).await?.done()
}

#[tokio::test]
async fn a_newcomer_has_a_login_and_nothing_with_it_until_they_join() -> Result<()> {
    let world = World::new(Release::System).await?;
    let outsider = &world.outsider;
    // A control plane of an earlier release does not ask for such logins, and gets none.
    assert_eq!(begin(&world, outsider.id, "old", false).await?, Value::Null);
    assert_eq!(begin(&world, Uuid::now_v7(), "unknown", true).await?, Value::Null);
    assert_eq!(begin(&world, outsider.id, "new", true).await?["kind"], "newcomer");
    let recorded =
        "select org_id || ' ' || action from agentapi.audit_logs where created_by = '{user}' order by created_at";
    let recorded = recorded.replace("{user}", &outsider.id.to_string());
    assert_eq!(world.cluster.sql(&recorded).await?, format!("{PLATFORM} login"));
    let found = whose(&world, "new").await?;
    assert_eq!(
        (&found["kind"], &found["user_id"], &found["role"]),
        (&json!("newcomer"), &json!(outsider.id), &Value::Null)
    );
    for path in ["organizations?select=id", "user_sessions?select=id", "memberships?select=user_id", "hosts?select=id"]
    {
        assert_eq!(world.rest.get(&outsider.caller, path).await?.rows(), 0, "{path}");
        assert!(world.rest.get(&world.ours.owner().caller, path).await?.rows() > 0, "{path}");
    }
    join(&world.rest, world.ours.id, world.ours.owner(), outsider, "viewer").await?;
    assert_eq!(whose(&world, "new").await?["org_id"], json!(world.ours.id));

    // Removed by hand, and back again: a login of before is over.
    let gone = format!("delete from agentapi.memberships where user_id = '{}'", outsider.id);
    world
        .cluster
        .sql(&format!("{gone}; delete from agentapi.invitations where accepted_by = '{}'", outsider.id))
        .await?;
    assert_eq!(whose(&world, "new").await?, Value::Null);
    join(&world.rest, world.ours.id, world.ours.owner(), outsider, "viewer").await?;
    assert_eq!(whose(&world, "new").await?, Value::Null);
    Ok(())
}

#[tokio::test]
async fn who_is_banned_has_nothing_as_long_as_they_are() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (member, owner) = (world.ours.member(), world.ours.owner());
    world.cluster.sql_as("supabase_admin", "insert into auth.users (id) select id from agentapi.users").await?;
    begin(&world, member.id, "cookie", true).await?;
    begin(&world, owner.id, "owner's", true).await?;
    let look = async |until: &str, who: Uuid| {
        let ban = format!("update auth.users set banned_until = {until} where id = '{who}'");
        world.cluster.sql_as("supabase_admin", &ban).await?;
        world.rest.call(&world.service, "job_end_deleted_users", &json!({ "p_issuer": ISSUER })).await?.done()
    };
    let path = format!("user_sessions?org_id=eq.{}&select=id,desired", world.ours.id);
    let sees = async || Ok::<_, anyhow::Error>(world.rest.get(&member.caller, &path).await?.rows());
    assert_eq!((sees().await?, whose(&world, "cookie").await?["role"].clone()), (2, json!("member")));
    // One that is over bans nobody.
    assert_eq!(look("now() - interval '1 hour'", member.id).await?, json!([]));
    assert_eq!(sees().await?, 2);
    for _ in 0..2 {
        assert_eq!(look("now() + interval '1 hour'", member.id).await?, json!([]), "nobody's session is stopped");
        assert_eq!((sees().await?, whose(&world, "cookie").await?), (0, Value::Null));
        let asked = json!({ "p_org": world.ours.id, "p_user": member.id });
        assert_eq!(world.rest.call(&world.service, "job_member", &asked).await?.done()?, Value::Null);
        assert_eq!(whose(&world, "owner's").await?["role"], "owner");
    }
    let sessions = world.rest.get(&owner.caller, &path).await?.done()?;
    assert!(sessions.as_array().is_some_and(|all| all.iter().all(|one| one["desired"] == "run")), "{sessions}");
    look("null", member.id).await?;
    assert_eq!((sees().await?, whose(&world, "cookie").await?["role"].clone()), (2, json!("member")));
    let records = "select string_agg(action, ' ' order by n) from agentapi.audit_logs join agentapi_private.audit_queue on audit_id = id
                   where created_by = 'banned_users'";
    assert_eq!(world.cluster.sql(records).await?, "user.disable user.enable");

    // What the platform took stays taken when a ban is over, and so does what a deletion took.
    let record = audit(PLATFORM, "system", "job", "user.disable");
    let disable = json!({ "p_user": member.id, "p_disabled": true, "p_force": false, "p_audit": record });
    look("'infinity'", member.id).await?;
    world.rest.call(&world.service, "job_disable_user", &disable).await?.done()?;
    look("null", member.id).await?;
    assert_eq!(sees().await?, 0);
    let leaver = world.ours.in_role("viewer");
    look("'infinity'", leaver.id).await?;
    world.cluster.sql_as("supabase_admin", &format!("delete from auth.users where id = '{}'", leaver.id)).await?;
    for _ in 0..2 {
        look("null", owner.id).await?;
        let state = format!(
            "select disabled_at is not null and disabled_by is null from agentapi.users where id = '{}'",
            leaver.id
        );
        assert_eq!(world.cluster.sql(&state).await?, "t");
    }
    // A Supabase Auth that bans nobody.
    world.cluster.sql_as("supabase_admin", "alter table auth.users drop column banned_until").await?;
    world.rest.call(&world.service, "job_end_deleted_users", &json!({ "p_issuer": ISSUER })).await?.done()?;
    Ok(())
}

#[tokio::test]
async fn nobody_ends_the_keys_of_others_by_those_that_they_made() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, owner, member) = (world.ours.id, world.ours.owner(), world.ours.member());
    let key = |id: Uuid, by: Uuid, made_by: Option<Uuid>| {
        json!({ "p_org": org, "p_id": id, "p_name": id, "p_prefix": "aa", "p_hash": sha256_hex(&id.to_string()), "p_scopes": [],
            "p_expires_at": null, "p_made_by": made_by, "p_audit": audit(org, "user", &by.to_string(), "api_key.create") })
    };
    let [root, child, members] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    world.rest.call(&owner.caller, "create_api_key", &key(root, owner.id, None)).await?.done()?;
    world.rest.call(&owner.caller, "create_api_key", &key(child, owner.id, Some(root))).await?.done()?;
    // Nobody makes theirs with a key of somebody else's, nor with one that is not there.
    for made_by in [root, Uuid::now_v7()] {
        let refused =
            world.rest.call(&member.caller, "create_api_key", &key(members, member.id, Some(made_by))).await?;
        assert_eq!((refused.status, refused.word()), (401, "no_caller"), "{refused:?}");
    }
    world.rest.call(&member.caller, "create_api_key", &key(members, member.id, None)).await?.done()?;
    let revoke = |id: Uuid, by: Uuid| json!({ "p_org": org, "p_id": id, "p_audit": audit(org, "user", &by.to_string(), "api_key.revoke") });
    for id in [root, child] {
        let refused = world.rest.call(&member.caller, "revoke_api_key", &revoke(id, member.id)).await?;
        assert_eq!(refused.status, 404, "{refused:?}");
    }
    world.rest.call(&owner.caller, "revoke_api_key", &revoke(root, owner.id)).await?.done()?;
    let live = "select id from agentapi.api_keys where revoked_at is null";
    assert_eq!(world.cluster.sql(live).await?, members.to_string());
    // Each that ended has its record.
    let records =
        format!("select count(*) from agentapi.audit_logs where action = 'api_key.revoke' and org_id = '{org}'");
    assert_eq!(world.cluster.sql(&records).await?, "2");
    Ok(())
}
