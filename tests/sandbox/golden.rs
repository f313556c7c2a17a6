//! Files that say how it has to be. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::hosts::{Facts, Table};

/// Compares with what the files say of this host, and shows every line that differs. `refused`: layers that cannot be left out.
pub(crate) fn check(name: &str, then: &str, head: &str, now: &Table, refused: &str) -> Result<()> {
    let mut wanted = Table::parse(then)?;
    let facts = Facts::find()?;
    let changed = wanted.adapt(include_str!("golden/layers-differ.txt"), &facts)?;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        ensure!(changed == 0, "{name} is of another kind of host than this one: its reasons are in layers-differ.txt");
        return Ok(std::fs::write(path(name), now.text(head) + refused)?);
    }
    let (then, now) = (wanted.text(head), now.text(head) + refused);
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
    bail!(
        "{name} is different on this host (Landlock ABI {}); UPDATE_GOLDEN=1 writes it anew, once you have read why:\n{text}",
        facts.landlock()
    )
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/golden").join(name)
}

/// Calls that may reach kernels which have them, and the one that the list is of has not: `map_shadow_stack`, with which glibc keeps return addresses.
const OF_OTHER_KERNELS: [u32; 1] = [453];

/// System calls that may reach the kernel from inside, by number. A kernel that does not know one answers as the filter does, so fewer is no finding.
pub(crate) fn calls(reached: &str, wrong: &mut String) -> Result<()> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text =
            reached.split(' ').collect::<Vec<_>>().chunks(20).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n");
        return Ok(std::fs::write(path("calls-x86_64.txt"), text + "\n")?);
    }
    let numbers =
        |text: &str| -> BTreeSet<u32> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    let mut allowed = numbers(include_str!("golden/calls-x86_64.txt"));
    allowed.extend(OF_OTHER_KERNELS);
    for number in numbers(reached).difference(&allowed) {
        writeln!(
            wrong,
            "  in the jail   53 kernel.every_call: number {number} reached the kernel and is not on the list"
        )?;
    }
    Ok(())
}
