//! What an idle viewer costs the control plane.

use std::time::Duration;

use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, Viewer, ViewerOptions};
use anyhow::Result;

use crate::Options;
use crate::idle::create;
use crate::processes::Process;
use crate::stats::Table;

/// A screenful, then nothing.
const SCREENFUL: [&str; 3] = ["sh", "-c", "seq 40; exec sleep 3600"];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let count = options.count(200, 4);
    let ids = create(&product, options.count(50, 2), &SCREENFUL).await?;
    let Some((first, others)) = ids.split_first() else { return Ok(()) };
    product.shows(*first, "40").await;
    let (_, plane) = Process::daemons(&product)?;
    let mut viewers = Vec::new();
    let columns = ["viewers", "KiB each, Private_Dirty", "wake-ups of the control plane in 20 s"];
    let mut table = Table::new("Idle viewers of the control plane", &columns);
    // What the first ones allocate once for all is not a viewer's.
    for _ in 0..options.count(20, 2) {
        viewers.push(open(&product, *first).await?);
    }
    let before = settled(plane).await?;
    for _ in 0..count {
        viewers.push(open(&product, *first).await?);
    }
    let after = settled(plane).await?;
    let each = after.saturating_sub(before) as f64 / count as f64;
    let waits = waits_in(plane, options).await?;
    table.row(&[format!("{count} more of one session"), format!("{each:.1}"), waits.to_string()]);
    for id in others {
        viewers.push(open(&product, *id).await?);
    }
    let each = settled(plane).await?.saturating_sub(after) as f64 / others.len() as f64;
    let waits = waits_in(plane, options).await?;
    table.row(&[format!("{}, the first of their sessions", others.len()), format!("{each:.1}"), waits.to_string()]);
    table.note("Each has had its keyframe. Bar: 16 KiB.");
    table.print();
    Ok(())
}

/// Attaches and takes the keyframe.
async fn open(product: &Product, id: agentapi_shared::SessionId) -> Result<Viewer> {
    let mut viewer = product.view(id, ViewerOptions { read_only: true, ..ViewerOptions::default() }).await?;
    viewer.wait_for(|seen| matches!(seen, Seen::Keyframe(..)).then_some(())).await?;
    Ok(viewer)
}

/// Private memory once nothing changes it any more.
async fn settled(process: Process) -> Result<u64> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(process.usage()?.private_dirty_kib)
}

async fn waits_in(process: Process, options: &Options) -> Result<u64> {
    let before = process.usage()?.waits;
    tokio::time::sleep(Duration::from_secs(options.count(20, 2) as u64)).await;
    Ok(process.usage()?.waits - before)
}
