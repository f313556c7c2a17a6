//! The schema before a client that is not ours: the crate `postgrest`, which quotes nothing and knows nothing of what is refused.
//!
//! `independent/` is a program with its own lock file. It tries and tells; whether that was too much is said here. The same attempts get
//! through for whose rows they are, and for everyone once everything was granted to everyone. On the system's Postgres alone: what
//! differs between releases is for `tables.rs` and `functions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

use agentapi_tests::wait::soon;

use crate::attackers::{Attacker, strangers};
use crate::calls::{Call, Rightful, calls, fill};
use crate::functions::{BRINGS_PROOF, FOUNDING, rightful};
use crate::rest::{Answer, Caller, audit};
use crate::tables::{OF_NOBODY, Table, is_told, open, tables};
use crate::world::{PROOF, World};
use agentapi_test_postgres::cluster::Release;
use agentapi_test_postgres::jwt::sha256_hex;

/// How the program is built; `make test` does.
const BUILD: &str =
    "cargo build --locked --manifest-path tests/database/independent/Cargo.toml --target-dir target/independent";

/// What asks for rows of ours at any table that may be read, and must get some if they are one's own.
const GOOD_READS: [&str; 9] =
    ["foreign", "count", "both", "others", "not own", "without filter", "out of or", "out of in", "out of path"];
/// What depends on the table: columns that nobody reads, and relations that not every table has.
const SOME_READS: [&str; 3] = ["out of select", "embedded", "all columns"];
/// What nobody may, whatever they own.
const BAD_READS: [&str; 2] = ["quote", "private"];

/// What the program tells of an attempt.
#[derive(Debug, Deserialize)]
struct Told {
    person: String,
    verb: String,
    target: String,
    attempt: String,
    status: u16,
    range: Option<String>,
    body: String,
}

impl Told {
    fn answer(&self) -> Answer {
        Answer { status: self.status, body: serde_json::from_str(&self.body).unwrap_or(Value::Null) }
    }

    fn is_done(&self) -> bool {
        self.answer().is_done()
    }

    /// Whether it speaks of anything of ours: rows, or how many there are.
    fn has_ours(&self, world: &World) -> bool {
        let ours = &world.ours;
        let mut ids = vec![ours.id, ours.session, ours.shared, ours.host];
        ids.extend(ours.people.iter().map(|person| person.id));
        let counts = self.attempt == "count" && !self.range.as_deref().is_some_and(|range| range.ends_with("/0"));
        self.is_done() && (counts || ids.iter().any(|id| self.body.contains(&id.to_string())))
    }
}

/// An attacker as the program takes one.
fn person(caller: &Caller, calls: Vec<Value>) -> Value {
    json!({ "name": caller.name, "token": caller.token, "proof": caller.proof, "calls": calls })
}

/// A table as the program takes one.
fn order(world: &World, table: &Table) -> Value {
    let (column, own, foreign) = match table.name.as_str() {
        "organizations" => ("id", world.theirs.id, world.ours.id),
        "users" => ("id", world.theirs.owner().id, world.ours.member().id),
        _ => ("org_id", world.theirs.id, world.ours.id),
    };
    json!({ "name": table.name, "column": column, "own": own, "foreign": foreign, "key": table.key.join(","),
        "row": table.row, "new": table.new_row(world), "same": table.same() })
}

fn program() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("target/debug/deps/test")?;
    let path = target.join("independent/debug/independent-client");
    ensure!(path.exists(), "{} is missing: {BUILD}", path.display());
    Ok(path)
}

