//! Pages of sessions through the API, where an organisation has 100,000: the owner's first and a deep one, and those of a member who owns ten.

use std::process::{Command, Stdio};
use std::time::Instant;

use agentapi_test_postgres::cluster::Cluster;
use agentapi_test_postgres::jwt::sha256_hex;
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{Daemon, binary};
use agentapi_tests::project::{ORG, USER, project};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Options;
use crate::embedded::Plane;
use crate::stats::{Samples, Table};

/// Of a page that is measured.
const LIMIT: usize = 50;
/// Of a page on the way to it.
const STEP: usize = 200;
const MEMBER: &str = "01a00000-0000-7000-8000-00000000aaaa";
const MEMBERS_KEY: &str = "aa_a-member-who-exists-for-one-run";
const OWN: usize = 10;

/// Sessions, the member, and the member's key: database, count, organisation, owner, member, hash of the key.
const FILL: &str = "
import sqlite3, sys
path, count, org, owner, member, key = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
at = '2026-01-02T03:04:05.678901Z'
database = sqlite3.connect(path)
database.execute(\"INSERT INTO users (id, issuer, subject, name, created_at) VALUES (?1, 'test', ?1, 'few', ?2)\", (member, at))
database.execute(\"INSERT INTO memberships VALUES (?1, ?2, 'member', ?2, ?3)\", (org, member, at))
database.execute(\"INSERT INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash) VALUES (?1, ?2, ?1, ?1, ?3, 'test', 'aa_', ?4)\", (member, org, at, key))
every = max(1, count // 10)
rows = (('01a00000-0000-7000-8000-%012x' % n, org, member if n % every == 7 % every else owner, at) for n in range(1, count + 1))
database.executemany(\"INSERT INTO user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace, desired, generation, stop_grace_ms, stop_force, revision, state) VALUES (?, ?, ?, ?, '{}', 'custom', '[]', '[]', 80, 24, '{}', 'run', 1, 1, 0, 1, 'exited')\", rows)
database.execute(\"INSERT INTO spawns (session_id, number, org_id, created_by, created_at, state) SELECT id, 1, org_id, created_by, created_at, state FROM user_sessions\")
database.commit()
";

/// An API, and who asks it.
struct Place {
    name: &'static str,
    http: reqwest::Client,
    url: String,
    owner: String,
}

impl Place {
    async fn page(&self, token: &str, limit: usize, cursor: Option<&str>) -> Result<Value> {
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let url = format!("{}/api/v1/sessions?limit={limit}{cursor}", self.url);
        let answer = self.http.get(url).bearer_auth(token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Where the last pages begin, on the way that callers go.
    async fn deep(&self, token: &str) -> Result<Option<String>> {
        let mut cursors: Vec<Option<String>> = vec![None];
        loop {
            let last = cursors.last().cloned().flatten();
            let page = self.page(token, STEP, last.as_deref()).await?;
            match page["next_cursor"].as_str() {
                Some(next) => cursors.push(Some(next.to_owned())),
                None => return Ok(cursors[cursors.len().saturating_sub(2)].clone()),
            }
        }
    }

    async fn measure(&self, token: &str, cursor: Option<&str>, times: &mut Samples, rounds: usize) -> Result<usize> {
        let mut found = 0;
        for _ in 0..rounds {
            let before = Instant::now();
            let page = self.page(token, LIMIT, cursor).await?;
            times.push_us(before.elapsed());
            found = page["data"].as_array().map_or(0, Vec::len);
        }
        Ok(found)
    }

    async fn rows(&self, options: &Options, table: &mut Table) -> Result<()> {
        let deep = self.deep(&self.owner).await?;
        let pages: [(&str, &str, Option<&str>); 3] = [
            ("the owner's first", &self.owner, None),
            ("a deep one of the owner's", &self.owner, deep.as_deref()),
            ("all ten of a member", MEMBERS_KEY, None),
        ];
        let (mut times, mut found) = (<[Samples; 3]>::default(), [0; 3]);
        for _ in 0..options.count(5, 1) {
            for (index, (_, token, cursor)) in pages.iter().enumerate() {
                found[index] = self.measure(token, *cursor, &mut times[index], options.count(40, 3)).await?;
            }
        }
        ensure!(found[2] == OWN, "the member owns {OWN}: {found:?}");
        for (index, (name, _, _)) in pages.iter().enumerate() {
            let p50 = times[index].median();
            table.row(&[
                self.name.to_owned(),
                (*name).to_owned(),
                found[index].to_string(),
                format!("{p50:.0}"),
                format!("{:.2}", p50 / times[0].median()),
            ]);
        }
        Ok(())
    }
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

async fn embedded(count: usize) -> Result<(Plane, Place)> {
    let mut plane = Plane::start().await?;
    let (org, owner) = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002");
    let database = plane.dir.path().join("controlplane/controlplane.db");
    let mut fill = Command::new("python3");
    fill.args(["-c", FILL]).arg(database).arg(count.to_string());
    fill.args([org, owner, MEMBER, &sha256_hex(MEMBERS_KEY)]).stdout(Stdio::null());
    let filled = fill.output()?;
    ensure!(filled.status.success(), "{filled:?}");
    plane.restart().await?;
    let place = Place { name: "embedded", http: client()?, url: plane.url.clone(), owner: plane.token.clone() };
    Ok((plane, place))
}

async fn in_a_project(cluster: &Cluster, dir: &TempDir, count: usize) -> Result<(Daemon, Place)> {
    let project = project(cluster).await?;
    let (every, hash) = ((count / OWN).max(1), sha256_hex(MEMBERS_KEY));
    // Without triggers: they would record each row.
    let fill = format!(
        "set session_replication_role = replica;
         insert into agentapi.users (id, issuer, subject, name) values ('{MEMBER}', 'test', '{MEMBER}', 'few');
         insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{ORG}', '{MEMBER}', 'member', '{USER}');
         insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash)
         values ('{MEMBER}', '{ORG}', '{MEMBER}', '{MEMBER}', 'test', 'aa_', decode('{hash}', 'hex'));
         insert into agentapi.user_sessions (id, org_id, created_by, created_at, labels, agent, command, args, cols, rows, workspace, sandbox,
           desired, generation, stop_grace_ms, revision, state)
         select ('01a00000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{ORG}',
           (case when n % {every} = 7 % {every} then '{MEMBER}' else '{USER}' end)::uuid, now(), '{{}}', 'custom', '[]', '[]', 80, 24, '{{}}',
           '{{}}', 'run', 1, 1, 1, 'exited' from generate_series(1, {count}) as n;
         insert into agentapi.spawns (session_id, number, org_id, created_by, created_at, state)
         select id, 1, org_id, created_by, now(), state from agentapi.user_sessions;
         analyze agentapi.user_sessions; analyze agentapi.spawns;"
    );
    cluster.sql_as("supabase_admin", &fill).await?;
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("controlplane"));
    command.envs(project.environment.iter().map(|(name, value)| (*name, value.as_str())));
    let mut plane = Daemon::start(command, &dir.path().join("controlplane.log"))?;
    let ready: Value = serde_json::from_str(&plane.line().await?)?;
    let url = ready["ready"].as_str().context("a URL")?.to_owned();
    Ok((plane, Place { name: "project", http: client()?, url, owner: project.token }))
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let count = options.count(100_000, 1_000);
    let mut table =
        Table::new("Pages of sessions, through the API", &["store", "page", "rows", "p50 us", "of the owner's first"]);
    let (plane, place) = embedded(count).await?;
    place.rows(options, &mut table).await?;
    drop(plane);
    let (cluster, dir) = (Cluster::own().await?, TempDir::new());
    let (_plane, place) = in_a_project(&cluster, &dir, count).await?;
    place.rows(options, &mut table).await?;
    table.note(&format!("{count} sessions in the organisation, pages of {LIMIT}, medians by turns. Bar: at most 2.0."));
    table.print();
    Ok(())
}
