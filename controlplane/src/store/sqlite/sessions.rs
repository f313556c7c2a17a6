//! Tables `user_sessions` and `spawns`.

use agentapi_shared::api::{SandboxPolicy, Visibility};
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{HostId, SessionId, SpawnState, WindowSize};
use rusqlite::{Connection, Row, ToSql, Transaction, params, params_from_iter};
use time::OffsetDateTime;

use super::{Sqlite, audit, hosts, idempotency, organizations, rows};
use crate::capability::{Capability, Role};
use crate::store::records::{
    AuditEntry, Desired, IdempotencyKey, NewSession, Replay, SessionChange, SessionFilter, SessionRecord, SpawnRecord,
    StopRequest, TenantContext,
};
use crate::store::{Answer, Created, OutboxSeen, Scope, SessionStore, StoreError};

impl SessionStore for Sqlite {
    fn create_session(
        &self,
        tenant: TenantContext,
        new: NewSession,
        key: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Created> {
        self.call(move |tx| create(tx, &tenant, &new, key.as_ref(), &audit))
    }

    fn session(&self, scope: Scope, id: SessionId) -> Answer<'_, SessionRecord> {
        self.read(move |tx| get(tx, &scope, id))
    }

    fn sessions(&self, tenant: TenantContext, filter: SessionFilter) -> Answer<'_, Vec<SessionRecord>> {
        self.call(move |tx| list(tx, &tenant, &filter))
    }

    fn unsettled(&self, host: Option<HostId>) -> Answer<'_, Vec<SessionRecord>> {
        self.call(move |tx| unsettled(tx, host))
    }

    fn update_session(
        &self,
        scope: Scope,
        id: SessionId,
        revision: u64,
        change: SessionChange,
        audit: Option<AuditEntry>,
        seen: OutboxSeen,
    ) -> Answer<'_, SessionRecord> {
        self.call(move |tx| {
            let record = update(tx, &scope, id, revision, &change)?;
            if let Some(entry) = audit {
                audit::insert(tx, &scope, record.org, &entry)?;
            }
            hosts::record_seen(tx, seen)?;
            Ok(record)
        })
    }

    fn purge_session(&self, scope: Scope, id: SessionId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| purge(tx, &scope, id, &audit))
    }
}

/// Makes a session with its first spawn, unless its idempotency key was seen.
pub(super) fn create(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    new: &NewSession,
    key: Option<&IdempotencyKey>,
    audit: &AuditEntry,
) -> Result<Created, StoreError> {
    // Whoever has become something else while the request was under way makes nothing.
    organizations::require(tx, tenant, Capability::SessionCreate)?;
    if let Some(key) = key {
        let replay = idempotency::begin(tx, tenant, key, new.at)?;
        if replay != Replay::Fresh {
            return Ok(Created::Seen(replay));
        }
    }
    organizations::claim_session(tx, tenant.org, new.at)?;
    let settings = organizations::settings(tx, tenant.org)?;
    organizations::require_agent(&settings, &new.agent)?;
    organizations::require_sandbox(&settings, &new.sandbox)?;
    organizations::count_session(tx, tenant.org, new.at)?;
    let (id, at) = (new.id.to_string(), time_text(new.at));
    let (org, user) = (tenant.org.to_string(), tenant.user.to_string());
    tx.execute(
        "INSERT INTO user_sessions (id, org_id, created_by, created_at, name, labels, agent, command, args, cols, rows, workspace,
                                    sandbox, desired, generation, stop_grace_ms, stop_force, revision, state, visibility)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'run', 1, ?14, 0, 1, 'pending', ?15)",
        params![
            id,
            org,
            user,
            at,
            new.name,
            rows::json_text(&new.labels)?,
            new.agent,
            rows::json_text(&new.command)?,
            rows::json_text(&new.args)?,
            new.size.cols(),
            new.size.rows(),
            rows::json_text(&new.workspace)?,
            rows::json_text(&new.sandbox)?,
            agentapi_shared::api::STOP_GRACE_MS,
            new.visibility.as_str(),
        ],
    )?;
    tx.execute(
        "INSERT INTO spawns (session_id, number, org_id, created_by, created_at, state, has_env, sandbox_policy)
         VALUES (?1, 1, ?2, ?3, ?4, 'pending', ?5, ?6)",
        params![id, org, user, at, new.has_env, settings.sandbox.as_ref().map(rows::json_text).transpose()?],
    )?;
    audit::insert(tx, &Scope::Tenant(tenant.clone()), tenant.org, audit)?;
    Ok(Created::New(Box::new(SessionRecord::made(tenant, new, settings.sandbox.unwrap_or_default()))))
}

