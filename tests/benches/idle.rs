//! What a session costs while nothing happens, after it had something to say.

use std::collections::HashMap;
use std::time::Duration;

use agentapi_tests::product::Product;
use agentapi_tests::wait::eventually;
use anyhow::Result;
use serde_json::{Value, json};

use crate::Options;
use crate::processes::{Process, Usage, children};
use crate::stats::Table;

/// Nothing but a prompt's worth of output.
const SILENT: [&str; 3] = ["sh", "-c", "printf '$ '; exec sleep 3600"];
/// 10,000 lines of 72 characters, then nothing.
const BURST: [&str; 3] = [
    "sh",
    "-c",
    "seq -f 'line %05.0f: the quick brown fox jumps over the lazy dog, and again over it' 10000; exec sleep 3600",
];

/// The processes of a number of sessions.
#[derive(Debug, Default)]
struct Family {
    shims: Vec<Process>,
    inits: Vec<Process>,
    agents: Vec<Process>,
}

impl Family {
    /// Everything below the supervisor, by generation.
    fn of(supervisor: Process) -> Result<Self> {
        let all: HashMap<i32, Vec<Process>> = children()?;
        let below = |parents: &[Process]| -> Vec<Process> {
            parents.iter().filter_map(|parent| all.get(&parent.0)).flatten().copied().collect()
        };
        let shims = supervisor.shims(&all);
        let inits = below(&shims);
        let agents = below(&inits);
        Ok(Self { shims, inits, agents })
    }

    fn count(&self) -> usize {
        self.shims.len() + self.inits.len() + self.agents.len()
    }
}

fn sum(processes: &[Process]) -> Result<Usage> {
    let mut sum = Usage::default();
    for process in processes {
        sum += process.usage()?;
    }
    Ok(sum)
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let columns = [
        "sessions",
        "shim",
        "init",
        "supervisor RSS",
        "supervisor",
        "control plane RSS",
        "control plane",
        "CPU in 20 s, all",
        "wake-ups in 20 s: shims + inits",
        "supervisor",
        "control plane",
        "processes started",
    ];
    let mut table = Table::new("Idle sessions", &columns);
    let mut counts: Vec<(usize, [&str; 3], &str)> =
        options.sessions.iter().map(|count| (*count, BURST, "after 10,000 lines each")).collect();
    counts.insert(0, (options.count(10, 1), SILENT, "that never said much"));
    for (count, command, what) in counts {
        let cells = measure(options, count, &command, what).await?;
        table.row(&cells);
    }
    table.note(
        "Memory is Private_Dirty (KiB, mean per process) 10 s after the last output, unless it says RSS. Bars: shim + init at most 1,536 KiB \
         (scrollback apart: the first line has none of it), no wake-ups, no process started; supervisor under 40 MB with 500 sessions. The \
         link's ping every 10 s is what wakes supervisor and control plane.",
    );
    table.print();
    Ok(())
}

async fn measure(options: &Options, count: usize, command: &[&str], what: &str) -> Result<Vec<String>> {
    let product = Product::start().await?;
    let (supervisor, plane) = Process::daemons(&product)?;
    create(&product, count, command).await?;
    let family = eventually("every session runs", || async {
        Family::of(supervisor).ok().filter(|family| family.agents.len() == count && asleep(&family.agents))
    })
    .await;
    quiet(&family).await?;
    tokio::time::sleep(Duration::from_secs(options.count(10, 3) as u64)).await;
    let groups = [family.shims.as_slice(), family.inits.as_slice(), &[supervisor], &[plane]];
    let before = groups.map(sum);
    tokio::time::sleep(Duration::from_secs(options.count(20, 2) as u64)).await;
    let after = groups.map(sum);
    let mut used = [Usage::default(); 4];
    for ((used, before), after) in used.iter_mut().zip(before).zip(after) {
        let (before, after) = (before?, after?);
        *used = after;
        used.cpu -= before.cpu;
        used.waits -= before.waits;
        used.child_faults -= before.child_faults;
    }
    let [shims, inits, supervisor_used, plane_used] = used;
    let again = Family::of(supervisor)?;
    let started = u64::from(again.count() != family.count()) + used.iter().map(|used| used.child_faults).sum::<u64>();
    let cpu: Duration = used.iter().map(|used| used.cpu).sum();
    Ok(vec![
        format!("{count} {what}"),
        format!("{}", shims.private_dirty_kib / count as u64),
        format!("{}", inits.private_dirty_kib / count as u64),
        format!("{}", supervisor_used.rss_kib),
        format!("{}", supervisor_used.private_dirty_kib),
        format!("{}", plane_used.rss_kib),
        format!("{}", plane_used.private_dirty_kib),
        format!("{:.1} ms", cpu.as_secs_f64() * 1e3),
        format!("{} + {}", shims.waits, inits.waits),
        format!("{}", supervisor_used.waits),
        format!("{}", plane_used.waits),
        if started == 0 { "none".to_owned() } else { "some".to_owned() },
    ])
}

/// Starts sessions one after the other, as fast as they are accepted.
pub(crate) async fn create(
    product: &Product,
    count: usize,
    command: &[&str],
) -> Result<Vec<agentapi_shared::SessionId>> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let session: Value = product.post("/sessions", &json!({ "agent": "custom", "command": command })).await?;
        ids.push(session["id"].as_str().unwrap_or_default().parse()?);
        if ids.len() % 20 == 0 {
            // Not a storm: that is another measurement.
            let last: &agentapi_shared::SessionId = ids.last().unwrap_or(&ids[0]);
            let path = format!("/sessions/{last}");
            eventually("the newest session runs", || async {
                let session: Value = product.get(&path).await.ok()?;
                (session["state"] == "running").then_some(())
            })
            .await;
        }
    }
    Ok(ids)
}

/// Whether each has come to its last program.
fn asleep(agents: &[Process]) -> bool {
    agents.iter().all(|agent| {
        std::fs::read_to_string(format!("/proc/{}/comm", agent.0)).is_ok_and(|name| name.trim() == "sleep")
    })
}

/// Waits until the shims have used nothing for a second.
async fn quiet(family: &Family) -> Result<()> {
    let mut before = Duration::MAX;
    loop {
        let now = sum(&family.shims)?.cpu;
        if now == before {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
