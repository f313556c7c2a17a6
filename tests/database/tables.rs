//! Every table and every verb at PostgREST directly. Tenants read what is theirs; nobody writes a row, whoever they are.
//!
//! The same requests are sent once more after everything was granted to everyone: what was refused before was refused by the schema.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::attackers::{forgers, strangers};
use crate::calls::fill;
use crate::rest::{Answer, Caller};
use crate::world::World;
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt;

/// Tables that are nothing but credentials, or of the functions alone.
pub(crate) const OF_NOBODY: [&str; 6] =
    ["host_credentials", "host_enrolments", "idempotency_keys", "login_codes", "logins", "viewers"];

/// A table with one row of our organisation.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) row: Value,
    pub(crate) key: Vec<String>,
}

impl Table {
    /// The rows of our organisation.
    fn of_ours(&self, world: &World) -> String {
        match self.name.as_str() {
            "organizations" => format!("organizations?id=eq.{}&select=id", world.ours.id),
            "users" => format!("users?id=eq.{}&select=id", world.ours.member().id),
            name => format!("{name}?org_id=eq.{}&select=org_id", world.ours.id),
        }
    }

    /// The one row.
    fn of_row(&self) -> String {
        let conditions = self.key.iter().map(|column| {
            let value = &self.row[column];
            format!("{column}=eq.{}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        format!("{}?{}", self.name, conditions.collect::<Vec<_>>().join("&"))
    }

    /// A row like it that could be added.
    pub(crate) fn new_row(&self, world: &World) -> Value {
        let mut row = self.row.clone();
        let hash = json!(format!("\\x{}", jwt::sha256_hex(&Uuid::now_v7().to_string())));
        let fresh = [
            ("id", json!(Uuid::now_v7())),
            ("hash", hash.clone()),
            ("token_hash", hash),
            ("number", json!(99)),
            ("key", json!("other")),
            ("name", json!("other")),
            ("subject", json!("other")),
        ];
        for (column, value) in fresh {
            if row.get(column).is_some() {
                row[column] = value;
            }
        }
        if self.name == "memberships" {
            row["user_id"] = json!(world.outsider.id);
        }
        row
    }

    /// A column of the row, with what it has.
    pub(crate) fn same(&self) -> Value {
        let column = ["created_at", "sealed_at", "data"].into_iter().find(|column| self.row.get(column).is_some());
        let column = column.unwrap_or("id");
        json!({ column: self.row[column] })
    }

    /// Requests that write.
    fn writes(&self, world: &World) -> Vec<(Method, String, Option<Value>)> {
        let same = self.same();
        vec![
            (Method::POST, format!("{}?select={}", self.name, self.key[0]), Some(self.new_row(world))),
            (Method::PATCH, format!("{}&select={}", self.of_row(), self.key[0]), Some(same)),
            (Method::PUT, format!("{}&select={}", self.of_row(), self.key[0]), Some(self.row.clone())),
            (Method::DELETE, format!("{}&select={}", self.of_row(), self.key[0]), None),
        ]
    }
}

/// Every table, each with a row of ours.
pub(crate) async fn tables(world: &World) -> Result<Vec<Table>> {
    let (org, member) = (world.ours.id, world.ours.member().id);
    let keys = world
        .cluster
        .sql(
            "select c.relname || ' ' || string_agg(a.attname, ' ' order by k.n) from pg_class c
             join pg_index i on i.indrelid = c.oid and i.indisprimary
             cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
             join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
             where c.relnamespace = 'agentapi'::regnamespace group by c.relname order by c.relname",
        )
        .await?;
    let keys: BTreeMap<&str, Vec<String>> = keys
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, key)| (name, key.split(' ').map(str::to_owned).collect()))
        .collect();
    ensure!(keys.len() > 15, "the tables are found: {keys:?}");
    let mut tables = Vec::new();
    for (name, key) in keys {
        let condition = match name {
            "organizations" => format!("t.id = '{org}'"),
            "users" => format!("t.id = '{member}'"),
            _ => format!("t.org_id = '{org}'"),
        };
        let row =
            world.cluster.sql(&format!("select to_jsonb(t) from agentapi.{name} t where {condition} limit 1")).await?;
        let row = serde_json::from_str(&row).with_context(|| format!("{name} has a row"))?;
        tables.push(Table { name: name.to_owned(), row, key });
    }
    Ok(tables)
}

async fn tables_are_read_by_their_tenants_and_written_by_nobody(release: Release) -> Result<()> {
    let world = World::new(release).await?;
    fill(&world).await?;
    let tables = tables(&world).await?;
    let mut violations = Vec::new();
    let ours = &world.ours.owner().caller;
    for table in &tables {
        let path = table.of_ours(&world);
        for attacker in strangers(&world).into_iter().chain(forgers(&world)) {
            let answer = world.rest.get(&attacker.caller, &path).await?;
            if answer.rows() > 0 || !(answer.is_done() || [400, 401, 403].contains(&answer.status)) {
                violations.push(format!("{} reads {path}: {answer:?}", attacker.caller.name));
            }
        }
        for caller in [ours, &world.service] {
            let answer = world.rest.get(caller, &path).await?;
            let is_of_nobody = OF_NOBODY.contains(&table.name.as_str());
            if is_of_nobody && answer.code() != "42501" || !is_of_nobody && answer.rows() == 0 {
                violations.push(format!("{} at {path}: {answer:?}", caller.name));
            }
        }
    }
    let before = world.fingerprint().await?;
    let mut all: Vec<Caller> =
        strangers(&world).into_iter().chain(forgers(&world)).map(|attacker| attacker.caller).collect();
    all.extend([ours.clone(), Caller { proof: None, ..ours.clone() }, world.service.clone(), Caller::service()]);
    for table in &tables {
        for (method, path, body) in table.writes(&world) {
            for caller in &all {
                let answer = world.rest.send(caller, method.clone(), &path, body.as_ref()).await?;
                if ![400, 401, 403].contains(&answer.status) {
                    violations.push(format!("{}: {method} {path}: {answer:?}", caller.name));
                }
            }
        }
    }
    assert_eq!(world.fingerprint().await?, before, "nothing is written");
    assert!(violations.is_empty(), "{release:?}:\n{}", violations.join("\n"));
    the_same_requests_write_once_they_may(&world, &tables).await
}

/// Grants everything to everyone who is logged in.
pub(crate) async fn open(world: &World, tables: &[Table]) -> Result<()> {
    let mut open = "grant all on all tables in schema agentapi to authenticated;\n".to_owned();
    for table in tables {
        open.push_str(&format!(
            "create policy open on agentapi.{} for all to authenticated using (true);\n",
            table.name
        ));
    }
    world.cluster.sql(&open).await?;
    Ok(())
}

/// Whether a write found its right: rows that others point at stay, and the audit trail refuses everyone, both after it was found.
pub(crate) fn is_told(answer: &Answer) -> bool {
    ["23503", "23505"].contains(&answer.code()) || answer.word() == "append_only"
}

async fn the_same_requests_write_once_they_may(world: &World, tables: &[Table]) -> Result<()> {
    open(world, tables).await?;
    let ours = &world.ours.owner().caller;
    let mut refused = Vec::new();
    for table in tables {
        for (method, path, body) in table.writes(world) {
            let answer = world.rest.send(ours, method.clone(), &path, body.as_ref()).await?;
            if !(is_told(&answer) || answer.rows() == 1 && answer.is_done()) {
                refused.push(format!("{method} {path} {body:?}: {answer:?}"));
            }
        }
    }
    assert!(refused.is_empty(), "the requests are good:\n{}", refused.join("\n"));
    Ok(())
}

#[tokio::test]
async fn tables_keep_tenants_apart_on_the_systems() -> Result<()> {
    tables_are_read_by_their_tenants_and_written_by_nobody(Release::System).await
}

#[tokio::test]
async fn tables_keep_tenants_apart_on_17() -> Result<()> {
    tables_are_read_by_their_tenants_and_written_by_nobody(Release::V17).await
}
