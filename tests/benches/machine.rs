//! The machine that the figures belong to.

use std::fs::read_to_string;

use anyhow::Result;

/// A few lines of Markdown.
pub(crate) fn facts() -> Result<String> {
    let cpuinfo = read_to_string("/proc/cpuinfo")?;
    let cpu = field(&cpuinfo, "model name").unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let kernel = read_to_string("/proc/sys/kernel/osrelease")?;
    let meminfo = read_to_string("/proc/meminfo")?;
    let kib: u64 = field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    let virtual_machine = if cpuinfo.contains(" hypervisor") { ", virtual" } else { "" };
    Ok(format!(
        "Machine: {cores} x {cpu}{virtual_machine}, {} GiB, Linux {}. Load at the start: {}. Build: {}.",
        kib / (1024 * 1024),
        kernel.trim(),
        load(),
        if cfg!(debug_assertions) { "unoptimised (figures say nothing)" } else { "optimised" },
    ))
}

/// The three load averages: what else ran.
pub(crate) fn load() -> String {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}
