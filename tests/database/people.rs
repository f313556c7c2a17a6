//! Who comes and goes: users who were deleted elsewhere, tokens, hosts that are enrolled and end.

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::{Caller, audit};
use crate::world::{World, place};
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt::sha256_hex;

const ISSUER: &str = "https://project.example/auth/v1";

#[tokio::test]
async fn a_user_deleted_elsewhere_loses_access_and_their_sessions_stop() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (member, owner) = (world.ours.member(), world.ours.owner());
    // As Supabase Auth has them: all but one, who is then deleted in Studio.
    world.cluster.sql_as("supabase_admin", "insert into auth.users (id) select id from agentapi.users").await?;
    let end = async || {
        let ended =
            world.rest.call(&world.service, "job_end_deleted_users", &json!({ "p_issuer": ISSUER })).await?.done()?;
        Ok::<_, anyhow::Error>(ended.as_array().map_or(0, Vec::len))
    };
    assert_eq!(end().await?, 0);
    let path = format!("user_sessions?org_id=eq.{}&select=id,desired,generation,created_by", world.ours.id);
    assert_eq!(world.rest.get(&member.caller, &path).await?.rows(), 2);
    world.cluster.sql_as("supabase_admin", &format!("delete from auth.users where id = '{}'", member.id)).await?;
    assert_eq!(end().await?, 2);
    assert_eq!(end().await?, 2, "until their hosts have ended them");
    assert_eq!(
        world.rest.get(&member.caller, &path).await?.rows(),
        0,
        "their token is good for an hour, and opens nothing"
    );
    let sessions = world.rest.get(&owner.caller, &path).await?.done()?;
    let sessions = sessions.as_array().cloned().unwrap_or_default();
    ensure!(sessions.len() == 2, "no session is gone: {sessions:?}");
    assert!(sessions.iter().all(|session| session["desired"] == "stop" && session["generation"] == 2), "{sessions:?}");
    let records = format!(
        "select count(*) from agentapi.audit_logs where org_id = '{}' and action = 'session.stop' and created_by = 'deleted_users'",
        world.ours.id
    );
    assert_eq!(world.cluster.sql(&records).await?, "2");
    // Nobody else lost anything, and a user of another issuer is none of Supabase's.
    let disabled = world.cluster.sql("select count(*) from agentapi.users where disabled_at is not null").await?;
    assert_eq!(disabled, "1");
    world.cluster.sql("update agentapi.users set issuer = 'https://elsewhere.example'").await?;
    world.cluster.sql_as("supabase_admin", "delete from auth.users").await?;
    assert_eq!(end().await?, 2, "nobody else is shut out");
    Ok(())
}

async fn holder(world: &World, token: &str) -> Result<Value> {
    world.rest.call(&world.service, "job_token", &json!({ "p_hash": sha256_hex(token) })).await?.done()
}

