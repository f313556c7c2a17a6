//! Somebody with a token and a client that they found: every verb at every table and every function that they are told of, with the crate
//! `postgrest`, which writes values into its queries as they come.
//!
//! Orders come as JSON on standard input, tokens among them, and each attempt is told as one line of JSON. What an outcome means is for the
//! test to say (`independent.rs`), which knows whose rows these are. Answers are told whole; no token is.

mod attempts;

use std::error::Error;
use std::io::Write as _;

use postgrest::{Builder, Postgrest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::attempts::{Table, calls, changes, reads, removals};

/// The header by which the control plane proves that it sent a request.
const PROOF: &str = "x-agentapi-proof";

/// What is to be tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Orders {
    /// Of PostgREST.
    url: String,
    schema: String,
    /// One after the other.
    people: Vec<Person>,
    /// Each person tries them all.
    tables: Vec<Table>,
}

/// Whoever tries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    token: Option<String>,
    proof: Option<String>,
    calls: Vec<Call>,
}

/// A function, and what it is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    function: String,
    /// In which of these ways it is called.
    ways: Vec<Way>,
    arguments: Box<RawValue>,
    own: String,
    foreign: String,
}

/// How a function that is about an organisation is called by somebody of another.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// As it is.
    Foreign,
    /// For one's own organisation, with everything else that was the other's.
    Own,
    /// With both: the arguments are text to the client, and a value that is not quoted becomes two.
    Twice,
}

/// What came of an attempt.
#[derive(Serialize)]
struct Outcome<'a> {
    person: &'a str,
    verb: Verb,
    /// A table or a function.
    target: &'a str,
    attempt: &'a str,
    status: u16,
    /// Which rows of how many; a number of rows tells of them too.
    range: Option<String>,
    body: String,
}

#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Read,
    Change,
    Remove,
    Call,
}

/// Somebody at a project.
struct Attacker<'a> {
    person: &'a Person,
    project: Postgrest,
}

impl<'a> Attacker<'a> {
    fn new(orders: &Orders, person: &'a Person) -> Self {
        let mut project = Postgrest::new(orders.url.as_str()).schema(orders.schema.as_str());
        if let Some(proof) = &person.proof {
            project = project.insert_header(PROOF, proof);
        }
        Self { person, project }
    }

    async fn make(&self, verb: Verb, target: &str, attempt: &str, request: Builder) -> Result<(), Box<dyn Error>> {
        let request = if let Some(token) = &self.person.token { request.auth(token) } else { request };
        let answer = request.execute().await?;
        let range = answer.headers().get("content-range").and_then(|range| range.to_str().ok()).map(str::to_owned);
        let status = answer.status().as_u16();
        let outcome =
            Outcome { person: &self.person.name, verb, target, attempt, status, range, body: answer.text().await? };
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &outcome)?;
        Ok(writeln!(out)?)
    }
}

async fn attack(orders: &Orders) -> Result<(), Box<dyn Error>> {
    type Attempts = fn(&Postgrest, &Table) -> Vec<(&'static str, Builder)>;
    // In this order: what is removed is neither read nor changed.
    let verbs: [(Verb, Attempts); 3] = [(Verb::Read, reads), (Verb::Change, changes), (Verb::Remove, removals)];
    for person in &orders.people {
        let attacker = Attacker::new(orders, person);
        for (verb, attempts) in verbs {
            for table in &orders.tables {
                for (attempt, request) in attempts(&attacker.project, table) {
                    attacker.make(verb, &table.name, attempt, request).await?;
                }
            }
        }
        for call in &person.calls {
            for (attempt, request) in calls(&attacker.project, call) {
                attacker.make(Verb::Call, &call.function, attempt, request).await?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let orders: Orders = serde_json::from_reader(std::io::stdin().lock())?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(attack(&orders))
}
