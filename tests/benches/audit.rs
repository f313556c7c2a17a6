//! The audit trail: how fast records get their place in the chain, and how long it takes to hand a trail out and to verify it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agentapi_tests::process::binary;
use agentapi_tests::product::Product;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Options;
use crate::stats::Table;

/// Bytes of a record's text.
const TEXT_BYTES: usize = 1024;

/// Adds records without a place in the chain, as a control plane that was killed leaves them: database, count, bytes of a text.
const FILL: &str = r#"
import sqlite3, sys, uuid
path, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
org, user = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
def rows():
    for number in range(count):
        id, at = str(uuid.uuid4()), "2026-01-02T03:04:05.678901Z"
        start = '{"id":"%s","org_id":"%s","at":"%s","action":"session.input","channel":"api","actor":{"kind":"user","id":"%s","credential":null},' % (id, org, at, user)
        start += '"session_id":null,"host_id":null,"request_id":null,"detail":{"padding":"'
        yield id, org, user, at, start + "x" * (size - len(start) - 3) + '"}}'
database = sqlite3.connect(path)
database.executemany("INSERT INTO audit_logs (id, org_id, created_by, created_at, actor_kind, action, channel, entry) "
                     "VALUES (?, ?, ?, ?, 'user', 'session.input', 'api', ?)", rows())
database.commit()
"#;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut product = Product::start().await?;
    let count = options.count(1_000_000, 2_000);
    product.stop_plane().await?;
    let database = product.path().join("controlplane/controlplane.db");
    let words = [count.to_string(), TEXT_BYTES.to_string()];
    let filled = Command::new("python3").args(["-c", FILL]).arg(&database).args(words).output()?;
    ensure!(filled.status.success(), "{filled:?}");

    let before = Instant::now();
    product.start_plane().await?;
    let start = Instant::now();
    let head = loop {
        let page: Value = product.get("/audit?limit=1").await?;
        let number = page["data"][0]["number"].as_u64().unwrap_or_default();
        if number >= count as u64 {
            break number;
        }
        // What asks is not to be what is measured.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let sealed = start.elapsed();
    let with_start = before.elapsed();

    let file = product.path().join("trail.ndjson");
    let exported = timed(&product, &["audit", "export", "--output"], &file)?;
    let verified = timed(&product, &["audit", "verify"], &file)?;
    let bytes = std::fs::metadata(&file)?.len();
    let (bad, named) = first_bad(&product, &file, head)?;

    let mut table = Table::new("Audit trail", &["step", "records", "s", "records/s"]);
    for (name, took) in [
        ("sealed", sealed),
        ("sealed, with the start of the control plane", with_start),
        ("exported", exported),
        ("verified", verified),
        ("verified, up to the one that was changed", named),
    ] {
        let seconds = took.as_secs_f64();
        table.row(&[
            name.to_owned(),
            head.to_string(),
            format!("{seconds:.2}"),
            format!("{:.0}", head as f64 / seconds),
        ]);
    }
    table.note(&format!(
        "Records of {TEXT_BYTES} bytes; the export has {} MB; record {bad} was changed, and named. Bars: 10,000 records/s sealed; 1,000,000 verified within 20 s.",
        bytes / 1_000_000
    ));
    table.print();
    Ok(())
}

/// Changes a letter of a record near the end, which has to be named; how long that took.
fn first_bad(product: &Product, file: &Path, head: u64) -> Result<(u64, Duration)> {
    let number = (head - head / 100).max(1);
    let changed = product.path().join("changed.ndjson");
    let at = format!("^\\({{\"number\":{number},.*\\)session.input\\(.*\\)$");
    let mut sed = Command::new("sed");
    sed.arg(format!("s/{at}/\\1session.inputs\\2/")).arg(file).stdout(std::fs::File::create(&changed)?);
    ensure!(sed.status()?.success(), "sed changed nothing");
    let start = Instant::now();
    let output = Command::new(binary("agentapi")).args(["audit", "verify", "--json"]).arg(&changed).output()?;
    let took = start.elapsed();
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["first_bad"] == number, "record {number} was changed: {report}");
    std::fs::remove_file(&changed)?;
    Ok((number, took))
}

fn timed(product: &Product, words: &[&str], file: &Path) -> Result<Duration> {
    let mut command = Command::new(binary("agentapi"));
    command.args(words).arg(file).env("AGENTAPI_URL", format!("http://{}", product.address()));
    let start = Instant::now();
    let output = command.env("AGENTAPI_TOKEN", product.token()).output().context("agentapi")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(start.elapsed())
}
