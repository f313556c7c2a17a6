//! The last steps of the agent's process before it becomes the agent.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use agentapi_shared::jail::{ExecStep, JailPlan};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};

use super::set_id;
use crate::sys;

/// The first descriptor that the agent must not inherit.
const FIRST_FOREIGN_FD: i32 = 3;

/// Executes the agent; returns only if that failed, with the step (none: the exec itself).
pub(super) fn execute(plan: &JailPlan, slave: &OwnedFd) -> (Option<&'static str>, Errno) {
    let exec = &plan.exec;
    let at = |step| move |errno| (Some(step), errno);
    let prepare = || -> Result<(), (Option<&'static str>, Errno)> {
        sys::reset_signals().map_err(at("signals"))?;
        setsid().map_err(at("setsid"))?;
        sys::become_controlling_terminal(slave).map_err(at("controlling terminal"))?;
        dup2_stdin(slave).map_err(at("standard input"))?;
        dup2_stdout(slave).map_err(at("standard output"))?;
        dup2_stderr(slave).map_err(at("standard error"))?;
        umask(Mode::from_bits_truncate(0o022));
        chdir(exec.cwd.as_str()).map_err(at("working directory"))?;
        debug_assert!(slave.as_raw_fd() >= FIRST_FOREIGN_FD);
        sys::close_on_exec_from(FIRST_FOREIGN_FD).map_err(at("descriptors"))?;
        // Last: what comes before needs no file of its own, and what comes after is the agent's.
        if plan.forbid_set_id { set_id::forbid().map_err(at("seccomp")) } else { Ok(()) }
    };
    match prepare() {
        Ok(()) => match exec_in_path(exec) {
            Err(errno) => (None, errno),
            Ok(never) => match never {},
        },
        Err(failure) => failure,
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
