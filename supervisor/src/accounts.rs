//! Whether ids of sessions belong to somebody else on this host: to an account, a group, or somebody's containers. A session would be that user.
//!
//! What is looked at are the host's own files. Ids that a directory service gives out are not in them: the operator keeps those apart.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use agentapi_shared::jail::{SLOT_UID_BASE, SLOT_UIDS, SLOTS_MAX};

/// Ids of all slots.
const OURS: Range<u64> = SLOT_UID_BASE as u64..SLOT_UID_BASE as u64 + SLOTS_MAX as u64 * SLOT_UIDS as u64;

/// Why no session may be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountsError {
    /// Somebody has some of our ids.
    #[error(
        "ids {} to {} of this host are those of sessions, and `{name}` has {first} to {last} of them by {file}: give `{name}` others",
        OURS.start, OURS.end - 1
    )]
    Taken { name: String, file: String, first: u64, last: u64 },
    /// Who has which cannot be known.
    #[error("cannot read {file}")]
    Unreadable { file: String, source: io::Error },
}

/// What a line says after the name: first ids and counts.
type Ids = fn(&[&str]) -> Vec<(u64, u64)>;

/// Files of users and of what they may give to their containers.
const FILES: [(&str, Ids); 4] =
    [("passwd", of_account), ("group", of_group), ("subuid", of_range), ("subgid", of_range)];

/// Looks into the files of a directory such as `/etc`. One that is not there gives nobody anything.
pub(crate) fn check(etc: &Path) -> Result<(), AccountsError> {
    for (file, ids) in FILES {
        let path = etc.join(file);
        let shown = || path.display().to_string();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|source| AccountsError::Unreadable { file: shown(), source })?,
        };
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((name, fields)) = line.split_once(':') else { continue };
            let fields: Vec<&str> = fields.split(':').collect();
            for (first, count) in ids(&fields) {
                let last = first.saturating_add(count.max(1)) - 1;
                if first < OURS.end && last >= OURS.start {
                    return Err(AccountsError::Taken { name: name.to_owned(), file: shown(), first, last });
                }
            }
        }
    }
    Ok(())
}

fn number(fields: &[&str], index: usize) -> Option<u64> {
    fields.get(index)?.trim().parse().ok()
}

/// `NAME:PASSWORD:UID:GID:...`
fn of_account(fields: &[&str]) -> Vec<(u64, u64)> {
    [1, 2].into_iter().filter_map(|index| Some((number(fields, index)?, 1))).collect()
}

/// `NAME:PASSWORD:GID:...`
fn of_group(fields: &[&str]) -> Vec<(u64, u64)> {
    number(fields, 1).map(|id| (id, 1)).into_iter().collect()
}

/// `NAME:FIRST:COUNT`
fn of_range(fields: &[&str]) -> Vec<(u64, u64)> {
    number(fields, 0).zip(number(fields, 1)).filter(|(_, count)| *count > 0).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_an_id_of_a_session_is_named() {
        let etc = std::env::temp_dir().join(format!("agentapi-accounts-{}", agentapi_shared::SessionId::generate()));
        fs::create_dir(&etc).unwrap();
        let (below, first, last, above) = (OURS.start - 1, OURS.start, OURS.end - 1, OURS.end);
        let plain = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n+::::::\n";
        for (file, line, taken) in [
            ("passwd", format!("a:x:{first}:100::/:/bin/sh"), true),
            ("passwd", format!("a:x:1000:{last}::/:/bin/sh"), true),
            ("passwd", format!("a:x:{below}:{above}::/:/bin/sh"), false),
            ("group", format!("a:x:{last}:b"), true),
            ("group", format!("a:x:{above}:b"), false),
            ("subuid", format!("a:{below}:1"), false),
            ("subuid", format!("a:{below}:2"), true),
            ("subuid", "a:100000:1100000000".to_owned(), true),
            ("subuid", format!("a:{first}:0"), false),
            ("subgid", format!("a:{last}:65536"), true),
            ("subgid", format!("a:{above}:{}", u64::MAX), false),
            ("subgid", format!("a:0:{}", u64::MAX), true),
        ] {
            for (other, _) in FILES {
                fs::write(etc.join(other), if other.starts_with("sub") { "" } else { plain }).unwrap();
            }
            check(&etc).unwrap();
            fs::write(etc.join(file), format!("{plain}{line}\n")).unwrap();
            let found = check(&etc).map_err(|error| error.to_string());
            assert_eq!(found.is_err(), taken, "{file}: {line}: {found:?}");
            if let Err(words) = found {
                assert!(words.contains("`a` has") && words.contains(&format!("/{file}: give")), "{words}");
            }
        }
        fs::remove_dir_all(&etc).unwrap();
        check(&etc).unwrap();
    }
}
