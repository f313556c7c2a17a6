//! The same operations on both stores, at random: the answers are equal, and so are the audit records that are left.
//!
//! Four lanes at once, each with its own embedded store, and cases with organisations of their own in one Postgres. An operation that is answered
//! differently is found with the shortest sequence that leads to it.

mod acts;
mod operation;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::real::Real;
use operation::Operation;
use world::{Embedded, World};

const LANES: u8 = 4;
const CASES: u32 = 25;
const OPERATIONS: usize = 100;
/// How long a failing case is made shorter: each try is a case.
const SHRINK_MS_MAX: u32 = 20_000;

/// How often each kind of answer came: a test in which nothing is found or refused would show nothing.
type Seen = Mutex<BTreeMap<String, usize>>;

/// The first word of what is shown: the name of an operation, or the kind of an answer.
fn kind(shown: &str) -> &str {
    shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

fn count(seen: &Seen, operation: &Operation, answer: &str) {
    // An empty page, and nothing where something might be, are answers of their own.
    let answer = if ["[]", "None"].contains(&answer) { "nothing" } else { kind(answer) };
    let answer = if ["NotFound", "Stale", "Forbidden", "Quota", "nothing"].contains(&answer) { answer } else { "done" };
    let name = format!("{} {answer}", kind(&format!("{operation:?}")));
    *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
}

/// Runs a case; the first difference.
async fn differ(real: &Real, embedded: &Embedded, operations: &[Operation], seen: &Seen) -> Result<()> {
    let mut world = World::new(real, embedded).await?;
    for (index, operation) in operations.iter().enumerate() {
        let (ours, theirs) = world.both(operation).await;
        count(seen, operation, &ours);
        ensure!(!ours.starts_with("unavailable"), "operation {index}, {operation:?}: {ours}");
        ensure!(ours == theirs, "operation {index}, {operation:?}\n  embedded:  {ours}\n  postgrest: {theirs}");
    }
    let (ours, theirs) = world.audit_trails().await?;
    ensure!(ours == theirs, "audit records\n  embedded:  {ours:?}\n  postgrest: {theirs:?}");
    Ok(())
}

fn lane(number: u8, real: &Real, seen: &Seen, runtime: &tokio::runtime::Handle) -> Result<()> {
    let embedded = Embedded::open()?;
    let config =
        Config { cases: CASES, max_shrink_time: SHRINK_MS_MAX, failure_persistence: None, ..Config::default() };
    // Always the same operations; ids come from the clock.
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[number; 32]));
    let result = runner.run(&vec(operation::operation(), OPERATIONS), |operations| {
        runtime
            .block_on(differ(real, &embedded, &operations, seen))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, operations)) => Err(anyhow::anyhow!("lane {number}, after {operations:#?}\n{why}")),
        Err(other) => Err(other.into()),
    }
}

/// What must have come up for the test to mean anything, each at least this often.
const SEEN_MIN: usize = 10;
const SEEN: [&str; 31] = [
    "Create done",
    "Session done",
    "Session NotFound",
    "Sessions done",
    "Sessions nothing",
    "Unsettled done",
    "Update done",
    "Update Stale",
    "Update Forbidden",
    "Update NotFound",
    "Purge done",
    "Egress done",
    "Egress nothing",
    "Egress NotFound",
    "Hosts done",
    "Host done",
    "OutboxSeen done",
    "Token done",
    "Token nothing",
    "Redeem done",
    "Redeem nothing",
    "Browser done",
    "Begin done",
    "Audit done",
    "Attach done",
    "Attach Quota",
    "Attach Forbidden",
    "Attach NotFound",
    "Detach done",
    "Renew done",
    "Renew nothing",
];

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_answer_alike() -> Result<()> {
    let (real, seen) = (Arc::new(Real::start().await?), Arc::new(Seen::default()));
    let lanes = (0..LANES).map(|number| {
        let (real, seen, runtime) = (real.clone(), seen.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || lane(number, &real, &seen, &runtime))
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.context("a lane")??;
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let rare: Vec<&str> = SEEN.into_iter().filter(|name| seen.get(*name).copied().unwrap_or(0) < SEEN_MIN).collect();
    ensure!(rare.is_empty(), "too rare: {rare:?} of {seen:#?}");
    Ok(())
}