/// The condition that a scope puts on rows, and its two values. A tenant sees what the role that it has now shows it, whatever its request began
/// with: the rule that the other store has as a policy of the database.
fn visible(tx: &Connection, scope: &Scope) -> Result<(&'static str, [String; 2]), StoreError> {
    Ok(match scope {
        Scope::Tenant(tenant) => {
            let role = organizations::role_of(tx, tenant.org, tenant.user)?;
            (seen_by(role), [tenant.org.to_string(), tenant.user.to_string()])
        }
        Scope::Host(host) => ("host_id = ?1 AND ?2 = ''", [host.to_string(), String::new()]),
        Scope::System => ("?1 = '' AND ?2 = ''", [String::new(), String::new()]),
    })
}

fn seen_by(role: Option<Role>) -> &'static str {
    let has = |capability| role.is_some_and(|role| role.has(capability));
    match (has(Capability::SessionViewAll), has(Capability::SessionViewOwn), has(Capability::SessionViewShared)) {
        (true, _, _) => "org_id = ?1 AND ?2 <> ''",
        (false, true, true) => "org_id = ?1 AND (created_by = ?2 OR visibility = 'organization')",
        (false, true, false) => "org_id = ?1 AND created_by = ?2",
        (false, false, true) => "org_id = ?1 AND visibility = 'organization' AND ?2 <> ''",
        (false, false, false) => "?1 = ?2",
    }
}

/// Refuses a tenant that sees a session and may not change it.
fn require_change(tx: &Transaction<'_>, scope: &Scope, record: &SessionRecord) -> Result<(), StoreError> {
    let Scope::Tenant(tenant) = scope else { return Ok(()) };
    let role = organizations::role_of(tx, tenant.org, tenant.user)?.ok_or(StoreError::NotFound)?;
    let own = record.created_by == tenant.user && role.has(Capability::SessionManageOwn);
    if own || role.has(Capability::SessionManageAll) { Ok(()) } else { Err(StoreError::Forbidden) }
}

/// One session.
pub(super) fn get(tx: &Connection, scope: &Scope, id: SessionId) -> Result<SessionRecord, StoreError> {
    let (condition, [first, second]) = visible(tx, scope)?;
    let sql = format!("SELECT * FROM user_sessions WHERE {condition} AND id = ?3");
    let mut record = tx.prepare_cached(&sql)?.query_row(params![first, second, id.to_string()], read_session)?;
    record.spawns = spawns(tx, id)?;
    Ok(record)
}

/// A page of the sessions that a tenant sees, newest first.
pub(super) fn list(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    filter: &SessionFilter,
) -> Result<Vec<SessionRecord>, StoreError> {
    let Some(tenant) = organizations::as_of_now(tx, tenant)? else { return Ok(Vec::new()) };
    let (sql, values) = page(&tenant, filter);
    collect(tx, &sql, values)
}

type Values = Vec<Box<dyn ToSql>>;

/// The query of a page. One branch for each index, each with its own limit: one condition over all of them would read every row of the
/// organisation to find the ten of one member. Their indexes are named: without statistics the planner may take the one of all.
pub(super) fn page(tenant: &TenantContext, filter: &SessionFilter) -> (String, Values) {
    let (org, user) = (tenant.org.to_string(), tenant.user.to_string());
    let mut branches: Vec<(&str, Vec<String>)> = Vec::new();
    if tenant.role.has(Capability::SessionViewAll) {
        branches.push(("WHERE org_id = ?", vec![org]));
    } else {
        let own = tenant.role.has(Capability::SessionViewOwn);
        if own {
            let of_maker = "INDEXED BY user_sessions_by_maker WHERE org_id = ? AND created_by = ?";
            branches.push((of_maker, vec![org.clone(), user.clone()]));
        }
        if tenant.role.has(Capability::SessionViewShared) {
            let shared =
                "INDEXED BY user_sessions_shared WHERE visibility = 'organization' AND org_id = ? AND created_by <> ?";
            // Those of one's own are in the other branch, if there is one.
            branches.push((shared, vec![org, if own { user } else { String::new() }]));
        }
    }
    let mut values: Values = Vec::new();
    let mut parts = Vec::new();
    for (from, own_values) in branches {
        values.extend(own_values.into_iter().map(|value| Box::new(value) as Box<dyn ToSql>));
        let mut part = format!("SELECT * FROM (SELECT * FROM user_sessions {from}");
        narrow(&mut part, &mut values, filter);
        parts.push(part + " ORDER BY id DESC LIMIT ?)");
        values.push(Box::new(filter.limit));
    }
    if parts.is_empty() {
        return ("SELECT * FROM user_sessions WHERE 0".to_owned(), values);
    }
    values.push(Box::new(filter.limit));
    (parts.join(" UNION ALL ") + " ORDER BY id DESC LIMIT ?", values)
}

