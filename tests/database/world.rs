//! Two organisations with people in every role, made through the functions as the control plane will.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::{Caller, Rest, audit};
use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;

/// The secret that the control plane proves itself with.
pub(crate) const PROOF: &str = "a-secret-of-the-control-plane";
/// The chain of what belongs to no organisation.
pub(crate) const PLATFORM: Uuid = Uuid::nil();
/// Every role of a member.
pub(crate) const ROLES: [&str; 6] = ["owner", "admin", "member", "viewer", "auditor", "service_account"];

/// Somebody.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    /// With the proof.
    pub(crate) caller: Caller,
}

/// An organisation.
#[derive(Debug, Clone)]
pub(crate) struct Org {
    pub(crate) id: Uuid,
    /// One for each of [`ROLES`].
    pub(crate) people: Vec<Person>,
    /// Of the member; only they see it, and those who see all.
    pub(crate) session: Uuid,
    /// Of the member, shared with the organisation.
    pub(crate) shared: Uuid,
    /// A host of its own, with the sessions on it.
    pub(crate) host: Uuid,
}

impl Org {
    /// Who has a role.
    pub(crate) fn in_role(&self, role: &str) -> &Person {
        let at = ROLES.iter().position(|known| *known == role).unwrap_or_default();
        &self.people[at]
    }

    pub(crate) fn owner(&self) -> &Person {
        self.in_role("owner")
    }

    pub(crate) fn member(&self) -> &Person {
        self.in_role("member")
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) rest: Rest,
    /// A job of the control plane, with the proof.
    pub(crate) service: Caller,
    pub(crate) ours: Org,
    pub(crate) theirs: Org,
    /// Logged in, and a member of nothing.
    pub(crate) outsider: Person,
}

/// A session to be made.
pub(crate) fn new_session(id: Uuid) -> Value {
    json!({
        "id": id, "created_at": "2026-01-02T03:04:05.678901Z", "name": "name", "labels": { "key": "it's \"quoted\"; --" },
        "agent": "custom", "command": ["bash", "-l"], "args": [], "cols": 80, "rows": 24, "workspace": {},
        "sandbox": { "profile": "strict" }, "has_env": true, "stop_grace_ms": 5000
    })
}

/// What `create_session` takes.
pub(crate) fn create_session(org: Uuid, user: Uuid, session: &Value) -> Value {
    let audit = audit(org, "user", &user.to_string(), "session.create");
    json!({ "p_org": org, "p_session": session, "p_key": null, "p_audit": audit })
}

impl World {
    /// Makes it.
    pub(crate) async fn new(release: Release) -> Result<Self> {
        let cluster = Cluster::start(release).await?;
        let rest = Rest::new(&cluster.url)?;
        let service = Caller::service();
        let proof = json!({ "p_hash": jwt::sha256_hex(PROOF) });
        rest.call(&service, "register_proof", &proof).await?.done()?;
        let service = service.proven(PROOF);
        let ours = organization(&rest, &service, "ours").await?;
        let theirs = organization(&rest, &service, "theirs").await?;
        let outsider = person(&rest, &service, "outsider").await?;
        Ok(Self { cluster, rest, service, ours, theirs, outsider })
    }

    /// Everything that is stored, as one text per table.
    pub(crate) async fn fingerprint(&self) -> Result<String> {
        self.cluster
            .sql(
                "select c.oid::regclass || ' ' || md5(query_to_xml(format('select t::text from %s as t order by 1', c.oid::regclass), true, false, '')::text)
                 from pg_class c where c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace) and c.relkind = 'r' order by 1",
            )
            .await
    }

    /// Makes a session of `org`'s member.
    pub(crate) async fn session(&self, org: &Org) -> Result<Uuid> {
        session(&self.rest, org.id, org.member(), "private").await
    }
}

/// Somebody who logged in for the first time.
pub(crate) async fn person(rest: &Rest, service: &Caller, name: &'static str) -> Result<Person> {
    let id = Uuid::now_v7();
    let kind = if name == "service_account" { "service" } else { "person" };
    let login = json!({
        "p_user": id, "p_kind": kind, "p_issuer": "https://project.example/auth/v1", "p_subject": id, "p_name": name,
        "p_email": format!("{id}@Mail.example"), "p_email_verified": true
    });
    let user = rest.call(service, "job_login", &login).await?.done()?;
    ensure!(user["id"] == json!(id), "the user is made");
    Ok(Person { id, caller: Caller::person(name, id).proven(PROOF) })
}

async fn session(rest: &Rest, org: Uuid, maker: &Person, visibility: &str) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let mut new = new_session(id);
    new["visibility"] = json!(visibility);
    rest.call(&maker.caller, "create_session", &create_session(org, maker.id, &new)).await?.done()?;
    Ok(id)
}

async fn organization(rest: &Rest, service: &Caller, name: &str) -> Result<Org> {
    let id = Uuid::now_v7();
    let mut people = Vec::new();
    for role in ROLES {
        let person = person(rest, service, role).await?;
        let actor = person.id.to_string();
        if role == "owner" {
            let arguments = json!({ "p_org": id, "p_name": name, "p_by": "operator", "p_audit": audit(id, "user", &actor, "organization.create") });
            rest.call(&person.caller, "create_organization", &arguments).await?.done()?;
        } else {
            join(rest, id, &people[0], &person, if role == "service_account" { "member" } else { role }).await?;
        }
        people.push(person);
    }
    let member = people[2].clone();
    let host = Uuid::now_v7();
    let (session, shared) =
        (session(rest, id, &member, "private").await?, session(rest, id, &member, "organization").await?);
    let made = json!({ "p_host": host, "p_org": id, "p_name": "host", "p_audit": audit(id, "system", "hosts", "host.create") });
    rest.call(service, "job_create_host", &made).await?.done()?;
    for session in [session, shared] {
        place(rest, service, session, host, id).await?;
    }
    // Service accounts are not invited; an operator makes them.
    let org = Org { id, people, session, shared, host };
    let role = json!({
        "p_org": id, "p_user": org.in_role("service_account").id, "p_role": "service_account",
        "p_audit": audit(id, "user", &org.owner().id.to_string(), "member.role")
    });
    rest.call(&org.owner().caller, "set_member_role", &role).await?.done()?;
    Ok(org)
}

/// Puts a session that was never changed on a host.
pub(crate) async fn place(rest: &Rest, service: &Caller, session: Uuid, host: Uuid, org: Uuid) -> Result<()> {
    let change = json!({
        "p_host": null, "p_id": session, "p_revision": 1, "p_change": { "host_id": host },
        "p_audit": audit(org, "system", "fleet", "session.place"), "p_seen": null
    });
    rest.call(service, "job_update_session", &change).await?.done()?;
    Ok(())
}

/// Invites somebody, who accepts.
pub(crate) async fn join(rest: &Rest, org: Uuid, by: &Person, who: &Person, role: &str) -> Result<()> {
    let token = jwt::sha256_hex(&who.id.to_string());
    let invitation = json!({
        "p_org": org, "p_id": Uuid::now_v7(), "p_email": format!("{}@mail.example", who.id), "p_role": role, "p_token_hash": token,
        "p_expires_at": "2099-01-01T00:00:00Z", "p_audit": audit(org, "user", &by.id.to_string(), "invitation.create")
    });
    rest.call(&by.caller, "create_invitation", &invitation).await?.done()?;
    let accept = json!({
        "p_org": org, "p_token_hash": token, "p_audit": audit(org, "user", &who.id.to_string(), "invitation.accept")
    });
    rest.call(&who.caller, "accept_invitation", &accept).await?.done()?;
    Ok(())
}
