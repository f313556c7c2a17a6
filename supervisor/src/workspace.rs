//! From a workspace that was asked for to a directory that may be given.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use agentapi_shared::jail::FileIdentity;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// A directory of the host that a session may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostDir {
    pub(crate) path: PathBuf,
    pub(crate) identity: FileIdentity,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Why a workspace is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    /// It is not an absolute plain path.
    #[error("workspace.path `{0}` must be absolute and without `..`")]
    NotPlain(String),
    /// It is below none of the roots.
    #[error(
        "workspace.path `{path}` is below none of this host's workspace roots ({roots}): start the host with --workspace-root for it"
    )]
    OutsideRoots { path: String, roots: String },
    /// It leads out of the root, through a symbolic link.
    #[error("workspace.path `{0}` leads out of its workspace root")]
    LeavesRoot(String),
    /// It is not there, or no directory.
    #[error("workspace.path `{path}` cannot be used")]
    Unusable { path: String, source: io::Error },
}

/// Why a directory is not one below some others.
#[derive(Debug)]
pub(crate) enum BelowError {
    /// Not absolute, or with `..`.
    NotPlain,
    /// Below none of them.
    Outside,
    /// Out of them, through a symbolic link.
    Leaves,
    /// Not there, or no directory.
    Unusable(io::Error),
}

/// The workspace at `path`, which must lie below one of `roots` with every link followed.
pub(crate) fn resolve(path: &str, roots: &[PathBuf]) -> Result<HostDir, WorkspaceError> {
    below(path, roots).map_err(|error| match error {
        BelowError::NotPlain => WorkspaceError::NotPlain(path.to_owned()),
        BelowError::Outside => {
            let roots = roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
            WorkspaceError::OutsideRoots { path: path.to_owned(), roots }
        }
        BelowError::Leaves => WorkspaceError::LeavesRoot(path.to_owned()),
        BelowError::Unusable(source) => WorkspaceError::Unusable { path: path.to_owned(), source },
    })
}

/// Whether a path says by itself where it leads, links apart.
pub(crate) fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// The directory at `path`, which must lie below one of `roots` with every link followed.
pub(crate) fn below(path: &str, roots: &[PathBuf]) -> Result<HostDir, BelowError> {
    let asked = Path::new(path);
    if !is_plain(asked) {
        return Err(BelowError::NotPlain);
    }
    let Some((root, below)) = roots.iter().find_map(|root| Some((root, asked.strip_prefix(root).ok()?))) else {
        return Err(BelowError::Outside);
    };
    let root = File::open(root).map_err(BelowError::Unusable)?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let dir = openat2(&root, below, how).map_err(|errno| match errno {
        Errno::EXDEV | Errno::ELOOP => BelowError::Leaves,
        other => BelowError::Unusable(other.into()),
    })?;
    describe(dir).map_err(BelowError::Unusable)
}

/// A directory of our own.
pub(crate) fn own(path: &Path) -> io::Result<HostDir> {
    describe(File::open(path)?.into())
}

fn describe(dir: OwnedFd) -> io::Result<HostDir> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    let stat = File::from(dir).metadata()?;
    Ok(HostDir { path, identity: FileIdentity { dev: stat.dev(), ino: stat.ino() }, uid: stat.uid(), gid: stat.gid() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_directories_below_a_root_are_given() {
        let base = std::env::temp_dir().join(format!("agentapi-workspace-{}", agentapi_shared::SessionId::generate()));
        let root = base.join("root");
        std::fs::create_dir_all(root.join("project")).unwrap();
        std::fs::create_dir_all(base.join("elsewhere")).unwrap();
        symlink("../elsewhere", root.join("out")).unwrap();
        symlink("project", root.join("in")).unwrap();
        let ask = |path: PathBuf| resolve(path.to_str().unwrap(), std::slice::from_ref(&root));
        assert_eq!(ask(root.join("project")).unwrap().path, root.join("project"));
        assert_eq!(ask(root.join("in")).unwrap().path, root.join("project"));
        assert_eq!(ask(root.clone()).unwrap().path, root);
        assert!(matches!(ask(root.join("out")), Err(WorkspaceError::LeavesRoot(_))));
        assert!(matches!(ask(base.join("elsewhere")), Err(WorkspaceError::OutsideRoots { .. })));
        assert!(matches!(ask(root.join("../elsewhere")), Err(WorkspaceError::NotPlain(_))));
        assert!(matches!(ask("project".into()), Err(WorkspaceError::NotPlain(_))));
        assert!(matches!(ask(root.join("missing")), Err(WorkspaceError::Unusable { .. })));
        std::fs::remove_dir_all(base).unwrap();
    }
}
