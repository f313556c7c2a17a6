//! The mounts of a jail as the kernel tells them, beside the steps that made them: there is what the plan says and nothing else, with the flags that
//! it should have. Init looks before the agent runs, and whoever wants to know looks later.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::MountStep;

/// What must be true of a mount.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    read_only: bool,
    devices: bool,
    /// What lies below came with it.
    tree: bool,
    /// Kernels differ in what there is to be masked.
    may_lack: bool,
}

/// Compares a table of mounts (`/proc/PID/mountinfo`) with the steps that made it.
///
/// # Errors
///
/// The first that is not as the steps say, in words.
pub fn compare(table: &str, steps: &[MountStep]) -> Result<(), String> {
    let all = wanted(steps);
    let mut found = HashSet::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { return Err("unreadable".to_owned()) };
        let point = unescape(point);
        let wanted = match all.get(point.as_ref()) {
            Some(wanted) => *wanted,
            None => {
                let above =
                    all.iter().find(|(path, wanted)| wanted.tree && Path::new(point.as_ref()).starts_with(path));
                above.map(|(_, wanted)| *wanted).ok_or_else(|| format!("{point} was not made"))?
            }
        };
        let has = |option: &str| options.split(',').any(|found| found == option);
        if !has("nosuid") || (!wanted.devices && !has("nodev")) || (wanted.read_only && !has("ro")) {
            return Err(format!("{point} has {options}"));
        }
        found.insert(point);
    }
    match all.iter().find(|(point, wanted)| !wanted.may_lack && !found.contains(**point)) {
        Some((lacks, _)) => Err(format!("{lacks} is missing")),
        None => Ok(()),
    }
}

/// The mounts that the steps make, and the root itself.
fn wanted(steps: &[MountStep]) -> HashMap<&str, Wanted> {
    let mut mounts = HashMap::from([("/", Wanted::default())]);
    for step in steps {
        let (target, wanted) = match step {
            MountStep::Bind { target, read_only, idmap, .. } => {
                (target, Wanted { read_only: *read_only, tree: idmap.is_none(), ..Wanted::default() })
            }
            MountStep::Device { path, .. } => (path, Wanted { read_only: true, devices: true, ..Wanted::default() }),
            MountStep::DevPts { target, .. } => (target, Wanted { devices: true, ..Wanted::default() }),
            MountStep::Tmpfs { target, .. } | MountStep::Disk { target, .. } | MountStep::Proc { target } => {
                (target, Wanted::default())
            }
            MountStep::Mask { target } => {
                (target, Wanted { read_only: true, devices: true, may_lack: true, ..Wanted::default() })
            }
            MountStep::ReadOnly { target } => (target, Wanted { read_only: true, may_lack: true, ..Wanted::default() }),
            MountStep::SealReadOnly { target } => {
                if let Some(sealed) = mounts.get_mut(target.as_str()) {
                    sealed.read_only = true;
                }
                continue;
            }
            MountStep::Directory { .. } | MountStep::Symlink { .. } | MountStep::File { .. } => continue,
        };
        mounts.insert(target.as_str(), wanted);
    }
    mounts
}

/// The kernel writes blanks and backslashes of paths in octal.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.first_chunk::<3>().and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<MountStep> {
        let bind = |target: &str, read_only| MountStep::Bind {
            source: target.to_owned(),
            target: target.to_owned(),
            read_only,
            identity: None,
            idmap: None,
        };
        vec![
            bind("/usr", true),
            MountStep::Proc { target: "/proc".to_owned() },
            MountStep::Mask { target: "/proc/kcore".to_owned() },
            MountStep::Device { path: "/dev/null".to_owned(), major: 1, minor: 3 },
            bind("/my work", false),
            MountStep::SealReadOnly { target: "/".to_owned() },
        ]
    }

    const GOOD: [&str; 6] = [
        "1 1 0:1 / / ro,nosuid,nodev - tmpfs tmpfs rw",
        "2 1 8:1 / /usr ro,nosuid,nodev,relatime master:1 - ext4 /dev/sda rw",
        "3 2 8:2 / /usr/local ro,nosuid,nodev - ext4 /dev/sdb rw",
        "4 1 0:2 / /proc rw,nosuid,nodev,noexec - proc proc rw",
        "5 1 0:3 /null /dev/null ro,nosuid,noexec - devtmpfs dev rw",
        "6 1 8:1 /w /my\\040work rw,nosuid,nodev - ext4 /dev/sda rw",
    ];

    fn check(change: impl FnOnce(&mut Vec<String>)) -> Result<(), String> {
        let mut lines: Vec<String> = GOOD.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        compare(&lines.join("\n"), &steps())
    }

    #[test]
    fn only_what_the_plan_made_may_stand_there() {
        assert_eq!(check(|_| ()), Ok(()));
        let wrong = |change: &dyn Fn(&mut Vec<String>), expected: &str| {
            let error = check(|lines| change(lines)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        wrong(&|lines| lines.push("7 1 8:1 / /.old rw,nosuid,nodev - ext4 x rw".to_owned()), "/.old was not made");
        wrong(&|lines| lines.push("7 1 8:1 / /proc/x rw,nosuid,nodev - ext4 x rw".to_owned()), "/proc/x was not made");
        wrong(&|lines| drop(lines.remove(3)), "/proc is missing");
        wrong(&|lines| lines[0] = lines[0].replace("ro,", "rw,"), "/ has rw");
        wrong(&|lines| lines[2] = lines[2].replace("ro,", "rw,"), "/usr/local has rw");
        wrong(&|lines| lines[5] = lines[5].replace("nosuid,", ""), "/my work has");
        wrong(&|lines| lines[1] = lines[1].replace(",nodev", ""), "/usr has");
    }
}
