//! Directories of the host inside a sandbox: where they may come from, and what they must not cover.

use std::path::{Path, PathBuf};

use agentapi_shared::api::{MountRequest, SandboxRequest};

use super::{SettleError, Subject};
use crate::host::{Ground, Isolation};
use crate::plan;
use crate::profiles::Profile;
use crate::sandbox::SandboxMount;
use crate::settings::{AllowedMount, MountMode, Settings};
use crate::workspace::{self, BelowError, HostDir};

/// What is made for programs to put files into: a directory may go below, not over it.
const SHARED: &str = "/tmp";

/// The request's directories, and those that profile and agent bring. Of the latter, what is not there is left out.
pub(super) fn settle(
    settings: &Settings,
    ground: &Ground,
    profile: &Profile,
    request: &SandboxRequest,
    subject: Subject<'_>,
) -> Result<Vec<SandboxMount>, SettleError> {
    let shown = |path: &Path| subject.read_only_paths.iter().find(|shown| overlap(shown, path));
    let mut mounts: Vec<SandboxMount> = Vec::new();
    for (index, asked) in request.mounts.iter().enumerate() {
        let mount = requested(settings, ground, index, asked)?;
        if let Some(reason) = subject.private.reason(&mount.dir.path) {
            return Err(SettleError::Mount { field: format!("sandbox.mounts[{index}].source"), reason });
        }
        let earlier = mounts.iter().map(|other| &other.target).find(|other| overlap(other, &mount.target));
        if let Some(other) = earlier.or_else(|| shown(&mount.target)) {
            let field = format!("sandbox.mounts[{index}].target");
            let reason = format!("`{}` overlaps with `{}`", mount.target.display(), other.display());
            return Err(SettleError::Mount { field, reason });
        }
        mounts.push(mount);
    }
    let of_agent = subject.manifest.iter().flat_map(|manifest| manifest.read_only_paths.iter().map(PathBuf::from));
    for path in profile.read_only_paths.iter().cloned().chain(of_agent) {
        // Below the system's directories it is seen anyway; what the request puts there is more exact.
        let seen = covers(&path).is_some()
            || shown(&path).is_some()
            || mounts.iter().any(|other| overlap(&other.target, &path));
        if let (false, Ok(dir)) = (seen, workspace::own(&path)) {
            if let Some(reason) = subject.private.reason(&dir.path) {
                return Err(SettleError::Mount { field: "read_only_paths of profile or agent".to_owned(), reason });
            }
            mounts.push(mount(dir, path, false));
        }
    }
    Ok(mounts)
}

fn requested(
    settings: &Settings,
    ground: &Ground,
    index: usize,
    asked: &MountRequest,
) -> Result<SandboxMount, SettleError> {
    let refuse =
        |part: &str, reason: String| SettleError::Mount { field: format!("sandbox.mounts[{index}].{part}"), reason };
    let (dir, allowed) = source(&settings.mounts, &asked.source).map_err(|reason| refuse("source", reason))?;
    if asked.writable && allowed.mode == MountMode::Ro {
        let reason = format!("this host gives `{}` and what is below it only for reading", allowed.path.display());
        return Err(refuse("writable", reason));
    }
    let own = nix::unistd::geteuid().as_raw();
    if asked.writable && ground.isolation != Isolation::Root && dir.uid != own {
        let reason =
            format!("it belongs to uid {}, and this supervisor can only write as its own user ({own})", dir.uid);
        return Err(refuse("writable", reason));
    }
    // As it was asked for: a link to it on the host is no reason to find it elsewhere inside.
    let target = PathBuf::from(asked.target.as_deref().unwrap_or(&asked.source));
    if !workspace::is_plain(&target) || target == Path::new("/") {
        return Err(refuse("target", format!("`{}` is no absolute path of a directory", target.display())));
    }
    if let Some(own) = covers(&target) {
        return Err(refuse(
            "target",
            format!("`{}` overlaps with `{own}`, which every sandbox has as its own", target.display()),
        ));
    }
    Ok(mount(dir, target, asked.writable))
}

/// The directory, and the most exact of the operator's lines that it is below.
fn source<'a>(allowed: &'a [AllowedMount], asked: &str) -> Result<(HostDir, &'a AllowedMount), String> {
    let roots: Vec<PathBuf> = allowed.iter().map(|mount| mount.path.clone()).collect();
    let dir = workspace::below(asked, &roots).map_err(|error| match error {
        BelowError::NotPlain => format!("`{asked}` is not absolute, or has `..` in it"),
        BelowError::Outside => format!("`{asked}` is below none of the [[mounts]] of this host's settings"),
        BelowError::Leaves => format!("`{asked}` leads out of what this host's settings allow"),
        BelowError::Unusable(source) => format!("`{asked}` cannot be used: {source}"),
    })?;
    // Judged by where it really is: a link may lead from a line for writing into one for reading.
    let exact = allowed.iter().filter(|mount| dir.path.starts_with(&mount.path));
    let exact = exact.max_by_key(|mount| (mount.path.components().count(), mount.mode == MountMode::Ro));
    exact.map(|mount| (dir, mount)).ok_or_else(|| format!("`{asked}` leads out of what this host's settings allow"))
}

fn mount(dir: HostDir, target: PathBuf, writable: bool) -> SandboxMount {
    SandboxMount { source: dir.path.clone(), target, writable, dir }
}

/// The first of the jail's own directories that a target has to do with.
fn covers(target: &Path) -> Option<&'static str> {
    let own = plan::own_paths().find(|own| overlap(Path::new(own), target));
    own.or_else(|| Path::new(SHARED).starts_with(target).then_some(SHARED))
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