/// The conditions of a filter.
fn narrow(sql: &mut String, values: &mut Values, filter: &SessionFilter) {
    if let Some(state) = filter.state {
        sql.push_str(" AND state = ?");
        values.push(Box::new(state.as_str()));
    }
    if let Some(agent) = &filter.agent {
        sql.push_str(" AND agent = ?");
        values.push(Box::new(agent.clone()));
    }
    if let Some(host) = filter.host {
        sql.push_str(" AND host_id = ?");
        values.push(Box::new(host.to_string()));
    }
    for (key, value) in &filter.labels {
        sql.push_str(" AND EXISTS (SELECT 1 FROM json_each(labels) AS l WHERE l.key = ? AND l.value = ?)");
        values.push(Box::new(key.clone()));
        values.push(Box::new(value.clone()));
    }
    if let Some(before) = filter.before {
        sql.push_str(" AND id < ?");
        values.push(Box::new(before.to_string()));
    }
}

/// Sessions of a host, or of none, that are not over or not yet as wanted.
pub(super) fn unsettled(tx: &Transaction<'_>, host: Option<HostId>) -> Result<Vec<SessionRecord>, StoreError> {
    let sql = "SELECT * FROM user_sessions WHERE host_id IS ?
               AND (state NOT IN ('exited', 'failed', 'lost') OR purging = 1 OR restarting = 1) ORDER BY id";
    collect(tx, sql, vec![Box::new(host.map(|id| id.to_string()))])
}

fn collect(tx: &Transaction<'_>, sql: &str, values: Values) -> Result<Vec<SessionRecord>, StoreError> {
    let mut records = tx
        .prepare_cached(sql)?
        .query_map(params_from_iter(values), read_session)?
        .collect::<rusqlite::Result<Vec<SessionRecord>>>()?;
    for record in &mut records {
        record.spawns = spawns(tx, record.id)?;
    }
    Ok(records)
}

/// Applies a change to a record that is still at `revision`.
pub(super) fn update(
    tx: &Transaction<'_>,
    scope: &Scope,
    id: SessionId,
    revision: u64,
    change: &SessionChange,
) -> Result<SessionRecord, StoreError> {
    let mut record = get(tx, scope, id)?;
    require_change(tx, scope, &record)?;
    if record.revision != revision {
        return Err(StoreError::Stale);
    }
    if let Some(spawn) = &change.spawn {
        write_spawn(tx, id, spawn)?;
    }
    if let Some(spawn) = &change.new_spawn {
        let settings = organizations::settings(tx, record.org)?;
        // A session that somebody starts again counts again, under what its organisation allows now.
        if matches!(scope, Scope::Tenant(_)) && record.state().is_ended() {
            organizations::require_sandbox(&settings, &record.sandbox)?;
            organizations::claim_session(tx, record.org, OffsetDateTime::now_utc())?;
        }
        tx.prepare_cached(
            "INSERT INTO spawns (session_id, number, org_id, created_by, created_at, state, sandbox_policy) SELECT ?1, ?2, org_id, created_by,
             strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'pending', ?3 FROM user_sessions WHERE id = ?1",
        )?
        .execute(params![
            id.to_string(),
            spawn.number,
            settings.sandbox.as_ref().map(rows::json_text).transpose()?
        ])?;
    }
    record.spawns = spawns(tx, id)?;
    apply(&mut record, change);
    write_session(tx, &record)?;
    Ok(record)
}

fn apply(record: &mut SessionRecord, change: &SessionChange) {
    let change = change.clone();
    record.name = change.name.unwrap_or(record.name.take());
    record.labels = change.labels.unwrap_or_else(|| std::mem::take(&mut record.labels));
    record.visibility = change.visibility.unwrap_or(record.visibility);
    record.size = change.size.unwrap_or(record.size);
    record.host = change.host.or(record.host);
    record.run_command = change.run_command.or(record.run_command.take());
    record.stop = change.stop.unwrap_or(record.stop);
    record.purging = change.purging.unwrap_or(record.purging);
    record.restarting = change.restarting.unwrap_or(record.restarting);
    if let Some(desired) = change.desired {
        record.desired = desired;
        record.generation += 1;
    }
    record.revision += 1;
}