#[tokio::test]
async fn a_token_leads_to_its_holder_while_it_is_good() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, member) = (world.ours.id, world.ours.member());
    let record = |action| audit(org, "user", &member.id.to_string(), action);
    let (key, over) = (Uuid::now_v7(), Uuid::now_v7());
    for (id, name, until) in [(key, "key", "2099-01-01T00:00:00Z"), (over, "over", "2020-01-01T00:00:00Z")] {
        let made = json!({ "p_org": org, "p_id": id, "p_name": name, "p_prefix": "aa_1234", "p_hash": sha256_hex(name),
            "p_scopes": ["sessions"], "p_expires_at": until, "p_audit": record("api_key.create") });
        world.rest.call(&member.caller, "create_api_key", &made).await?.done()?;
    }
    let found = holder(&world, "key").await?;
    assert_eq!(
        (&found["user_id"], &found["org_id"], &found["role"]),
        (&json!(member.id), &json!(org), &json!("member"))
    );
    assert_eq!((&found["organization"], &found["scopes"]), (&json!("ours"), &json!(["sessions"])));
    assert_eq!((holder(&world, "over").await?, holder(&world, "unknown").await?), (Value::Null, Value::Null));
    let used = world.rest.get(&member.caller, "api_keys?select=name,last_used_at&order=name").await?.done()?;
    assert!(used[0]["last_used_at"].is_string() && used[1]["last_used_at"].is_null(), "{used}");

    // Another member's key is not theirs to end, and not even seen.
    let revoke = |id: Uuid, by: Uuid| json!({ "p_org": org, "p_id": id, "p_audit": audit(org, "user", &by.to_string(), "api_key.revoke") });
    let account = world.ours.in_role("service_account");
    let refused = world.rest.call(&account.caller, "revoke_api_key", &revoke(key, account.id)).await?;
    assert_eq!(refused.status, 404, "{refused:?}");
    // Who is a member no longer holds nothing.
    let leave = json!({ "p_org": org, "p_user": member.id, "p_audit": record("member.leave") });
    world.rest.call(&member.caller, "remove_member", &leave).await?.done()?;
    assert_eq!(holder(&world, "key").await?, Value::Null);
    // The embedded store's tokens come the same way.
    let owner = world.ours.owner();
    for _ in 0..2 {
        let token = json!({ "p_hash": sha256_hex("token"), "p_id": Uuid::now_v7(), "p_org": org, "p_user": owner.id, "p_name": "token",
            "p_at": "2026-01-02T03:04:05Z" });
        world.rest.call(&world.service, "job_register_token", &token).await?.done()?;
    }
    assert_eq!(holder(&world, "token").await?["role"], "owner");
    Ok(())
}

/// What nobody confirmed within ten minutes was lost on its way, unless the host comes with it. `fourth` is good before.
async fn waiting_credentials_go_and_the_one_that_is_shown_stays(world: &World, host: Uuid) -> Result<()> {
    let rotate = async |shown: &str, credential: &str| {
        let arguments = json!({ "p_host": host, "p_credential": sha256_hex(credential), "p_shown": sha256_hex(shown),
            "p_others_end_at": "2026-01-02T00:00:00Z",
            "p_audit": audit(world.ours.id, "host", &host.to_string(), "host.rotate") });
        world.rest.call(&world.service, "job_rotate_host_credential", &arguments).await?.done()
    };
    let age = "update agentapi.host_credentials set created_at = created_at - interval '11 minutes' where pending";
    rotate("fourth", "lost").await?;
    world.cluster.sql(age).await?;
    assert_eq!(holder(world, "lost").await?["kind"], "host", "it goes with the next rotation");
    rotate("fourth", "fifth").await?;
    assert_eq!(
        (holder(world, "lost").await?, holder(world, "fourth").await?["kind"].clone()),
        (Value::Null, json!("host"))
    );
    // Of a host whose confirmation was lost, and that comes back late. Those before were older still.
    world.cluster.sql(&format!("{age} or host_id = '{host}'")).await?;
    rotate("fifth", "sixth").await?;
    assert_eq!(holder(world, "fourth").await?, Value::Null);
    for credential in ["fifth", "sixth"] {
        assert_eq!(holder(world, credential).await?["kind"], "host", "{credential}");
    }
    Ok(())
}

