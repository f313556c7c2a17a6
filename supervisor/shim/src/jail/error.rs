//! What can go wrong between a plan and a running agent, by step.

use nix::errno::Errno;

use super::lifeline::{InitMessage, STEP_BYTES_MAX};

/// A jail that could not be made. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// A step was refused.
    #[error("jail step `{step}` failed: {} ({source:?})", source.desc())]
    Step {
        /// Which: the layer, then what of it.
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
    /// For `map_err`: names the step, as `layer: what`.
    pub(crate) fn step(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Step { step: step.to_owned(), source }
    }

    /// As another process of the jail tells it. A step with long paths in it is told by its beginning: the layer and what of it come first.
    pub(super) fn to_message(&self) -> InitMessage {
        match self {
            Self::Step { step, source } => InitMessage::Failed { step: shortened(step), errno: *source as i32 },
            Self::Exec(errno) => InitMessage::ExecFailed { errno: *errno as i32 },
            Self::InitGone => InitMessage::Failed { step: "init".to_owned(), errno: libc::ESRCH },
        }
    }

    /// What another process told; any other message is none of a failure.
    pub(super) fn from_message(message: InitMessage) -> Self {
        match message {
            InitMessage::Failed { step, errno } => Self::Step { step, source: Errno::from_raw(errno) },
            InitMessage::ExecFailed { errno } => Self::Exec(Errno::from_raw(errno)),
            _ => Self::InitGone,
        }
    }
}

fn shortened(step: &str) -> String {
    if step.len() <= STEP_BYTES_MAX {
        return step.to_owned();
    }
    format!("{}...", &step[..step.floor_char_boundary(STEP_BYTES_MAX)])
}

/// What a jail that could not be made means and what to do about it. Where the cause may be many things, `agentapi doctor` looks at each.
pub(crate) fn describe_jail_failure(error: &JailError) -> String {
    let (step, errno) = match error {
        JailError::Step { step, source } => (step.as_str(), *source),
        JailError::Exec(errno) => ("", *errno),
        JailError::InitGone => ("", Errno::UnknownErrno),
    };
    let layer = step.split(':').next().unwrap_or_default();
    let hint = match (layer, errno) {
        ("namespaces", Errno::ENOSPC) => {
            "the host's limit of namespaces is reached: raise `user.max_user_namespaces` and its siblings with sysctl, or stop some sessions"
        }
        ("namespaces", Errno::EPERM | Errno::EACCES) => {
            "this host forbids user namespaces, or all of them: `agentapi doctor` says by which setting"
        }
        ("cgroup", Errno::EPERM | Errno::EACCES | Errno::ENOENT | Errno::EBUSY) => {
            "the session's cgroup could not be entered: nothing but the supervisor may change its tree of cgroups"
        }
        ("rlimit", Errno::EPERM) if step == "rlimit: core" => {
            "the supervisor's hard limit of core dumps is below one byte: start it with LimitCORE=1 (systemd) or `ulimit -Hc 1`, or with CAP_SYS_RESOURCE"
        }
        ("mounts", Errno::ESTALE) => "the directory was replaced by another during the start: start the session again",
        ("mounts", Errno::ENOENT) => "a path of the host's configuration, or the workspace, is not there",
        ("mounts", Errno::ENODEV) => "a device of the host is not the one that its name says",
        ("mounts", Errno::EINVAL) if step.starts_with("mounts: bind") => {
            "the file system of this directory may not know id-mapped mounts: `agentapi doctor` says what the kernel has"
        }
        ("landlock" | "seccomp", Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL) => {
            "the kernel has less of this than when the supervisor started: start the supervisor again"
        }
        (_, Errno::EAGAIN | Errno::ENOMEM | Errno::ENFILE | Errno::EMFILE) => {
            "the host is out of memory, processes or descriptors: stop some sessions"
        }
        _ => "run `agentapi doctor` on the host",
    };
    format!("{error}; {hint}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::Lifeline;

    #[test]
    fn a_step_with_the_longest_paths_is_told() {
        // Every byte of these is longer in JSON, and the shortening falls into the middle of a character.
        for part in ["/a", "/\u{1}", "/\u{1F600}", "/\"\\"] {
            let path = part.repeat(4_000 / part.len());
            let step = format!("mounts: bind {path} to {path}");
            let (ours, mut theirs) = Lifeline::pair().unwrap();
            let error = JailError::Step { step, source: Errno::ENOENT };
            ours.send(&error.to_message(), &[]).unwrap();
            let (message, _) = theirs.receive::<InitMessage>().unwrap().unwrap();
            let told = describe_jail_failure(&JailError::from_message(message));
            assert!(told.starts_with(&format!("jail step `mounts: bind {part}")), "{told}");
            assert!(told.contains("...` failed: No such file") && told.contains("is not there"), "{told}");
        }
    }

    #[test]
    fn a_failed_layer_says_what_to_do() {
        for (step, errno, wanted) in [
            ("namespaces: clone", Errno::ENOSPC, "user.max_user_namespaces"),
            ("namespaces: users", Errno::EPERM, "forbids user namespaces"),
            ("rlimit: core", Errno::EPERM, "LimitCORE=1"),
            ("mounts: bind /a to /b", Errno::ESTALE, "was replaced"),
            ("landlock: rights", Errno::EOPNOTSUPP, "start the supervisor again"),
            ("init: fork", Errno::EAGAIN, "stop some sessions"),
            ("terminal: open", Errno::EIO, "`agentapi doctor`"),
        ] {
            let text = describe_jail_failure(&JailError::step(step)(errno));
            let named =
                text.starts_with(&format!("jail step `{step}` failed: ")) && text.contains(&format!("({errno:?})"));
            assert!(named && text.contains(wanted), "{text}");
        }
        assert!(describe_jail_failure(&JailError::InitGone).contains("`agentapi doctor`"));
    }
}