fn write_session(tx: &Transaction<'_>, record: &SessionRecord) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE user_sessions SET name = ?2, labels = ?3, run_command = ?4, cols = ?5, rows = ?6, host_id = ?7, desired = ?8,
         generation = ?9, stop_grace_ms = ?10, stop_force = ?11, purging = ?12, restarting = ?13, revision = ?14, state = ?15, visibility = ?16
         WHERE id = ?1",
    )?
    .execute(params![
        record.id.to_string(),
        record.name,
        rows::json_text(&record.labels)?,
        record.run_command.as_ref().map(rows::json_text).transpose()?,
        record.size.cols(),
        record.size.rows(),
        record.host.map(|host| host.to_string()),
        if record.desired == Desired::Run { "run" } else { "stop" },
        record.generation,
        record.stop.grace_ms,
        record.stop.force,
        record.purging,
        record.restarting,
        record.revision,
        record.state().as_str(),
        record.visibility.as_str(),
    ])?;
    Ok(())
}

fn write_spawn(tx: &Transaction<'_>, id: SessionId, spawn: &SpawnRecord) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE spawns SET state = ?3, accepted = ?4, report_generation = ?5, report_seq = ?6, boot_id = ?7, started_at = ?8,
         ended_at = ?9, exit = ?10, posture = ?11 WHERE session_id = ?1 AND number = ?2",
    )?
    .execute(params![
        id.to_string(),
        spawn.number,
        spawn.state.as_str(),
        spawn.accepted,
        spawn.report.0,
        spawn.report.1,
        spawn.boot_id,
        spawn.started.map(time_text),
        spawn.ended.map(time_text),
        spawn.exit.as_ref().map(rows::json_text).transpose()?,
        spawn.posture.as_ref().map(rows::json_text).transpose()?,
    ])?;
    Ok(())
}

/// Removes a session with its spawns.
pub(super) fn purge(tx: &Transaction<'_>, scope: &Scope, id: SessionId, audit: &AuditEntry) -> Result<(), StoreError> {
    let record = match get(tx, scope, id) {
        Err(StoreError::NotFound) => return Ok(()),
        other => other?,
    };
    require_change(tx, scope, &record)?;
    tx.execute("DELETE FROM user_sessions WHERE id = ?1", [id.to_string()])?;
    audit::insert(tx, scope, record.org, audit)
}

fn spawns(tx: &Connection, id: SessionId) -> Result<Vec<SpawnRecord>, StoreError> {
    let found = tx
        .prepare_cached("SELECT * FROM spawns WHERE session_id = ?1 ORDER BY number")?
        .query_map([id.to_string()], read_spawn)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

fn read_state(row: &Row<'_>) -> rusqlite::Result<SpawnState> {
    let word = row.get_ref("state")?.as_str()?;
    SpawnState::parse(word).ok_or_else(|| rusqlite::Error::InvalidParameterName(format!("state {word}")))
}

fn read_session(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    Ok(SessionRecord {
        id: rows::id(row, "id")?,
        org: rows::id(row, "org_id")?,
        created_by: rows::id(row, "created_by")?,
        visibility: rows::word::<Visibility>(row, "visibility")?,
        created_at: rows::time(row, "created_at")?,
        name: row.get("name")?,
        labels: rows::json(row, "labels")?,
        agent: row.get("agent")?,
        command: rows::json(row, "command")?,
        args: rows::json(row, "args")?,
        run_command: rows::json_option(row, "run_command")?,
        size: WindowSize::clamped(row.get("cols")?, row.get("rows")?),
        workspace: rows::json(row, "workspace")?,
        sandbox: rows::json(row, "sandbox")?,
        host: rows::id_option(row, "host_id")?,
        desired: if row.get_ref("desired")?.as_str()? == "run" { Desired::Run } else { Desired::Stop },
        generation: row.get("generation")?,
        stop: StopRequest { grace_ms: row.get("stop_grace_ms")?, force: row.get("stop_force")? },
        purging: row.get("purging")?,
        restarting: row.get("restarting")?,
        revision: row.get("revision")?,
        spawns: Vec::new(),
    })
}

fn read_spawn(row: &Row<'_>) -> rusqlite::Result<SpawnRecord> {
    Ok(SpawnRecord {
        number: row.get("number")?,
        state: read_state(row)?,
        accepted: row.get("accepted")?,
        has_env: row.get("has_env")?,
        report: (row.get("report_generation")?, row.get("report_seq")?),
        boot_id: row.get("boot_id")?,
        started: rows::time_option(row, "started_at")?,
        ended: rows::time_option(row, "ended_at")?,
        exit: rows::json_option(row, "exit")?,
        posture: rows::json_option(row, "posture")?,
        sandbox_policy: rows::json_option(row, "sandbox_policy")?.map(SandboxPolicy::from_stored).unwrap_or_default(),
    })
}
