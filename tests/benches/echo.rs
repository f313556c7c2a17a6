//! How long a keystroke takes from a viewer to the program and back.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, Viewer, ViewerOptions};
use anyhow::Result;

use crate::Options;
use crate::bare::{BareRelay, Threads};
use crate::pty::RawPty;
use crate::stats::{Chance, Samples, Table};

/// A program in raw mode that writes what it reads.
const ECHO: [&str; 3] = ["sh", "-c", "stty raw -echo; printf READY; exec cat"];
/// Before these nothing is counted: caches, congestion windows and thread pools warm up.
const WARM_UP: usize = 100;

enum Way {
    Raw(RawPty),
    Bare(Box<BareRelay>),
    Ours(Box<Viewer>),
}

impl Way {
    /// Types one byte and waits for it to come back.
    async fn keystroke(&mut self, byte: u8) -> Result<Duration> {
        let start = Instant::now();
        match self {
            Self::Raw(pty) => {
                pty.writer.write_all(&[byte])?;
                pty.reader.read_exact(&mut [0])?;
            }
            Self::Bare(relay) => {
                relay.input(&[byte]).await?;
                relay.output().await?;
            }
            Self::Ours(viewer) => {
                viewer.input(&[byte]).await?;
                while !matches!(viewer.next_unacknowledged().await?, Seen::Output(..)) {}
            }
        }
        Ok(start.elapsed())
    }

    /// Lets time pass; what still comes for the last keystroke is taken meanwhile.
    async fn rest(&mut self, gap: Duration) -> Result<()> {
        let until = tokio::time::Instant::now() + gap;
        if let Self::Ours(viewer) = self {
            while let Ok(seen) = tokio::time::timeout_at(until, viewer.next_unacknowledged()).await {
                seen?;
            }
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut products = vec![Product::start().await?];
    let mut names = vec!["raw PTY", "bare relay, one thread each", "bare relay, tokio's default threads", "ours"];
    if let Some(other) = &options.against {
        products.push(Product::start_from(Some(other), &[]).await?);
        names.push("the build to compare with");
    }
    let mut ways = ways(&products).await?;
    let mut samples = vec![Samples::default(); ways.len()];
    let (mut chance, mut order) = (Chance::new(), (0..ways.len()).collect::<Vec<_>>());
    for round in 0..options.count(2000, 20) + WARM_UP {
        chance.shuffle(&mut order);
        for index in &order {
            let (Some(way), Some(samples)) = (ways.get_mut(*index), samples.get_mut(*index)) else { continue };
            let took = way.keystroke(b'a' + (round % 26) as u8).await?;
            if round >= WARM_UP {
                samples.push_us(took);
            }
            way.rest(Duration::from_micros(1500 + chance.below(3000))).await?;
            // Credit, as a real viewer gives it.
            if let (Way::Ours(viewer), 999) = (way, round % 1000) {
                viewer.acknowledge().await?;
            }
        }
    }
    report(&names, &samples);
    Ok(())
}

async fn ways(products: &[Product]) -> Result<Vec<Way>> {
    let dir = Path::new("/");
    let mut raw = RawPty::spawn(&ECHO, dir)?;
    raw.read_until(b"READY")?;
    let mut ways = vec![Way::Raw(raw)];
    for threads in [Threads::One, Threads::Default] {
        let mut bare = BareRelay::start(threads, &ECHO, dir).await?;
        bare.read_until(b"READY").await?;
        ways.push(Way::Bare(Box::new(bare)));
    }
    for product in products {
        let session = product.create(&ECHO).await?;
        let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
        viewer.output_until("READY").await?;
        ways.push(Way::Ours(Box::new(viewer)));
    }
    Ok(ways)
}

fn report(names: &[&str], samples: &[Samples]) {
    let columns = ["way", "p50 us", "p90 us", "p99 us", "p50 above the raw PTY", "ours to it, p50"];
    let mut table = Table::new("Keystroke echo", &columns);
    let raw = samples.first().map_or(f64::NAN, Samples::median);
    let ours = samples.get(3).map_or(f64::NAN, Samples::median);
    for (name, samples) in names.iter().zip(samples) {
        let median = samples.median();
        table.row(&[
            (*name).to_owned(),
            format!("{median:.0}"),
            format!("{:.0}", samples.quantile(0.9)),
            format!("{:.0}", samples.quantile(0.99)),
            format!("{:.0}", median - raw),
            format!("{:.2}", ours / median),
        ]);
    }
    let each = samples.first().map_or(0, Samples::len);
    table.note(&format!("{each} keystrokes each, the order shuffled in every round, 1.5 to 4.5 ms apart. Bar: at most 1.15 to the bare relay."));
    table.print();
}
