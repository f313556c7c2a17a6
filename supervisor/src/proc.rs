//! What the kernel tells of a process in `/proc`.

use std::fs;

/// When it began, in the kernel's ticks since boot: a pid is given to others later.
pub(crate) fn began(pid: i32) -> Option<u64> {
    /// Fields of `/proc/PID/stat` between the name, in parentheses, and this.
    const FIELDS_BEFORE: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(FIELDS_BEFORE)?.parse().ok()
}

/// The value of a line such as `CapEff:\t0000` of `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        // `Seccomp_filters` is another line.
        assert_eq!(field("Seccomp_filters:\t3\nSeccomp:\t2\n", "Seccomp"), "2");
    }
}