/// Has it all tried, by one after the other.
async fn attempts(world: &World, tables: &[Table], people: Vec<Value>) -> Result<Vec<Told>> {
    let tables: Vec<Value> = tables.iter().map(|table| order(world, table)).collect();
    let orders = json!({ "url": world.cluster.url, "schema": "agentapi", "people": people, "tables": tables });
    let mut command = Command::new(program()?);
    // Without a proxy that somebody may have.
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("its standard input")?;
    stdin.write_all(&serde_json::to_vec(&orders)?).await?;
    drop(stdin);
    let output = soon("the attempts are made", child.wait_with_output()).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// People of another organisation and of none, with the proof and as they are; and nobody.
fn attackers(world: &World) -> Vec<Attacker> {
    let mut all = strangers(world);
    for (name, attacker) in ["another tenant, unproven", "of no tenant, unproven"].into_iter().zip(strangers(world)) {
        all.push(Attacker { caller: Caller { name, proof: None, ..attacker.caller }, id: attacker.id });
    }
    all.push(Attacker { caller: Caller::anon().proven(PROOF), id: world.ours.owner().id });
    all
}

/// Whether an attempt of somebody who may nothing went as it must.
fn is_refused(world: &World, told: &Told) -> bool {
    if told.is_done() {
        return told.verb == "read" && !BAD_READS.contains(&told.attempt.as_str()) && !told.has_ours(world);
    }
    match told.verb.as_str() {
        // A value that is none, a relation that is none, two of them, a schema that is not shown.
        "read" => [300, 400, 401, 403, 406].contains(&told.status),
        _ => [401, 403].contains(&told.status),
    }
}

/// What the owner of the rows may: read them, in each of these ways, and nothing else.
fn is_an_owners(world: &World, told: &Told) -> bool {
    let attempt = told.attempt.as_str();
    if told.verb != "read" || BAD_READS.contains(&attempt) {
        return !told.is_done() && is_refused(world, told);
    }
    let is_of_nobody = OF_NOBODY.contains(&told.target.as_str());
    if is_of_nobody && attempt != "embedded" {
        return told.answer().code() == "42501";
    }
    is_of_nobody || !GOOD_READS.contains(&attempt) || told.has_ours(world)
}

/// Each kind of attempt, with how many there were and how many found something of ours.
fn kinds<'a>(world: &World, all: impl Iterator<Item = &'a Told>) -> BTreeMap<&'a str, (usize, usize)> {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for told in all {
        let (made, found) = kinds.entry(&told.attempt).or_default();
        *made += 1;
        *found += usize::from(told.has_ours(world));
    }
    kinds
}

#[tokio::test]
async fn another_client_reads_what_is_its_own_and_writes_nothing() -> Result<()> {
    let world = World::new(Release::System).await?;
    fill(&world).await?;
    let tables = tables(&world).await?;
    let owner = &world.ours.owner().caller;
    let attackers = attackers(&world);
    let mut people: Vec<Value> = attackers.iter().map(|attacker| person(&attacker.caller, Vec::new())).collect();
    people.push(person(owner, Vec::new()));
    let before = world.fingerprint().await?;
    let all = attempts(&world, &tables, people).await?;
    let after = world.fingerprint().await?;

    let (own, foreign): (Vec<&Told>, Vec<&Told>) = all.iter().partition(|told| told.person == owner.name);
    ensure!(foreign.len() == own.len() * attackers.len(), "everybody tried everything");
    let mut violations: Vec<&Told> = foreign.iter().filter(|told| !is_refused(&world, told)).copied().collect();
    violations.extend(own.iter().filter(|told| !is_an_owners(&world, told)));
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(after, before, "nothing is written");
    // The attempts are good ones: whose rows they are finds them in each way, and strangers find their own.
    let kinds = kinds(&world, own.iter().copied().filter(|told| told.verb == "read"));
    for attempt in GOOD_READS {
        let (made, found) = kinds[attempt];
        ensure!(made == tables.len() && found == made - OF_NOBODY.len(), "{attempt}: {found} of {made}");
    }
    for attempt in SOME_READS {
        ensure!(kinds[attempt].1 > 0, "{attempt}: {kinds:?}");
    }
    for (name, table, is_theirs) in [
        ("another tenant", "organizations", true),
        ("another tenant, unproven", "user_sessions", true),
        ("anon", "users", false),
    ] {
        let told = foreign.iter().find(|told| (&*told.person, &*told.target, &*told.attempt) == (name, table, "own"));
        let told = told.context("an attempt at one's own")?;
        ensure!((told.answer().rows() > 0) == is_theirs, "{told:?}");
    }
    the_same_attempts_succeed_once_they_may(&world, &tables).await
}

