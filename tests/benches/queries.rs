//! How long a program waits for the answer to a question to its terminal, by its own clock.

use std::path::Path;

use agentapi_tests::product::Product;
use anyhow::{Context, Result};
use serde_json::Value;

use crate::Options;
use crate::peers::Tmux;
use crate::stats::Table;
use crate::throughput::{in_root, remove};
use crate::timed_command::take;

/// Asks DA1 and CPR in turn, idle in between, and leaves microseconds as JSON in `answers`.
const ASK: &str = r#"
import json, os, sys, time, tty
tty.setraw(0)
def ask(question, end):
    start = time.perf_counter()
    os.write(1, question)
    answer = b""
    while not answer.endswith(end):
        answer += os.read(0, 64)
    return (time.perf_counter() - start) * 1e6
times = {"DA1": [], "CPR": []}
for turn in range(int(sys.argv[1]) + 20):
    for name, question, end in (("DA1", b"\x1b[c", b"c"), ("CPR", b"\x1b[6n", b"R")):
        took = ask(question, end)
        if turn >= 20:
            times[name].append(took)
        time.sleep(0.002)
open("answers.new", "w").write(json.dumps({name: sorted(took) for name, took in times.items()}))
os.rename("answers.new", "answers")
time.sleep(3600)
"#;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let dir = product.root();
    let count = options.count(1000, 10).to_string();
    let command = ["python3", "-c", ASK, &count];
    let mut table = Table::new("Answers to device queries", &["who answers", "query", "p50 us", "p99 us", "max us"]);
    let tmux = Tmux::start(&dir, &command)?;
    rows(&mut table, "tmux, detached", &answers(&dir).await?)?;
    drop(tmux);
    let session = in_root(&product, &command).await?;
    rows(&mut table, "ours", &answers(&dir).await?)?;
    remove(&product, &session).await?;
    table.note(&format!("{count} of each, 2 ms apart, seen from the program. Bar: p99 within 5,000 us."));
    table.print();
    Ok(())
}

async fn answers(dir: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&take(dir, "answers").await?)?)
}

fn rows(table: &mut Table, who: &str, answers: &Value) -> Result<()> {
    for (query, times) in answers.as_object().context("times by query")? {
        let times: Vec<f64> = serde_json::from_value(times.clone())?;
        let at =
            |part: f64| times.get((times.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or(f64::NAN);
        table.row(&[
            who.to_owned(),
            query.clone(),
            format!("{:.0}", at(0.5)),
            format!("{:.0}", at(0.99)),
            format!("{:.0}", at(1.0)),
        ]);
    }
    Ok(())
}
