//! Operations on both stores, and their answers side by side.

use std::fmt::Debug;

use agentapi_shared::api::{Posture, Quotas, SandboxRequest, Visibility, Workspace};
use agentapi_shared::egress::EgressDecision;
use agentapi_shared::link::HostFacts;
use agentapi_shared::{EventId, Exit, ExitReason, SessionId, ViewerId, WindowSize};
use time::Duration;

use super::operation::{At, Change, Operation as O, Who};
use super::world::{World, newest, pick, told};
use crate::capability::Capability;
use crate::store::records::{
    AuditEntry, EgressFilter, Holder, HostRecord, NewLoginCode, NewSession, NewViewer, SessionChange, SessionFilter,
    SessionRecord, SpawnRecord, StopRequest, TokenHolder, UserHolder,
};
use crate::store::{Answer, Created, Scope, Store, StoreError};

/// Longer than a case.
const LEASE: std::time::Duration = std::time::Duration::from_secs(3600);
/// A viewer that never was.
const NOBODY: ViewerId = ViewerId::from_u128(1);

/// What came of an operation, on the embedded store and on the other.
type Both = (String, String);

/// Asks both, and makes something comparable of each answer.
async fn ask<'s, T: Debug>(stores: [&'s dyn Store; 2], question: impl Fn(&'s dyn Store) -> Answer<'s, T>) -> Both {
    let (ours, theirs) = tokio::join!(question(stores[0]), question(stores[1]));
    (told(ours), told(theirs))
}

/// A registered token becomes a key whose id each store makes itself.
fn without_key(found: Option<Holder>) -> Option<Holder> {
    match found {
        Some(Holder::User(user)) => Some(Holder::User(UserHolder { key: None, ..user })),
        other => other,
    }
}

fn facts(text: String) -> HostFacts {
    HostFacts {
        hostname: text,
        boot_id: "boot".to_owned(),
        kernel: "6".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 2,
        memory_bytes: u64::from(u32::MAX) + 1,
        isolation: "root".to_owned(),
        workspace_roots: Vec::new(),
        profiles: Vec::new(),
        degraded: Vec::new(),
        agents: Vec::new(),
    }
}

