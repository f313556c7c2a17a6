//! What programs that were killed while they tried something out have left in the state directory.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tracing::warn;

use crate::removal::remove_tree;

/// Directories in which the doctor tries the sandbox out begin with this. Each is locked by whoever uses it.
pub(crate) const DOCTOR_PREFIX: &str = "agentapi-doctor-";
/// Images of disks that are tried out begin with this.
pub(crate) const DISK_PROBE_PREFIX: &str = ".disk-probe-";

/// Removes them. For the one that has the state directory's lock; a doctor may run beside it.
pub(crate) fn remove_tried(state_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state_dir)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let name = name.to_string_lossy();
        let removed = if name.starts_with(DISK_PROBE_PREFIX) {
            fs::remove_file(&path)
        } else if name.starts_with(DOCTOR_PREFIX) {
            remove_unused(&path)
        } else {
            continue;
        };
        if let Err(error) = removed {
            warn!(path = %path.display(), %error, "what was left of trying something out could not be removed");
        }
    }
    Ok(())
}

fn remove_unused(dir: &Path) -> io::Result<()> {
    let opened = File::open(dir)?;
    match opened.try_lock() {
        Ok(()) => remove_tree(dir),
        Err(fs::TryLockError::WouldBlock) => Ok(()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use agentapi_shared::SessionId;

    use super::*;

    #[test]
    fn what_the_killed_have_left_is_removed_and_what_is_used_stays() {
        let state_dir = std::env::temp_dir().join(format!("agentapi-tried-{}", SessionId::generate()));
        let at = |name: &str| state_dir.join(name);
        for dir in ["agentapi-doctor-left/self-test", "agentapi-doctor-used", "sessions"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at(".disk-probe-1"), "").unwrap();
        let used = File::open(at("agentapi-doctor-used")).unwrap();
        used.lock().unwrap();
        remove_tried(&state_dir).unwrap();
        let mut left: Vec<_> = fs::read_dir(&state_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["agentapi-doctor-used", "sessions"]);
        fs::remove_dir_all(state_dir).unwrap();
    }
}
