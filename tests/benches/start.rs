//! From the request for a session to the first byte of its program in a viewer.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use agentapi_shared::api::Session;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, ViewerOptions};
use anyhow::Result;
use serde_json::json;

use crate::Options;
use crate::pty::RawPty;
use crate::stats::{Samples, Table};
use crate::throughput::remove;

/// Its first byte is its prompt's.
const SHELL: [&str; 4] = ["bash", "--norc", "--noprofile", "-i"];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let (mut raw, mut accepted, mut ours) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..options.count(60, 3) {
        let start = Instant::now();
        let mut pty = RawPty::spawn(&SHELL, Path::new("/"))?;
        pty.reader.read_exact(&mut [0])?;
        let raw_took = start.elapsed();
        drop(pty);
        let start = Instant::now();
        let session: Session = product.post("/sessions", &json!({ "agent": "custom", "command": SHELL })).await?;
        let accepted_took = start.elapsed();
        let from_the_beginning = ViewerOptions { all_bytes: true, from: Some((1, 0)), ..ViewerOptions::default() };
        let mut viewer = product.view(session.id, from_the_beginning).await?;
        while !matches!(viewer.next_unacknowledged().await?, Seen::Output(..)) {}
        // The first one finds cold caches.
        if round > 0 {
            raw.push_ms(raw_took);
            accepted.push_ms(accepted_took);
            ours.push_ms(start.elapsed());
        }
        drop(viewer);
        remove(&product, &session).await?;
    }
    let mut table = Table::new("Session start", &["step", "p50 ms", "p90 ms", "p99 ms"]);
    let rows = [
        ("raw PTY: fork and exec of `bash` to its first byte", &raw),
        ("ours: POST answered", &accepted),
        ("ours: POST to the first byte of `bash` in a viewer", &ours),
    ];
    for (name, samples) in rows {
        let cells = [0.5, 0.9, 0.99].map(|part| format!("{:.1}", samples.quantile(part)));
        table.row(&std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>());
    }
    table.note(&format!("{} starts each, in turn. Bar: p50 within 100 ms.", ours.len()));
    table.print();
    Ok(())
}
