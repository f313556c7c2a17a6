//! Landlock: a second look at every path, by the kernel's own rules instead of mounts; and signals and abstract sockets that end at the jail.
//!
//! All that the version in the plan knows is used, as a hard requirement: a kernel that knows less makes this fail.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use agentapi_shared::jail::LandlockStep;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::error::JailError;

/// The rules of the agent, on this process and all it starts.
pub(super) fn confine_agent(step: &LandlockStep) -> Result<(), JailError> {
    let abi = version(step.abi)?;
    let reading = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    // Truncation is a right of its own from version 3 on.
    let writing = (AccessFs::WriteFile | AccessFs::Truncate) & AccessFs::from_all(abi);
    let mut rules = ruleset(abi)?;
    rules = allow(rules, "/", reading)?;
    for path in &step.write_existing {
        rules = allow(rules, path, writing)?;
    }
    for path in &step.read_write {
        rules = allow(rules, path, AccessFs::from_all(abi))?;
    }
    enforce(rules)
}

/// The rules of the shim: its spawn's directory, and nothing else of any file system.
pub(super) fn confine_shim(step: &LandlockStep, dir: &OwnedFd) -> Result<(), JailError> {
    let abi = version(step.abi)?;
    let files = AccessFs::from_all(abi) & !BitFlags::from_flag(AccessFs::Execute);
    let rules = ruleset(abi)?
        .add_rule(PathBeneath::new(dir.as_fd(), files))
        .map_err(failed("rule of the spawn's directory"))?;
    enforce(rules)
}

fn version(number: u32) -> Result<ABI, JailError> {
    let abi = ABI::from(i32::try_from(number).unwrap_or(0));
    // A version that this crate does not know, or none, would silently become another.
    if number != 0 && abi as u32 == number { Ok(abi) } else { Err(JailError::step("landlock: version")(Errno::EINVAL)) }
}

fn ruleset(abi: ABI) -> Result<RulesetCreated, JailError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .map_err(failed("rights"))?;
    let scopes = Scope::from_all(abi);
    if !scopes.is_empty() {
        rules = rules.scope(scopes).map_err(failed("scopes"))?;
    }
    rules.create().map_err(failed("create"))
}

fn allow(rules: RulesetCreated, path: &str, access: BitFlags<AccessFs>) -> Result<RulesetCreated, JailError> {
    let failed_at = |errno| JailError::Step { step: format!("landlock: rule for {path}"), source: errno };
    let fd = PathFd::new(Path::new(path)).map_err(|error| failed_at(errno_of(&error)))?;
    let kind = fstat(fd.as_fd()).map_err(failed_at)?.st_mode & libc::S_IFMT;
    // A file has no entries to be made or listed, and the kernel refuses rules that speak of them.
    let access = if kind == libc::S_IFDIR { access } else { access & AccessFs::from_file(ABI::V10) };
    rules.add_rule(PathBeneath::new(fd, access)).map_err(|error| failed_at(errno_of(&error)))
}

fn enforce(rules: RulesetCreated) -> Result<(), JailError> {
    let status = rules.restrict_self().map_err(failed("restrict"))?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        Ok(())
    } else {
        Err(JailError::step("landlock: check")(Errno::EOPNOTSUPP))
    }
}

fn failed(what: &'static str) -> impl Fn(RulesetError) -> JailError {
    move |error| JailError::Step { step: format!("landlock: {what}"), source: errno_of(&error) }
}

/// The kernel's word somewhere in an error of the crate; its own refusals mean that the kernel knows less than the plan says.
fn errno_of(error: &(dyn Error + 'static)) -> Errno {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Errno::from_raw(code);
        }
        next = error.source();
    }
    Errno::EOPNOTSUPP
}
