//! The last steps of the agent's process before it becomes the agent.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use agentapi_shared::jail::{ExecStep, JailPlan};
use nix::errno::Errno;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};

use super::error::JailError;
use super::{filter, landlock};
use crate::sys;

/// The first descriptor that the agent must not inherit.
const FIRST_FOREIGN_FD: i32 = 3;

/// Executes the agent; returns only if that failed.
pub(super) fn execute(plan: &JailPlan, slave: &OwnedFd) -> JailError {
    match prepare(plan, slave) {
        Ok(()) => match exec_in_path(&plan.exec) {
            Err(errno) => JailError::Exec(errno),
            Ok(never) => match never {},
        },
        Err(error) => error,
    }
}

fn prepare(plan: &JailPlan, slave: &OwnedFd) -> Result<(), JailError> {
    sys::reset_signals().map_err(JailError::step("agent: signals"))?;
    setsid().map_err(JailError::step("agent: setsid"))?;
    sys::become_controlling_terminal(slave).map_err(JailError::step("terminal: control"))?;
    dup2_stdin(slave).map_err(JailError::step("terminal: standard input"))?;
    dup2_stdout(slave).map_err(JailError::step("terminal: standard output"))?;
    dup2_stderr(slave).map_err(JailError::step("terminal: standard error"))?;
    chdir(plan.exec.cwd.as_str()).map_err(JailError::step("agent: working directory"))?;
    debug_assert!(slave.as_raw_fd() >= FIRST_FOREIGN_FD);
    sys::close_on_exec_from(FIRST_FOREIGN_FD).map_err(JailError::step("agent: descriptors"))?;
    // Last: mounts are made, and what comes after is the agent's. The filter after Landlock, as that makes calls of its own.
    if let Some(rules) = &plan.landlock {
        landlock::confine_agent(rules)?;
    }
    match plan.filter {
        Some(step) => filter::confine_agent(step).map_err(JailError::step("seccomp: agent")),
        None => Ok(()),
    }
}

/// Like execvpe, but with the PATH of the agent's environment and without a shell for files that are no programs.
fn exec_in_path(exec: &ExecStep) -> Result<Infallible, Errno> {
    let words = |text: &[String]| text.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>();
    let argv = words(&exec.argv).map_err(|_| Errno::EINVAL)?;
    let env: Vec<String> = exec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let env = words(&env).map_err(|_| Errno::EINVAL)?;
    let program = exec.argv.first().ok_or(Errno::EINVAL)?;
    if program.contains('/') {
        return execve(argv.first().ok_or(Errno::EINVAL)?, &argv, &env);
    }
    let path = exec.env.iter().find(|(name, _)| name == "PATH").map_or("/usr/bin:/bin", |(_, value)| value.as_str());
    let mut worst = Errno::ENOENT;
    for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
        let candidate = CString::new(format!("{directory}/{program}")).map_err(|_| Errno::EINVAL)?;
        match execve(&candidate, &argv, &env) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // There, but not executable: keep looking, and say so if nothing better comes.
            Err(Errno::EACCES) => worst = Errno::EACCES,
            other => return other,
        }
    }
    Err(worst)
}
