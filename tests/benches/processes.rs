//! What the kernel says of processes: memory of their own, CPU time, wake-ups, children.

use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};
use std::time::Duration;

use agentapi_tests::product::Product;
use anyhow::{Context, Result};

/// A process that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) i32);

/// What it used until now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) private_dirty_kib: u64,
    pub(crate) rss_kib: u64,
    pub(crate) cpu: Duration,
    /// Voluntary context switches: it waited, so something woke it.
    pub(crate) waits: u64,
    /// Page faults of children that it has waited for: unchanged means that none ended.
    pub(crate) child_faults: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.private_dirty_kib += other.private_dirty_kib;
        self.rss_kib += other.rss_kib;
        self.cpu += other.cpu;
        self.waits += other.waits;
        self.child_faults += other.child_faults;
    }
}

impl Process {
    /// A shim, the supervisor and the control plane of a product with one session.
    pub(crate) fn of_product(product: &Product) -> Result<[Self; 3]> {
        let (supervisor, plane) = Self::daemons(product)?;
        let shim = supervisor.shims(&children()?).last().copied().context("a shim")?;
        Ok([shim, supervisor, plane])
    }

    /// The supervisor and the control plane.
    pub(crate) fn daemons(product: &Product) -> Result<(Self, Self)> {
        let (supervisor, plane) = product.pids();
        Ok((Self(supervisor.context("a supervisor")?), Self(plane.context("a control plane")?)))
    }

    /// A supervisor's shims. The gateway is its child as well.
    pub(crate) fn shims(self, all: &HashMap<i32, Vec<Self>>) -> Vec<Self> {
        let name = |child: &Self| read_to_string(format!("/proc/{}/comm", child.0)).unwrap_or_default();
        all.get(&self.0)
            .into_iter()
            .flatten()
            .filter(|child| name(child).trim_end() == "agentapi-shim")
            .copied()
            .collect()
    }

    pub(crate) fn usage(self) -> Result<Usage> {
        let dir = format!("/proc/{}", self.0);
        let memory = read_to_string(format!("{dir}/smaps_rollup"))?;
        let stat = read_to_string(format!("{dir}/stat"))?;
        // The name in brackets may hold anything; fields are counted after it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let mut usage = Usage {
            private_dirty_kib: number(&memory, "Private_Dirty:"),
            rss_kib: number(&memory, "Rss:"),
            child_faults: fields.get(8).and_then(|field| field.parse().ok()).unwrap_or(0),
            ..Usage::default()
        };
        for task in read_dir(format!("{dir}/task"))? {
            let task = task?.path();
            usage.waits += number(&read_to_string(task.join("status"))?, "voluntary_ctxt_switches:");
            let schedstat = read_to_string(task.join("schedstat"))?;
            let nanos = schedstat.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            usage.cpu += Duration::from_nanos(nanos);
        }
        Ok(usage)
    }
}

/// CPU time of every process with one of these names, those that ended left out. The kernel counts in hundredths of a second.
pub(crate) fn cpu_of(names: &[&str]) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let mut all = Duration::ZERO;
    for entry in read_dir("/proc")?.flatten() {
        // Most entries are no process, and one may have ended meanwhile.
        let Ok(stat) = read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        if names.iter().any(|wanted| name.ends_with(&format!("({wanted}"))) {
            let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
            all += TICK * ticks.sum::<u32>();
        }
    }
    Ok(all)
}

/// Every process of the machine by its parent.
pub(crate) fn children() -> Result<HashMap<i32, Vec<Process>>> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(Process(pid));
    }
    Ok(children)
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