impl World<'_> {
    /// Does it on both.
    pub(super) async fn both(&mut self, operation: &O) -> Both {
        match operation.clone() {
            O::Create { by, name, label, shared, key } => {
                let made = self.create(by, name, label, shared, key).await;
                // Half of them are placed at once, so that hosts have something to say.
                if shared && made.0.contains("New") { self.place_newest().await } else { made }
            }
            O::Session { who, session } => {
                let (id, _) = self.session(session);
                let scope = self.scope_of(&who, id).await;
                ask(self.stores(), |store| store.session(scope.clone(), id)).await
            }
            O::Sessions { by, state, agent, host, label, before, limit } => {
                let filter = SessionFilter {
                    state,
                    agent: agent.then(|| "custom".to_owned()),
                    host: host.map(|at| self.host(at)),
                    labels: label.map(|label| ("key".to_owned(), label)).into_iter().collect(),
                    before: before.map(|at| self.session(at).0),
                    limit,
                };
                let tenant = self.person(by);
                ask(self.stores(), |store| store.sessions(tenant.clone(), filter.clone())).await
            }
            O::Unsettled { host } => self.unsettled(host).await,
            O::Update { who, session, stale, change, record, seen } => {
                let scope = self.scope_of(&who, self.session(session).0).await;
                self.update(scope, session, stale, change, record, seen).await
            }
            O::Purge { who, session } => {
                let (id, _) = self.session(session);
                let scope = self.scope_of(&who, id).await;
                let entry = AuditEntry { session: Some(id), ..self.entry("purge") };
                let answers = ask(self.stores(), |store| store.purge_session(scope.clone(), id, entry.clone())).await;
                // What is gone is meant only now and then.
                if session % 4 > 0 && self.stores()[0].session(Scope::System, id).await.is_err() {
                    self.sessions.retain(|(known, _)| *known != id);
                }
                answers
            }
            operation @ (O::RecordEgress { .. } | O::Egress { .. }) => self.on_egress(operation).await,
            operation @ (O::Hosts { .. }
            | O::Host { .. }
            | O::HostConnected { .. }
            | O::HostSeen { .. }
            | O::OutboxSeen { .. }) => self.on_hosts(operation).await,
            O::Audit { who, session, again, text, seen } => {
                let scope = self.scope(&who);
                let id = self.entries.last().copied().filter(|_| again);
                let mut entry = self.entry("note");
                entry.id = id.unwrap_or(entry.id);
                entry.session = session.map(|at| self.session(at).0);
                entry.detail = serde_json::json!({ "text": text });
                let seen = Self::seen(&scope, seen);
                ask(self.stores(), |store| store.audit(scope.clone(), entry.clone(), seen)).await
            }
            O::Wait { minutes } => {
                self.now += Duration::minutes(i64::from(minutes));
                Both::default()
            }
            other => self.on_accounts(other).await,
        }
    }

    /// The same, and of a host mostly the one that the session is on.
    async fn scope_of(&self, who: &Who, session: SessionId) -> Scope {
        let scope = self.scope(who);
        if matches!(who, Who::Host(at) if at % 4 > 0)
            && let Ok(record) = self.stores()[0].session(Scope::System, session).await
            && let Some(host) = record.host
        {
            return Scope::Host(host);
        }
        scope
    }

    async fn create(&mut self, by: At, name: Option<String>, label: String, shared: bool, key: Option<At>) -> Both {
        let by = if self.person(by).role.has(Capability::SessionCreate) { by } else { 0 };
        let tenant = self.person(by);
        let new = NewSession {
            id: SessionId::generate(),
            at: self.now,
            name,
            labels: [("key".to_owned(), label)].into(),
            agent: if shared { "custom" } else { "claude" }.to_owned(),
            command: vec!["a b".to_owned(), "\"".to_owned()],
            args: Vec::new(),
            size: WindowSize::DEFAULT,
            workspace: Workspace::default(),
            sandbox: SandboxRequest::default(),
            has_env: shared,
            visibility: if shared { Visibility::Organization } else { Visibility::Private },
        };
        let key = key.map(|at| self.key(at, at % 2));
        let entry = AuditEntry { session: Some(new.id), ..self.entry("session.create") };
        let [first, second] = self.stores();
        let (ours, theirs) = tokio::join!(
            first.create_session(tenant.clone(), new.clone(), key.clone(), entry.clone()),
            second.create_session(tenant.clone(), new.clone(), key, entry),
        );
        if matches!(ours, Ok(Created::New(_))) {
            self.sessions.push((new.id, tenant.org));
        }
        (told(ours), told(theirs))
    }

    async fn place_newest(&mut self) -> Both {
        let Some((id, org)) = self.sessions.last().copied() else { return Both::default() };
        let host = self.hosts.iter().find(|(_, of)| *of == org).map(|(host, _)| *host);
        let change = SessionChange { host, ..SessionChange::default() };
        ask(self.stores(), |store| store.update_session(Scope::System, id, 1, change.clone(), None, None)).await
    }

    /// Of those of this case.
    async fn unsettled(&self, host: Option<At>) -> Both {
        let host = host.map(|at| self.host(at));
        let [first, second] = self.stores();
        let (ours, theirs) = tokio::join!(first.unsettled(host), second.unsettled(host));
        let own = |answer: Result<Vec<SessionRecord>, StoreError>| {
            let is_own = |record: &SessionRecord| self.sessions.iter().any(|(id, _)| *id == record.id);
            told(answer.map(|found| found.into_iter().filter(is_own).collect::<Vec<_>>()))
        };
        (own(ours), own(theirs))
    }

    async fn update(
        &mut self,
        scope: Scope,
        at: At,
        stale: bool,
        change: Change,
        record: bool,
        seen: Option<u8>,
    ) -> Both {
        let (id, org) = self.session(at);
        let known = self.stores()[0].session(Scope::System, id).await.ok();
        let revision = known.as_ref().map_or(1, |known| known.revision) + u64::from(stale);
        let place = change.place.filter(|_| scope == Scope::System);
        let hosts: Vec<_> = self.hosts.iter().filter(|(_, of)| *of == org).collect();
        let host = place.and_then(|at| pick(&hosts, at)).map(|(host, _)| *host);
        let change = SessionChange { host, ..self.change(change, known.as_ref()) };
        // What a tenant changes is always recorded.
        let is_recorded = record || matches!(scope, Scope::Tenant(_));
        let entry = if is_recorded { Some(AuditEntry { session: Some(id), ..self.entry("update") }) } else { None };
        let seen = Self::seen(&scope, seen);
        ask(self.stores(), |store| {
            store.update_session(scope.clone(), id, revision, change.clone(), entry.clone(), seen)
        })
        .await
    }

    fn change(&self, change: Change, known: Option<&SessionRecord>) -> SessionChange {
        let spawns = known.map(|known| known.spawns.as_slice()).unwrap_or_default();
        let spawn = change.spawn.and_then(|(newest, state, text)| {
            let spawn = if newest { spawns.last() } else { spawns.first() }?.clone();
            let exit =
                text.clone().map(|detail| Exit { code: Some(1), signal: None, reason: ExitReason::Exited, detail });
            let posture = text.clone().map(|profile| Posture {
                isolation: "root".to_owned(),
                profile,
                network: agentapi_shared::api::NetworkMode::Off,
                limits: agentapi_shared::api::Limits::default(),
                degraded: Vec::new(),
            });
            let report = (spawn.report.0 + 1, u64::from(u32::MAX) + 7);
            let times = (Some(self.now), exit.as_ref().map(|_| self.now + Duration::MICROSECOND));
            let (started, ended) = times;
            Some(SpawnRecord { state, accepted: true, report, boot_id: text, started, ended, exit, posture, ..spawn })
        });
        let new_spawn = spawns
            .last()
            .filter(|_| change.new_spawn)
            .map(|last| SpawnRecord { number: last.number + 1, ..last.clone() });
        SessionChange {
            name: change.name,
            labels: change.labels.map(|labels| labels.into_iter().collect()),
            visibility: change.visibility,
            size: change.size.map(|(cols, rows)| WindowSize::clamped(cols, rows)),
            host: None,
            run_command: change.new_spawn.then(|| vec!["/bin/bash".to_owned()]),
            desired: change.desired,
            stop: change.stop.map(|(grace, force)| StopRequest { grace_ms: u64::from(grace), force }),
            purging: change.purging,
            restarting: change.restarting,
            spawn,
            new_spawn,
        }
    }

    async fn on_egress(&mut self, operation: O) -> Both {
        match operation {
            O::RecordEgress { host, session, decision, verdict, text, bytes, seen } => {
                // Some come twice.
                let known = pick(&self.decisions, decision).copied().filter(|_| decision % 4 == 0);
                let id = known.unwrap_or_else(EventId::generate);
                if known.is_none() {
                    self.decisions.push(id);
                }
                let (session, _) = self.session(session);
                let decision = EgressDecision {
                    id,
                    session,
                    spawn: 1,
                    at: self.now,
                    host: text.clone(),
                    port: 443,
                    address: (bytes % 2 == 0).then_some(text),
                    verdict,
                    rule: "no_rule".to_owned(),
                    bytes_up: bytes,
                    bytes_down: 1,
                    duration_ms: 2,
                    times: 1 + bytes % 3,
                };
                let host = match self.scope_of(&Who::Host(host), session).await {
                    Scope::Host(host) => host,
                    Scope::Tenant(_) | Scope::System => return Both::default(),
                };
                let seen = Self::seen(&Scope::Host(host), seen);
                ask(self.stores(), |store| store.record_egress(host, decision.clone(), seen)).await
            }
            O::Egress { who, session, verdict, before, limit } => {
                let (id, _) = self.session(session);
                let scope = self.scope_of(&who, id).await;
                let before = before.and_then(|at| pick(&self.decisions, at)).copied();
                let filter = EgressFilter { verdict, before, limit };
                ask(self.stores(), |store| store.egress(scope.clone(), id, filter.clone())).await
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn on_hosts(&mut self, operation: O) -> Both {
        match operation {
            O::Hosts { by } => {
                let tenant = self.person(by);
                ask(self.stores(), |store| store.hosts(tenant.clone())).await
            }
            O::Host { host } => {
                let host = self.host(host);
                ask(self.stores(), |store| store.host(host)).await
            }
            O::HostConnected { host, version, facts: known } => {
                let (id, org) = self.hosts[usize::from(host) % self.hosts.len()];
                let facts = known.then(|| facts(version.clone().unwrap_or_default()));
                let last_seen_at = Some(self.now);
                let record =
                    HostRecord { id, org: Some(org), name: None, version, facts, last_seen_at, sessions_running: 0 };
                let entry = AuditEntry { host: Some(id), ..self.entry("host.connected") };
                ask(self.stores(), |store| store.host_connected(record.clone(), entry.clone())).await
            }
            O::HostSeen { host } => {
                let (host, at) = (self.host(host), self.now);
                ask(self.stores(), |store| store.host_seen(host, at)).await
            }
            O::OutboxSeen { host } => {
                let host = self.host(host);
                ask(self.stores(), |store| store.outbox_seen(host)).await
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn on_accounts(&mut self, operation: O) -> Both {
        let now = self.now;
        match operation {
            O::RegisterToken { by, token } => {
                let (hash, person) = (self.secret("token", token % 2), self.person(by));
                let holder = TokenHolder::User { org: person.org, user: person.user };
                ask(self.stores(), |store| store.register_token(hash.clone(), holder, now)).await
            }
            O::RegisterHostToken { host, token } => {
                let (hash, host) = (self.secret("host", token % 2), self.host(host));
                ask(self.stores(), |store| store.register_token(hash.clone(), TokenHolder::Host(host), now)).await
            }
            O::Token { token, of_host } => {
                let hash = self.secret(if of_host { "host" } else { "token" }, token % 2);
                ask(self.stores(), |store| {
                    let hash = hash.clone();
                    Box::pin(async move { store.token(hash).await.map(without_key) })
                })
                .await
            }
            O::CreateCode { by, minutes } => {
                let (hash, person) = (self.secret("code", self.codes.len()), self.person(by));
                self.codes.push(hash.clone());
                let (until, entry) = (now + Duration::minutes(i64::from(minutes)), self.entry("code"));
                let new = NewLoginCode { hash, expires_at: until, made_by: None };
                ask(self.stores(), |store| store.create_login_code(person.clone(), new.clone(), entry.clone())).await
            }
            O::Redeem { code } => {
                let code = pick(newest(&self.codes), code).cloned().unwrap_or_else(|| self.secret("code", "none"));
                let cookie = self.secret("cookie", self.cookies.len());
                self.cookies.push(cookie.clone());
                let (until, entry) = (now + Duration::hours(10), self.entry("login"));
                // A database writes this record itself, under an id of its own.
                self.entries.pop();
                ask(self.stores(), |store| store.redeem_login_code(code.clone(), cookie.clone(), until, entry.clone()))
                    .await
            }
            O::Browser { cookie } => {
                let cookie = pick(newest(&self.cookies), cookie).cloned().unwrap_or_default();
                ask(self.stores(), |store| store.browser_session(cookie.clone(), now)).await
            }
            O::EndBrowser { by, cookie } => {
                let (cookie, person) =
                    (pick(newest(&self.cookies), cookie).cloned().unwrap_or_default(), self.person(by));
                let entry = self.entry("logout");
                ask(self.stores(), |store| store.end_browser_session(person.clone(), cookie.clone(), entry.clone()))
                    .await
            }
            O::Begin { by, key, body } => {
                let (key, person) = (self.key(key, body), self.person(by));
                ask(self.stores(), |store| store.begin_idempotent(person.clone(), key.clone(), now)).await
            }
            O::Finish { by, key, text } => {
                let (key, person) = (self.key(key, 0), self.person(by));
                ask(self.stores(), |store| store.finish_idempotent(person.clone(), key.clone(), 200, text.clone()))
                    .await
            }
            O::Release { by, key } => {
                let (key, person) = (self.key(key, 0), self.person(by));
                ask(self.stores(), |store| store.release_idempotent(person.clone(), key.clone())).await
            }
            other => self.on_viewers(other).await,
        }
    }

    async fn on_viewers(&mut self, operation: O) -> Both {
        match operation {
            O::Attach { by, session, replaces } => {
                let replaces = replaces.and_then(|at| pick(newest(&self.viewers), at)).copied();
                let (session, _) = self.session(session);
                let new = NewViewer { id: ViewerId::generate(), session, lease: LEASE, replaces };
                self.viewers.push(new.id);
                let (person, entry) = (self.person(by), self.entry("attach"));
                ask(self.stores(), |store| store.attach_viewer(person.clone(), new, entry.clone())).await
            }
            O::Detach { by, viewer } => {
                let viewer = pick(newest(&self.viewers), viewer).copied().unwrap_or(NOBODY);
                let (person, entry) = (self.person(by), self.entry("detach"));
                ask(self.stores(), |store| store.detach_viewer(person.clone(), viewer, entry.clone())).await
            }
            O::Renew { viewer, over } => {
                let viewer = pick(&self.viewers, viewer).copied().unwrap_or(NOBODY);
                let lease = if over { std::time::Duration::ZERO } else { LEASE };
                ask(self.stores(), |store| store.renew_viewers(vec![viewer], lease)).await
            }
            O::Viewers { of, max } => {
                let quotas = Quotas { viewers_max: max, ..Quotas::default() };
                let (org, entry) = (self.person(of).org, self.entry("quotas"));
                ask(self.stores(), |store| store.set_quotas(org, quotas, entry.clone())).await
            }
            other => unreachable!("{other:?}"),
        }
    }
}
