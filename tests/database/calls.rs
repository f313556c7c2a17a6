//! One good call of every function that can be reached over REST, and who may make it.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::audit;
use crate::world::{Org, PLATFORM, World, create_session, join, new_session, person, place};
use agentapi_test_postgres::jwt::sha256_hex;

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rightful {
    /// Members of the organisation with this capability.
    With(&'static str),
    /// Whoever is invited, or founds something: no member.
    Outsider,
    /// Jobs of the control plane.
    Service,
    /// Everyone, each for what they see.
    Reader,
}

/// A call, for whoever's id is put into its audit record.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) rightful: Rightful,
    arguments: Value,
    /// Of the record; none: the call takes none.
    record: Option<(Uuid, &'static str)>,
}

impl Call {
    /// Its arguments, if `actor` makes it.
    pub(crate) fn arguments(&self, actor: Uuid) -> Value {
        let mut arguments = self.arguments.clone();
        if let Some((org, action)) = self.record {
            arguments["p_audit"] = if self.rightful == Rightful::Service {
                audit(org, "system", "job", action)
            } else {
                audit(org, "user", &actor.to_string(), action)
            };
        }
        arguments
    }
}

/// What the calls are about.
#[derive(Debug)]
pub(crate) struct Things {
    revocable: Uuid,
    viewer: Uuid,
    invited_token: String,
    api_key: Uuid,
    host: Uuid,
    enrolment: String,
    login: String,
    code: String,
    revision: u64,
}

const LATER: &str = "2099-01-01T00:00:00Z";
const NOW: &str = "2026-01-02T03:04:05Z";

/// A secret of a thing, by name.
fn secret(org: &Org, name: &str) -> String {
    sha256_hex(&format!("{name} {}", org.id))
}

/// What the owner makes.
fn by_owner(org: &Org, outsider: Uuid, revocable: Uuid, api_key: Uuid) -> Vec<(&'static str, Value)> {
    let token = |name| secret(org, name);
    let record = |action| audit(org.id, "user", &org.owner().id.to_string(), action);
    vec![
        (
            "create_invitation",
            json!({ "p_org": org.id, "p_id": revocable, "p_email": "somebody@mail.example", "p_role": "viewer",
            "p_token_hash": token("revocable"), "p_expires_at": LATER, "p_audit": record("invitation.create") }),
        ),
        (
            "create_invitation",
            json!({ "p_org": org.id, "p_id": Uuid::now_v7(), "p_email": format!("{}@mail.example", outsider),
            "p_role": "viewer", "p_token_hash": token("invited"), "p_expires_at": LATER, "p_audit": record("invitation.create") }),
        ),
        (
            "create_api_key",
            json!({ "p_org": org.id, "p_id": api_key, "p_name": "key", "p_prefix": "aa", "p_hash": token("key"),
            "p_scopes": ["sessions"], "p_expires_at": LATER, "p_audit": record("api_key.create") }),
        ),
        (
            "create_login_code",
            json!({ "p_org": org.id, "p_hash": token("first"), "p_expires_at": LATER, "p_audit": record("login.code") }),
        ),
        (
            "create_login_code",
            json!({ "p_org": org.id, "p_hash": token("second"), "p_expires_at": LATER, "p_audit": record("login.code") }),
        ),
        (
            "create_host_enrolment",
            json!({ "p_org": org.id, "p_hash": token("enrolment"), "p_name": "third", "p_expires_at": LATER, "p_audit": record("host.enrolment") }),
        ),
        (
            "begin_idempotent",
            json!({ "p_org": org.id, "p_at": NOW, "p_key": { "route": "route", "key": "key", "request_hash": "hash" } }),
        ),
    ]
}

/// Puts a row into every table that has none of our organisation, as the calls need them.
pub(crate) async fn fill(world: &World) -> Result<Things> {
    let org = &world.ours;
    let owner = org.owner();
    let token = |name| secret(org, name);
    let [revocable, api_key, host, viewer] = [(); 4].map(|()| Uuid::now_v7());
    for (name, arguments) in by_owner(org, world.outsider.id, revocable, api_key) {
        world.rest.call(&owner.caller, name, &arguments).await?.done()?;
    }
    world.rest.call(&owner.caller, "attach_viewer", &attach(org, viewer, owner.id)).await?.done()?;
    let jobs = [
        (
            "job_redeem_login_code",
            json!({ "p_code": token("first"), "p_cookie": token("cookie"), "p_at": NOW, "p_expires_at": LATER }),
        ),
        ("job_register_host_token", json!({ "p_hash": token("host"), "p_host": org.host, "p_at": NOW })),
        ("job_record_egress", egress(org)),
        (
            "job_create_host",
            json!({ "p_host": host, "p_org": org.id, "p_name": "to go", "p_audit": audit(org.id, "system", "job", "host.create") }),
        ),
        ("job_seal_audit", json!({ "p_max": 1000 })),
    ];
    for (name, arguments) in jobs {
        world.rest.call(&world.service, name, &arguments).await?.done()?;
    }
    let by_hand = format!(
        "insert into agentapi.mcp_configs (id, org_id, created_by, name, spec) values ('{0}', '{1}', '{2}', 'mcp', '{{}}');
         insert into agentapi.system_prompts (id, org_id, created_by, name, body) values ('{0}', '{1}', '{2}', 'prompt', 'Hello')",
        Uuid::now_v7(),
        org.id,
        owner.id
    );
    world.cluster.sql(&by_hand).await?;
    Ok(Things {
        revocable,
        viewer,
        invited_token: token("invited"),
        api_key,
        host,
        enrolment: token("enrolment"),
        login: token("cookie"),
        code: token("second"),
        revision: 2,
    })
}

/// What `attach_viewer` takes, for a session that everybody sees.
pub(crate) fn attach(org: &Org, viewer: Uuid, by: Uuid) -> Value {
    json!({ "p_org": org.id, "p_viewer": viewer, "p_session": org.shared, "p_lease_s": 60, "p_replaces": null,
        "p_audit": audit(org.id, "user", &by.to_string(), "terminal.attach") })
}

fn egress(org: &Org) -> Value {
    json!({
        "p_host": org.host, "p_seen": 1, "p_decision": {
            "id": Uuid::now_v7(), "session": org.session, "spawn": 1, "at": NOW, "host": "a.example", "port": 443, "address": null,
            "verdict": "denied", "rule": "no_rule", "bytes_up": 1, "bytes_down": 2, "duration_ms": 3
        }
    })
}

/// Every function with a call about `world.ours`, in an order in which all of them can be made.
pub(crate) async fn calls(world: &World, things: &Things) -> Result<Vec<Call>> {
    let org = &world.ours;
    // A member who is there to go, and a session that is there to be purged by a job.
    let leaver = person(&world.rest, &world.service, "leaver").await?;
    join(&world.rest, org.id, org.owner(), &leaver, "viewer").await?;
    let over = world.session(org).await?;
    place(&world.rest, &world.service, over, org.host, org.id).await?;
    let mut all = session_calls(world, things, leaver.id);
    all.extend(organization_calls(world, things, leaver.id));
    all.extend(service_calls(world, things, over));
    all.extend(credential_calls(world, things));
    all.extend(trail_calls());
    Ok(all)
}

/// A call of a member; no action: it takes no record.
fn member_call(org: &Org, name: &'static str, rightful: Rightful, action: &'static str, mut arguments: Value) -> Call {
    arguments["p_org"] = json!(org.id);
    Call { name, rightful, arguments, record: (!action.is_empty()).then_some((org.id, action)) }
}

fn session_calls(world: &World, things: &Things, leaver: Uuid) -> Vec<Call> {
    let org = &world.ours;
    let key = json!({ "route": "route", "key": "key", "request_hash": "hash" });
    let call = |name, rightful, action, arguments| member_call(org, name, rightful, action, arguments);
    let with = Rightful::With;
    let made = || create_session(org.id, leaver, &new_session(Uuid::now_v7()));
    vec![
        call("create_session", with("session.create"), "session.create", made()),
        call("make_session", with("session.create"), "session.create", made()),
        call(
            "update_session",
            with("session.manage_all"),
            "session.update",
            json!({ "p_id": org.shared, "p_revision": things.revision, "p_change": { "name": "new" } }),
        ),
        call(
            "attach_viewer",
            with("terminal.view"),
            "terminal.attach",
            json!({ "p_viewer": Uuid::now_v7(), "p_session": org.shared, "p_lease_s": 60, "p_replaces": null }),
        ),
        call("detach_viewer", with("organization.view"), "terminal.detach", json!({ "p_viewer": things.viewer })),
        call("purge_session", with("session.manage_all"), "session.purge", json!({ "p_id": org.shared })),
        call("begin_idempotent", with("organization.view"), "", json!({ "p_key": key, "p_at": NOW })),
        call(
            "finish_idempotent",
            with("organization.view"),
            "",
            json!({ "p_key": key, "p_status": 201, "p_body": "{}" }),
        ),
        call("release_idempotent", with("organization.view"), "", json!({ "p_key": key })),
        call("record_audit", with("organization.view"), "session.attach", json!({})),
        call(
            "create_login_code",
            with("organization.view"),
            "login.code",
            json!({ "p_hash": sha256_hex(&Uuid::now_v7().to_string()), "p_expires_at": LATER }),
        ),
        call("end_browser_session", with("organization.view"), "logout", json!({ "p_hash": things.login })),
    ]
}

fn organization_calls(world: &World, things: &Things, leaver: Uuid) -> Vec<Call> {
    let org = &world.ours;
    let call = |name, rightful, action, arguments| member_call(org, name, rightful, action, arguments);
    let with = Rightful::With;
    vec![
        call(
            "update_organization",
            with("organization.manage"),
            "organization.update",
            json!({ "p_revision": 1, "p_name": "new", "p_settings": {} }),
        ),
        call(
            "set_member_role",
            with("member.manage"),
            "member.role",
            json!({ "p_user": org.in_role("viewer").id, "p_role": "member" }),
        ),
        call("remove_member", with("member.manage"), "member.remove", json!({ "p_user": leaver })),
        call(
            "create_invitation",
            with("member.manage"),
            "invitation.create",
            json!({ "p_id": Uuid::now_v7(), "p_email": "new@mail.example", "p_role": "member",
                "p_token_hash": sha256_hex(&Uuid::now_v7().to_string()), "p_expires_at": LATER }),
        ),
        call("revoke_invitation", with("member.manage"), "invitation.revoke", json!({ "p_id": things.revocable })),
        call(
            "create_api_key",
            with("api_key.create"),
            "api_key.create",
            json!({ "p_id": Uuid::now_v7(), "p_name": "key", "p_prefix": "aa", "p_hash": sha256_hex(&Uuid::now_v7().to_string()),
                "p_scopes": [], "p_expires_at": LATER }),
        ),
        call("revoke_api_key", with("api_key.manage"), "api_key.revoke", json!({ "p_id": things.api_key })),
        call(
            "create_host_enrolment",
            with("host.manage"),
            "host.enrolment",
            json!({ "p_hash": sha256_hex(&Uuid::now_v7().to_string()), "p_name": "fourth", "p_expires_at": LATER }),
        ),
        call("revoke_host", with("host.manage"), "host.revoke", json!({ "p_host": things.host })),
        call("sessions_page", Rightful::Reader, "", json!({ "p_limit": 10 })),
        call("hosts_of", Rightful::Reader, "", json!({})),
        // Last of them: whoever is invited is a stranger until then.
        call(
            "accept_invitation",
            Rightful::Outsider,
            "invitation.accept",
            json!({ "p_token_hash": things.invited_token }),
        ),
    ]
}

/// Of the audit trail as a whole, and of the schema.
fn trail_calls() -> Vec<Call> {
    let call = |name, arguments| Call { name, rightful: Rightful::Service, arguments, record: None };
    vec![
        call("job_seal_audit", json!({ "p_max": 1000 })),
        call("job_audit_heads", json!({})),
        call("job_schema_version", json!({})),
    ]
}

fn service_calls(world: &World, things: &Things, over: Uuid) -> Vec<Call> {
    let org = &world.ours;
    let call = |name, record, arguments| Call { name, rightful: Rightful::Service, arguments, record };
    vec![
        call(
            "job_update_session",
            Some((org.id, "session.fix")),
            json!({ "p_host": null, "p_id": org.session, "p_revision": 2, "p_change": { "cols": 90 }, "p_seen": null }),
        ),
        call("job_purge_session", Some((org.id, "session.purge")), json!({ "p_host": null, "p_id": over })),
        call("job_record_audit", Some((org.id, "job")), json!({ "p_org": org.id, "p_host": null, "p_seen": null })),
        call("job_record_egress", None, egress(org)),
        call(
            "job_create_host",
            Some((org.id, "host.create")),
            json!({ "p_host": Uuid::now_v7(), "p_org": org.id, "p_name": "second" }),
        ),
        call(
            "job_host_connected",
            None,
            json!({ "p_host": org.host, "p_version": "1", "p_facts": {}, "p_at": NOW, "p_audit": null }),
        ),
        call(
            "job_redeem_host_enrolment",
            None,
            json!({ "p_hash": things.enrolment, "p_host": Uuid::now_v7(), "p_credential": sha256_hex("credential"), "p_at": NOW }),
        ),
        call(
            "job_rotate_host_credential",
            None,
            json!({ "p_host": org.host, "p_credential": sha256_hex("rotated"), "p_others_end_at": LATER, "p_audit": null }),
        ),
        call(
            "job_confirm_host_credential",
            None,
            json!({ "p_credential": sha256_hex("rotated"), "p_others_end_at": LATER }),
        ),
        call("job_host", None, json!({ "p_host": org.host })),
        call("job_unsettled", None, json!({ "p_host": org.host })),
        call("job_end_deleted_users", None, json!({ "p_issuer": "https://nobody.example" })),
        call("job_renew_viewers", None, json!({ "p_viewers": [things.viewer], "p_lease_s": 60 })),
        call("job_host_seen", None, json!({ "p_host": org.host, "p_at": NOW })),
    ]
}

/// Of what people prove themselves with, and last of all of those who go.
fn credential_calls(world: &World, things: &Things) -> Vec<Call> {
    let org = &world.ours;
    let member = org.member();
    let call = |name, record, arguments| Call { name, rightful: Rightful::Service, arguments, record };
    vec![
        call(
            "job_login",
            None,
            json!({ "p_user": Uuid::now_v7(), "p_kind": "person", "p_issuer": "i", "p_subject": "s", "p_name": null,
            "p_email": null, "p_email_verified": false }),
        ),
        call(
            "job_register_token",
            None,
            json!({ "p_hash": sha256_hex("token"), "p_id": Uuid::now_v7(), "p_org": org.id,
            "p_user": member.id, "p_name": "token", "p_at": NOW }),
        ),
        call(
            "job_register_host_token",
            None,
            json!({ "p_hash": sha256_hex("another"), "p_host": org.host, "p_at": NOW }),
        ),
        call("job_token", None, json!({ "p_hash": sha256_hex("token") })),
        call(
            "job_redeem_login_code",
            None,
            json!({ "p_code": things.code, "p_cookie": sha256_hex("cookie"), "p_at": NOW, "p_expires_at": LATER }),
        ),
        call("job_browser_session", None, json!({ "p_hash": sha256_hex("cookie"), "p_now": NOW })),
        call("job_invitation", None, json!({ "p_org": org.id, "p_token_hash": sha256_hex("invitation") })),
        call("job_member", None, json!({ "p_org": org.id, "p_user": member.id })),
        call("job_end_newcomer_login", None, json!({ "p_hash": sha256_hex("newcomer") })),
        call(
            "job_begin_login",
            None,
            json!({ "p_user": org.owner().id, "p_org": null, "p_cookie": sha256_hex("issuer"), "p_by": "issuer", "p_at": NOW,
                "p_expires_at": LATER, "p_auth_session": "session", "p_refresh": { "key_id": "key", "ciphertext": "00ff" } }),
        ),
        call(
            "job_take_refresh",
            None,
            json!({ "p_login": sha256_hex("issuer"), "p_now": NOW, "p_until": "2026-01-02T03:04:35Z" }),
        ),
        call(
            "job_put_refresh",
            None,
            json!({ "p_login": sha256_hex("issuer"), "p_until": "2026-01-02T03:04:35Z", "p_refresh": null }),
        ),
        call(
            "job_see_session",
            None,
            json!({ "p_hash": sha256_hex("login"), "p_org": org.id, "p_user": member.id, "p_at": NOW,
                "p_audit": audit(org.id, "user", &member.id.to_string(), "login") }),
        ),
        call("job_sweep", None, json!({ "p_now": LATER })),
        call("job_expiry", None, json!({ "p_now": LATER })),
        call(
            "job_set_quotas",
            Some((org.id, "organization.quotas")),
            json!({ "p_org": org.id, "p_sessions_max": 5, "p_sessions_per_day_max": null, "p_viewers_max": 5 }),
        ),
        call(
            "job_disable_user",
            Some((PLATFORM, "user.disable")),
            json!({ "p_user": member.id, "p_disabled": true, "p_force": false }),
        ),
        call("job_people", None, json!({ "p_user": member.id, "p_email": null })),
        call("job_organizations", None, json!({})),
        call("job_erase_person", Some((PLATFORM, "user.erase")), json!({ "p_user": member.id, "p_force": false })),
    ]
}