#[tokio::test]
async fn a_machine_becomes_a_host_once_and_until_it_is_revoked() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, owner) = (world.ours.id, world.ours.owner());
    let record = |action| audit(org, "user", &owner.id.to_string(), action);
    let enrolment = |token: &str, until: &str| {
        json!({ "p_org": org, "p_hash": sha256_hex(token), "p_name": "builder", "p_expires_at": until,
        "p_audit": record("host.enrolment") })
    };
    for (token, until) in [("token", "2099-01-01T00:00:00Z"), ("late", "2026-01-02T00:00:00Z")] {
        world.rest.call(&owner.caller, "create_host_enrolment", &enrolment(token, until)).await?.done()?;
    }
    let redeem = async |token: &str, credential: String| {
        let host = Uuid::now_v7();
        let arguments = json!({ "p_hash": sha256_hex(token), "p_host": host, "p_credential": sha256_hex(&credential), "p_at": "2026-01-02T00:00:00Z" });
        let org = world.rest.call(&world.service, "job_redeem_host_enrolment", &arguments).await?.done()?;
        Ok::<_, anyhow::Error>((host, credential, org))
    };
    let tries = join_all((0..8).map(|at| redeem("token", format!("credential {at}"))))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let taken: Vec<_> = tries.into_iter().filter(|(_, _, org)| !org.is_null()).collect();
    ensure!(taken.len() == 1 && taken[0].2 == json!(org), "one machine is taken: {taken:?}");
    assert_eq!(redeem("late", "late".to_owned()).await?.2, Value::Null);
    let (host, credential) = (taken[0].0, taken[0].1.clone());
    assert_eq!(holder(&world, &credential).await?, json!({ "kind": "host", "host_id": host }));

    // A new credential, and for a while the one before.
    let rotate = async |credential: &str, until: &str| {
        let arguments = json!({ "p_host": host, "p_credential": sha256_hex(credential), "p_others_end_at": until,
            "p_audit": audit(org, "host", &host.to_string(), "host.rotate") });
        world.rest.call(&world.service, "job_rotate_host_credential", &arguments).await?.done()
    };
    rotate("second", "2099-01-01T00:00:00Z").await?;
    assert_eq!(holder(&world, &credential).await?["kind"], "host");
    rotate("third", "2026-01-02T00:00:00Z").await?;
    assert_eq!((holder(&world, &credential).await?, holder(&world, "second").await?), (Value::Null, Value::Null));
    assert_eq!(holder(&world, "third").await?["kind"], "host");
    // Without a time those before are good until the new one was used: its answer may be lost on the way.
    let arguments = json!({ "p_host": host, "p_credential": sha256_hex("fourth"), "p_others_end_at": null,
        "p_audit": audit(org, "host", &host.to_string(), "host.rotate") });
    world.rest.call(&world.service, "job_rotate_host_credential", &arguments).await?.done()?;
    for credential in ["third", "fourth"] {
        assert_eq!(holder(&world, credential).await?["kind"], "host", "{credential}");
    }
    let confirm =
        |credential: &str| json!({ "p_credential": sha256_hex(credential), "p_others_end_at": "2026-01-02T00:00:00Z" });
    world.rest.call(&world.service, "job_confirm_host_credential", &confirm("third")).await?.done()?;
    assert_eq!(holder(&world, "fourth").await?["kind"], "host", "one that was never pending confirms nothing");
    world.rest.call(&world.service, "job_confirm_host_credential", &confirm("fourth")).await?.done()?;
    assert_eq!(holder(&world, "third").await?, Value::Null);
    waiting_credentials_go_and_the_one_that_is_shown_stays(&world, host).await?;

    // What runs there goes on being known; the host itself is nobody any more.
    let session = world.session(&world.ours).await?;
    place(&world.rest, &world.service, session, host, org).await?;
    let revoke = json!({ "p_org": org, "p_host": host, "p_audit": record("host.revoke") });
    world.rest.call(&owner.caller, "revoke_host", &revoke).await?.done()?;
    assert_eq!(holder(&world, "fifth").await?, Value::Null);
    let hosts = world.rest.call(&owner.caller, "hosts_of", &json!({ "p_org": org })).await?;
    assert!(
        hosts.body.as_array().is_some_and(|hosts| hosts.iter().all(|known| known["id"] != json!(host))),
        "{hosts:?}"
    );
    // A shared host is the platform's: seen by members of any organisation, ended by none of them.
    let shared = Uuid::now_v7();
    let made = json!({ "p_host": shared, "p_org": null, "p_name": "shared", "p_audit": audit(Uuid::nil(), "system", "job", "host.create") });
    world.rest.call(&world.service, "job_create_host", &made).await?.done()?;
    let path = format!("hosts?id=eq.{shared}&select=id");
    for (caller, rows) in
        [(&owner.caller, 1), (&world.theirs.member().caller, 1), (&world.outsider.caller, 0), (&Caller::anon(), 0)]
    {
        assert_eq!(world.rest.get(caller, &path).await?.rows(), rows, "{}", caller.name);
    }
    let revoke = json!({ "p_org": org, "p_host": shared, "p_audit": record("host.revoke") });
    assert_eq!(world.rest.call(&owner.caller, "revoke_host", &revoke).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn an_invitation_is_for_the_owner_of_a_verified_address() -> Result<()> {
    let world = World::new(Release::System).await?;
    let (org, owner, outsider) = (world.ours.id, world.ours.owner(), &world.outsider);
    let address = format!("{}@mail.example", outsider.id);
    let invite = async |name: &str, email: &str, until: &str| {
        let id = Uuid::now_v7();
        let made = json!({ "p_org": org, "p_id": id, "p_email": email, "p_role": "viewer", "p_token_hash": sha256_hex(name),
            "p_expires_at": until, "p_audit": audit(org, "user", &owner.id.to_string(), "invitation.create") });
        world.rest.call(&owner.caller, "create_invitation", &made).await?.done()?;
        Ok::<_, anyhow::Error>(id)
    };
    let accept = async |name: &str| {
        let arguments = json!({ "p_org": org, "p_token_hash": sha256_hex(name),
            "p_audit": audit(org, "user", &outsider.id.to_string(), "invitation.accept") });
        Ok::<_, anyhow::Error>(world.rest.call(&outsider.caller, "accept_invitation", &arguments).await?.status)
    };
    let verified = async |is: bool| {
        let login = json!({ "p_user": outsider.id, "p_kind": "person", "p_issuer": ISSUER, "p_subject": outsider.id, "p_name": "outsider",
            "p_email": address, "p_email_verified": is });
        world.rest.call(&world.service, "job_login", &login).await?.done()
    };
    let later = "2099-01-01T00:00:00Z";
    invite("good", &address.to_uppercase(), later).await?;
    invite("of another", "somebody@mail.example", later).await?;
    invite("over", &address, "2020-01-01T00:00:00Z").await?;
    let revoked = invite("revoked", &address, later).await?;
    let revoke = json!({ "p_org": org, "p_id": revoked, "p_audit": audit(org, "user", &owner.id.to_string(), "invitation.revoke") });
    world.rest.call(&owner.caller, "revoke_invitation", &revoke).await?.done()?;
    for name in ["unknown", "of another", "over", "revoked"] {
        assert_eq!(accept(name).await?, 404, "{name}");
    }
    verified(false).await?;
    assert_eq!(accept("good").await?, 403, "an address that is not verified");
    verified(true).await?;
    let statuses = join_all((0..8).map(|_| accept("good"))).await.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(statuses.iter().filter(|status| **status < 300).count(), 1, "{statuses:?}");
    let role = world.rest.get(&outsider.caller, &format!("memberships?user_id=eq.{}&select=role", outsider.id)).await?;
    assert_eq!(role.done()?, json!([{ "role": "viewer" }]));
    // An admin invites no owner: it would be a way around what they may grant.
    let admin = world.ours.in_role("admin");
    let made = json!({ "p_org": org, "p_id": Uuid::now_v7(), "p_email": "a@b.example", "p_role": "owner", "p_token_hash": sha256_hex("owner"),
        "p_expires_at": later, "p_audit": audit(org, "user", &admin.id.to_string(), "invitation.create") });
    assert_eq!(world.rest.call(&admin.caller, "create_invitation", &made).await?.status, 403);
    Ok(())
}