async fn the_same_attempts_succeed_once_they_may(world: &World, tables: &[Table]) -> Result<()> {
    open(world, tables).await?;
    let stranger = Caller { proof: None, ..world.theirs.owner().caller.clone() };
    let all = attempts(world, tables, vec![person(&stranger, Vec::new())]).await?;
    let is_through = |told: &&Told| match told.verb.as_str() {
        "read" => !GOOD_READS.contains(&told.attempt.as_str()) || told.has_ours(world),
        "change" => is_told(&told.answer()) || told.is_done() && told.answer().rows() > 0,
        // What points at another row may have gone with it.
        _ => is_told(&told.answer()) || told.is_done(),
    };
    let kept: Vec<&Told> = all.iter().filter(|told| !is_through(told)).collect();
    assert!(kept.is_empty(), "the attempts are good: {kept:#?}");
    Ok(())
}

/// A call as the program takes one.
fn call(world: &World, call: &Call, attacker: &Attacker) -> Value {
    let arguments = call.arguments(attacker.id);
    // With the proof, what people do to their own organisation would be done.
    let is_harmless = call.rightful == Rightful::Reader || attacker.caller.proof.is_none();
    let all_ways = is_harmless && arguments.get("p_org").is_some();
    let ways: &[&str] = if all_ways { &["foreign", "own", "twice"] } else { &["foreign"] };
    json!({ "function": call.name, "ways": ways, "arguments": arguments, "own": world.theirs.id, "foreign": world.ours.id })
}

/// The two functions that are about no organisation that exists: somebody signs up, and a control plane proves itself.
fn beginnings(world: &World, actor: Uuid) -> [Value; 2] {
    let org = Uuid::now_v7();
    let record = audit(org, "user", &actor.to_string(), "organization.create");
    let founding = json!({ "p_org": org, "p_name": "new", "p_by": "sign_up", "p_audit": record });
    let proof = json!({ "p_hash": sha256_hex("another proof"), "p_others_end_s": 600 });
    [(FOUNDING, founding), (BRINGS_PROOF, proof)].map(|(function, arguments)| {
        json!({ "function": function, "ways": ["foreign"], "arguments": arguments, "own": world.theirs.id, "foreign": world.ours.id })
    })
}

fn is_a_refused_call(world: &World, told: &Told, readers: &BTreeSet<&str>) -> bool {
    if told.is_done() {
        return readers.contains(told.target.as_str()) && !told.has_ours(world);
    }
    [401, 403, 404].contains(&told.status)
}

#[tokio::test]
async fn another_client_calls_no_function_that_it_may_not() -> Result<()> {
    let world = World::new(Release::System).await?;
    let things = fill(&world).await?;
    let calls = calls(&world, &things).await?;
    let mut people = Vec::new();
    for attacker in attackers(&world) {
        // Who is invited and signs up.
        let may_begin = attacker.id == world.outsider.id && attacker.caller.proof.is_some();
        let [founding, proof] = beginnings(&world, attacker.id);
        let called = calls.iter().filter(|call| !may_begin || call.rightful != Rightful::Outsider);
        let mut called: Vec<Value> = called.map(|one| call(&world, one, &attacker)).collect();
        called.push(proof);
        called.extend((!may_begin).then_some(founding));
        people.push(person(&attacker.caller, called));
    }
    let before = world.fingerprint().await?;
    let all = attempts(&world, &[], people).await?;
    let after = world.fingerprint().await?;
    let readers: BTreeSet<&str> =
        calls.iter().filter(|call| call.rightful == Rightful::Reader).map(|call| call.name).collect();
    let violations: Vec<&Told> = all.iter().filter(|told| !is_a_refused_call(&world, told, &readers)).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(after, before, "nothing is written");

    // The calls are good ones: by whom they are for they are done, each after the other.
    let [founding, proof] = beginnings(&world, world.outsider.id);
    let mut people = vec![person(&world.outsider.caller, vec![founding]), person(&Caller::service(), vec![proof])];
    let rightful = calls.iter().map(|one| (one, rightful(&world, one)));
    people.extend(rightful.map(|(one, right)| person(&right.caller, vec![call(&world, one, &right)])));
    let done = attempts(&world, &[], people).await?;
    let (own, done): (Vec<&Told>, Vec<&Told>) = done.iter().partition(|told| told.attempt == "own");
    ensure!(own.len() == readers.len() && done.len() == 2 + calls.len() + readers.len(), "every call is made");
    for told in done {
        if !told.is_done() || readers.contains(told.target.as_str()) && !told.has_ours(&world) {
            bail!("{} is refused to whoever may: {told:?}", told.target);
        }
    }
    Ok(())
}
