//! A session's control groups beside what was promised: every process in each of them, and the limits as they were written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Compared;
use super::processes::Processes;
use crate::promise::Promise;

/// All of it; nothing if the session has none.
pub(super) fn compare(all: &Processes, promise: &Promise) -> Vec<Compared> {
    let mut compared: Vec<Compared> = promise.groups.iter().map(|group| has_everyone(group, all)).collect();
    for write in &promise.limits {
        let name = write.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = fs::read_to_string(&write.file);
        let ok = found.as_ref().map_or(write.optional, |shown| write.holds(shown));
        let found = found.map_or_else(|error| error.to_string(), |shown| shown.trim().to_owned());
        compared.push(Compared::new(&name, ok, write.value.clone(), found));
    }
    compared
}

fn has_everyone(group: &Path, all: &Processes) -> Compared {
    const NAME: &str = "control groups";
    let expected = format!("every process in {}", group.display());
    let members: BTreeSet<i32> = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
        Err(error) => return Compared::new(NAME, false, expected, error.to_string()),
    };
    let absent = all.inside.iter().filter(|process| !members.contains(&process.pid) && all.has(process.pid));
    let absent: Vec<String> = absent.map(|process| format!("pid {} is not in it", process.pid)).collect();
    let found = Compared::of_differences(NAME, expected, &absent);
    if found.ok { Compared { found: group.display().to_string(), ..found } } else { found }
}
