//! Files that say how it has to be. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

/// Compares with a file and shows every line that differs.
pub(crate) fn check(name: &str, now: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return Ok(std::fs::write(path, now)?);
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    if then == now {
        return Ok(());
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (then.lines().collect(), now.lines().collect());
    let mut text = String::new();
    for line in old.iter().filter(|line| !new.contains(line)) {
        writeln!(text, "- {line}")?;
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        writeln!(text, "+ {line}")?;
    }
    bail!("{name} is different now (UPDATE_GOLDEN=1 writes it anew, once you have read why):\n{text}")
}

/// System calls that may reach the kernel from inside, by number. A kernel that does not know one answers as the filter does, so fewer is no finding.
pub(crate) fn calls(reached: &str, wrong: &mut String) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/golden/calls-x86_64.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text =
            reached.split(' ').collect::<Vec<_>>().chunks(20).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n");
        return Ok(std::fs::write(path, text + "\n")?);
    }
    let numbers =
        |text: &str| -> BTreeSet<u32> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    let allowed = numbers(include_str!("golden/calls-x86_64.txt"));
    for number in numbers(reached).difference(&allowed) {
        writeln!(
            wrong,
            "  in the jail   53 kernel.every_call: number {number} reached the kernel and is not on the list"
        )?;
    }
    Ok(())
}
