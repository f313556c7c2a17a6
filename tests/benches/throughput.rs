//! How fast 100 MB of log text reach a viewer that misses none of it and keeps up.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use agentapi_shared::api::{Session, Workspace, WorkspaceSource};
use agentapi_shared::viewer::ACK_EVERY_BYTES;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, ViewerOptions};
use anyhow::Result;
use http::Method;
use serde_json::json;

use crate::bare::{BareRelay, Threads};
use crate::processes::{Process, Usage};
use crate::pty::RawPty;
use crate::stats::{Samples, Table};
use crate::{Options, log_text};

/// Waits for a line, then writes the whole log.
const CAT: [&str; 3] = ["sh", "-c", "stty -echo; printf READY; read _; exec cat log.txt"];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let bytes = log_text::write(&product.root().join("log.txt"), options.count(100_000_000, 1_000_000) as u64)?;
    let names = ["raw PTY", "bare relay, one thread each", "ours, `catchup=bytes`"];
    let mut rates = vec![Samples::default(); names.len()];
    let mut costs = vec![Samples::default(); 3];
    let mut peak = 0;
    for _ in 0..options.count(7, 1) {
        let seconds = [raw(&product.root(), bytes)?, bare(&product.root(), bytes).await?];
        let (ours, usage) = ours(&product, bytes).await?;
        for (rates, seconds) in rates.iter_mut().zip(seconds.into_iter().chain([ours])) {
            rates.push(bytes as f64 / 1e6 / seconds);
        }
        for (costs, process) in costs.iter_mut().zip(&usage) {
            costs.push(process.cpu.as_secs_f64() * 1e3 / (bytes as f64 / 1e6));
        }
        peak = usage.iter().map(|process| process.private_dirty_kib).max().unwrap_or(0).max(peak);
    }
    let mut table = Table::new("100 MB of log text to one viewer", &["way", "MB/s, median", "range", "of the raw PTY"]);
    let limit = rates.first().map_or(f64::NAN, Samples::median);
    for (name, rates) in names.iter().zip(&rates) {
        let median = rates.median();
        table.row(&[
            (*name).to_owned(),
            format!("{median:.0}"),
            rates.range(),
            format!("{:.0} %", 100.0 * median / limit),
        ]);
    }
    let [shim, supervisor, plane] = [0, 1, 2].map(|index| costs.get(index).map_or(f64::NAN, Samples::median));
    table.note(&format!(
        "{} rounds, each way in turn. CPU of ours, ms per MB: shim {shim:.1}, supervisor {supervisor:.1}, control plane \
         {plane:.1}; the largest of them had {peak} KiB of its own afterwards. Bar: 75 % of the raw PTY.",
        rates.first().map_or(0, Samples::len),
    ));
    table.print();
    Ok(())
}

fn raw(dir: &Path, bytes: u64) -> Result<f64> {
    let mut pty = RawPty::spawn(&CAT, dir)?;
    pty.read_until(b"READY")?;
    let start = Instant::now();
    pty.writer.write_all(b"\n")?;
    let (mut buffer, mut got) = (vec![0; 64 * 1024], 0);
    while got < bytes {
        got += pty.reader.read(&mut buffer)? as u64;
    }
    Ok(start.elapsed().as_secs_f64())
}

async fn bare(dir: &Path, bytes: u64) -> Result<f64> {
    let mut relay = BareRelay::start(Threads::One, &CAT, dir).await?;
    relay.read_until(b"READY").await?;
    let start = Instant::now();
    relay.input(b"\n").await?;
    let mut got = 0;
    while got < bytes {
        got += relay.output().await?.len() as u64;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds, and what shim, supervisor and control plane used meanwhile.
async fn ours(product: &Product, bytes: u64) -> Result<(f64, [Usage; 3])> {
    let session = in_root(product, &CAT).await?;
    let options = ViewerOptions { all_bytes: true, from: Some((1, 0)), ..ViewerOptions::default() };
    let mut viewer = product.view(session.id, options).await?;
    viewer.output_until("READY").await?;
    let processes = Process::of_product(product)?;
    let before = usages(&processes)?;
    let first = viewer.offset;
    let start = Instant::now();
    viewer.input(b"\n").await?;
    let mut acknowledged = viewer.offset;
    while viewer.offset < first + bytes {
        if let Seen::Output(..) = viewer.next_unacknowledged().await?
            && viewer.offset - acknowledged >= ACK_EVERY_BYTES
        {
            viewer.acknowledge().await?;
            acknowledged = viewer.offset;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = usages(&processes)?;
    let mut used = after;
    for (used, before) in used.iter_mut().zip(&before) {
        used.cpu -= before.cpu;
    }
    remove(product, &session).await?;
    Ok((seconds, used))
}

fn usages(processes: &[Process; 3]) -> Result<[Usage; 3]> {
    let [shim, supervisor, plane] = processes;
    Ok([shim.usage()?, supervisor.usage()?, plane.usage()?])
}

/// A session that works in the product's workspace root.
pub(crate) async fn in_root(product: &Product, command: &[&str]) -> Result<Session> {
    let path = product.root().to_string_lossy().into_owned();
    let workspace = Workspace { source: WorkspaceSource::Path, path: Some(path) };
    let body = json!({ "agent": "custom", "command": command, "workspace": workspace });
    product.post("/sessions?wait=running", &body).await
}

/// Ends and purges a session, so that the next begins on the same machine.
pub(crate) async fn remove(product: &Product, session: &Session) -> Result<()> {
    let path = format!("/sessions/{}", session.id);
    product.raw(Method::DELETE, &format!("{path}?force=true"), &json!({})).await?;
    product.ended(session.id).await;
    product.raw(Method::DELETE, &format!("{path}?purge=true"), &json!({})).await?;
    Ok(())
}
