//! What can go wrong between a plan and a running agent, by step.

use nix::errno::Errno;

/// A jail that could not be made. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// A step was refused.
    #[error("jail step `{step}` failed: {}", source.desc())]
    Step {
        /// Which.
        step: String,
        /// By the kernel.
        source: Errno,
    },
    /// The jail stood, but the command could not be executed in it.
    #[error("exec failed: {}", .0.desc())]
    Exec(Errno),
    /// Init ended without a word.
    #[error("the jail's init ended during set-up")]
    InitGone,
}

impl JailError {
    /// For `map_err`: names the step.
    pub(crate) fn step(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Step { step: step.to_owned(), source }
    }

    pub(super) fn from_wire(step: &str, errno: i32) -> Self {
        Self::Step { step: step.to_owned(), source: Errno::from_raw(errno) }
    }
}

/// What a failed exec means and what to do about it.
pub(crate) fn describe_exec_failure(errno: Errno, program: &str, path: &str) -> String {
    let hint = match errno {
        Errno::ENOENT if program.contains('/') => {
            "there is no such file inside the session (or its interpreter is missing): check the path; host files are only visible below the read-only paths of the host's configuration".to_owned()
        }
        Errno::ENOENT => format!("it is in none of the directories of the session's PATH ({path}): install it on the host, or give its full path"),
        Errno::EACCES => "it is not executable for the agent: set its execute permission (chmod +x), or run it through its interpreter".to_owned(),
        Errno::ENOEXEC => "it is neither a program for this machine nor a script with a #! line".to_owned(),
        Errno::E2BIG => "its arguments and environment are too long together".to_owned(),
        Errno::ENOTDIR => "a part of its path is not a directory".to_owned(),
        Errno::ENOMEM | Errno::EAGAIN => "the host is out of memory or processes: stop some sessions".to_owned(),
        _ => "see execve(2)".to_owned(),
    };
    format!("cannot execute `{program}`: {} ({errno:?}): {hint}", errno.desc())
}
