//! Whether a directory of the host can be shown under a session's own ids. That is up to its file system and the kernel, so it is tried: before
//! anything of a session is made, on a mount that nobody sees.
//!
//! There is no way without: given to the agent under its own ids as they are, the operator's files would have to change hands first.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sys::stat::{fstat, major, minor};

use crate::sys;
use crate::workspace::HostDir;

/// Why a directory cannot be given for writing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdMapError {
    /// Its file system has no such mounts.
    #[error(
        "`{path}` lies on a file system ({kind}) that this kernel cannot show under a session's own ids (no id-mapped mounts): use a directory on ext4, xfs or btrfs, or an empty workspace and a copy in it"
    )]
    FileSystem { path: String, kind: String },
    /// The host has no user namespaces to map ids with.
    #[error(
        "`{path}` cannot be shown under a session's own ids, because this host forbids user namespaces: use an empty workspace and a copy in it, or allow them (sysctl -w user.max_user_namespaces=15000)"
    )]
    NoUserNamespaces { path: String },
    /// It is another one by now, or gone.
    #[error("`{path}` was replaced meanwhile")]
    Replaced { path: String },
    /// The kernel refuses it for another reason.
    #[error("`{path}` cannot be shown under a session's own ids")]
    Refused { path: String, source: io::Error },
}

/// Tries a directory out.
pub(crate) fn check(dir: &HostDir) -> Result<(), IdMapError> {
    let path = || dir.path.display().to_string();
    let refused = |source| IdMapError::Refused { path: path(), source };
    let users = users().map_err(refused)?;
    let opened = sys::open_path(&dir.path).map_err(|errno| refused(errno.into()))?;
    let stat = fstat(&opened).map_err(|errno| refused(errno.into()))?;
    if (stat.st_dev, stat.st_ino) != (dir.identity.dev, dir.identity.ino) {
        return Err(IdMapError::Replaced { path: path() });
    }
    match sys::try_id_map(opened.as_fd(), users.as_fd()) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EINVAL) => {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let kind = kind(&table, major(stat.st_dev), minor(stat.st_dev)).unwrap_or("of a kind unknown");
            Err(IdMapError::FileSystem { path: path(), kind: kind.to_owned() })
        }
        Err(errno) => Err(refused(errno.into())),
    }
}

/// A user namespace to try with; which ids it maps does not matter. Made once: it costs a process.
fn users() -> io::Result<&'static OwnedFd> {
    static USERS: OnceLock<OwnedFd> = OnceLock::new();
    match USERS.get() {
        Some(users) => Ok(users),
        None => {
            let made = make()?;
            Ok(USERS.get_or_init(|| made))
        }
    }
}

fn make() -> io::Result<OwnedFd> {
    // What comes back from cat shows that unshare(1) has made the namespace and its maps.
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let users = enter(&mut child);
    // Ours, not reaped: nobody else can have its pid.
    let _gone = child.kill();
    let _status = child.wait();
    users
}

fn enter(child: &mut Child) -> io::Result<OwnedFd> {
    let (Some(mut to), Some(mut from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    to.write_all(b"x")?;
    from.read_exact(&mut [0])?;
    Ok(File::open(format!("/proc/{}/ns/user", child.id()))?.into())
}

/// The kind of the file system with this device, by a table of mounts. Volumes of btrfs have numbers that are not in it.
fn kind(table: &str, major: u64, minor: u64) -> Option<&str> {
    let device = format!("{major}:{minor}");
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_named_by_its_device() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n30 22 0:33 / /srv/a\\040b rw - overlay none rw,lowerdir=/a";
        assert_eq!(kind(table, 254, 0), Some("ext4"));
        assert_eq!(kind(table, 0, 33), Some("overlay"));
        assert_eq!(kind(table, 0, 34), None);
    }

    #[test]
    fn what_works_here_is_seen_by_doing_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = crate::workspace::own(&std::env::temp_dir()).unwrap();
        check(&dir).unwrap();
        // The kernel's own file systems have no such mounts.
        let proc = crate::workspace::own(std::path::Path::new("/proc")).unwrap();
        let refused = check(&proc).unwrap_err().to_string();
        assert!(refused.starts_with("`/proc` lies on a file system (proc)"), "{refused}");
        let other = HostDir { path: "/usr".into(), ..dir };
        assert!(matches!(check(&other), Err(IdMapError::Replaced { .. })));
    }
}
