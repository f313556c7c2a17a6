//! How fast a program writes 100 MB of log text while nobody watches.

use std::io::Read;

use agentapi_tests::product::Product;
use anyhow::Result;

use crate::peers::Tmux;
use crate::pty::RawPty;
use crate::stats::{Samples, Table};
use crate::throughput::{in_root, remove};
use crate::timed_command::{TIMED_CAT, seconds};
use crate::{Options, log_text};

pub(crate) async fn run(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let dir = product.root();
    // The product's sessions write as their directory's owner.
    let bytes = log_text::write(&dir.join("log.txt"), options.count(100_000_000, 1_000_000) as u64)?;
    let names = ["raw PTY, drained", "tmux, detached", "ours, nobody watching"];
    let mut rates = vec![Samples::default(); names.len()];
    for _ in 0..options.count(5, 1) {
        let mut took = Vec::new();
        let mut pty = RawPty::spawn(&TIMED_CAT, &dir)?;
        drain(&mut pty, bytes)?;
        took.push(seconds(&dir).await?);
        drop(pty);
        let tmux = Tmux::start(&dir, &TIMED_CAT)?;
        took.push(seconds(&dir).await?);
        drop(tmux);
        let session = in_root(&product, &TIMED_CAT).await?;
        took.push(seconds(&dir).await?);
        remove(&product, &session).await?;
        for (rates, seconds) in rates.iter_mut().zip(took) {
            rates.push(bytes as f64 / 1e6 / seconds);
        }
    }
    let title = "100 MB of log text while nobody watches";
    let mut table = Table::new(title, &["way", "MB/s, median", "range", "ours to it"]);
    let ours = rates.last().map_or(f64::NAN, Samples::median);
    for (name, rates) in names.iter().zip(&rates) {
        let median = rates.median();
        table.row(&[(*name).to_owned(), format!("{median:.0}"), rates.range(), format!("{:.2}", ours / median)]);
    }
    table.note(&format!(
        "{} rounds, each way in turn; {}. Bar: not slower than tmux.",
        rates.first().map_or(0, Samples::len),
        Tmux::version()?
    ));
    table.print();
    Ok(())
}

fn drain(pty: &mut RawPty, bytes: u64) -> Result<()> {
    let (mut buffer, mut got) = (vec![0; 64 * 1024], 0);
    while got < bytes {
        got += pty.reader.read(&mut buffer)? as u64;
    }
    Ok(())
}
