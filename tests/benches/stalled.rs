//! A viewer that never reads while its program floods, beside one that does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentapi_shared::viewer::ACK_EVERY_BYTES;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, Viewer, ViewerOptions};
use anyhow::{Context, Result};

use crate::Options;
use crate::processes::{Process, Usage};
use crate::stats::{Samples, Table};

/// Writes the time, in nanoseconds since 1970, as fast as it can.
const CLOCK: [&str; 3] = [
    "python3",
    "-c",
    "import os, time\nwhile True:\n    os.write(1, b''.join(b'%d\\n' % time.time_ns() for _ in range(32)))",
];

pub(crate) async fn run(options: &Options) -> Result<()> {
    flood(options).await?;
    age(options).await
}

/// Memory and CPU time over half a minute of `yes`.
async fn flood(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "read _; exec yes"]).await?;
    let mut stalled = product.view(session.id, ViewerOptions::default()).await?;
    let mut reading = product.view(session.id, ViewerOptions::default()).await?;
    let processes = Process::of_product(&product)?;
    stalled.input(b"\n").await?;
    let (burst, rest) = (options.count(20, 2) as u64, options.count(10, 2) as u64);
    let mut got = 0;
    read_for(&mut reading, Duration::from_secs(2), &mut got).await?;
    let first = usages(&processes)?;
    read_for(&mut reading, Duration::from_secs(burst - 2), &mut got).await?;
    let (middle, at) = (usages(&processes)?, Instant::now());
    let got_before = got;
    read_for(&mut reading, Duration::from_secs(rest), &mut got).await?;
    let (last, seconds) = (usages(&processes)?, at.elapsed().as_secs_f64());
    let columns = ["process", "KiB after 2 s", "KiB at the end", "growth", "CPU of a core, last part"];
    let mut table = Table::new("A viewer that never reads, and `yes`", &columns);
    let mut host = 0.0;
    for (index, name) in ["shim", "supervisor", "control plane"].into_iter().enumerate() {
        let get = |usages: &[Usage; 3]| usages.get(index).copied().unwrap_or_default();
        let share = (get(&last).cpu - get(&middle).cpu).as_secs_f64() / seconds;
        if index < 2 {
            host += share;
        }
        let (from, to) = (get(&first).private_dirty_kib, get(&last).private_dirty_kib);
        table.row(&[
            name.to_owned(),
            from.to_string(),
            to.to_string(),
            format!("{:+}", to as i64 - from as i64),
            format!("{:.0} %", share * 100.0),
        ]);
    }
    table.note(&format!(
        "{} s, the last {rest} s counted for CPU: shim and supervisor together {:.0} % of a core. The viewer that reads got {:.1} MB/s in \
         that part (`catchup=screen`). Bars: growth under 1 MiB, the host at most 25 % of a core.",
        burst + rest,
        host * 100.0,
        (got - got_before) as f64 / 1e6 / seconds,
    ));
    table.print();
    drop(stalled);
    Ok(())
}

fn usages(processes: &[Process; 3]) -> Result<[Usage; 3]> {
    let [shim, supervisor, plane] = processes;
    Ok([shim.usage()?, supervisor.usage()?, plane.usage()?])
}

/// Reads and acknowledges for some time.
async fn read_for(viewer: &mut Viewer, time: Duration, got: &mut u64) -> Result<()> {
    let until = tokio::time::Instant::now() + time;
    let mut acknowledged = viewer.offset;
    while let Ok(seen) = tokio::time::timeout_at(until, viewer.next_unacknowledged()).await {
        match seen? {
            Seen::Output(_, bytes) => *got += bytes.len() as u64,
            Seen::Keyframe(..) => acknowledged = 0,
            Seen::Message(_) => continue,
        }
        if viewer.offset - acknowledged >= ACK_EVERY_BYTES {
            viewer.acknowledge().await?;
            acknowledged = viewer.offset;
        }
    }
    viewer.acknowledge().await
}

/// How old the screen is that a viewer gets when it reads again, and that of one which never stopped.
async fn age(options: &Options) -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&CLOCK).await?;
    let mut stalled = product.view(session.id, ViewerOptions::default()).await?;
    let mut reading = product.view(session.id, ViewerOptions::default()).await?;
    let mut got = 0;
    // Until its budget of CPU time is spent the host has it easy.
    read_for(&mut reading, Duration::from_secs(options.count(15, 1) as u64), &mut got).await?;
    let (mut ages, mut waits, mut beside) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..options.count(10, 1) {
        read_for(&mut reading, Duration::from_secs(3), &mut got).await?;
        beside.push_ms(newest(&mut reading).await?);
        let start = Instant::now();
        ages.push_ms(after_stall(&mut stalled).await?);
        waits.push_ms(start.elapsed());
        stalled.acknowledge().await?;
    }
    let mut table = Table::new("Age of the screen", &["what", "p50 ms", "max ms"]);
    let rows = [
        ("newest time on the screen of the viewer that stalled for 3 s, when it has it", &ages),
        ("from its first read to having it", &waits),
        ("newest time in the output of the viewer beside it", &beside),
    ];
    for (name, samples) in rows {
        table.row(&[name.to_owned(), format!("{:.0}", samples.median()), format!("{:.0}", samples.max())]);
    }
    table.note(&format!("{} stalls, a program that writes the time without end. Bar: 200 ms.", ages.len()));
    table.print();
    Ok(())
}

/// Reads on until the keyframe that skips; how old the newest time in it is.
async fn after_stall(viewer: &mut Viewer) -> Result<Duration> {
    loop {
        let seen = viewer.next().await?;
        if let Seen::Keyframe(_, true, bytes) = seen {
            return age_of(&bytes);
        }
    }
}

/// How old the newest time in the next output is.
async fn newest(viewer: &mut Viewer) -> Result<Duration> {
    loop {
        if let Seen::Output(_, bytes) | Seen::Keyframe(_, _, bytes) = viewer.next().await?
            && let Ok(age) = age_of(&bytes)
        {
            return Ok(age);
        }
    }
}

fn age_of(bytes: &[u8]) -> Result<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let times = bytes.split(|byte| !byte.is_ascii_digit()).filter(|digits| digits.len() == 19);
    let times = times.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
    Ok(now.saturating_sub(Duration::from_nanos(times.max().context("a time")?)))
}
