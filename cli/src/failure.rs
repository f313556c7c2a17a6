//! How a command ends when it does not succeed: an exit code that scripts can tell apart, and words for a person.
//!
//! Every failure that has a code of its own is a [`Failure`]; any other error ends with [`ExitKind::Failure`].

use std::fmt;

/// The exit codes of this program; `agentapi help exit-codes` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitKind {
    /// It could not be done.
    Failure = 1,
    /// The command line is wrong. clap ends with the same code.
    Usage = 2,
    /// No such session, host or agent; for `status`: not running.
    NotFound = 3,
    /// The server cannot be reached.
    Unreachable = 4,
    /// The server refused the credential, or what it may do (401, 403).
    Refused = 5,
    /// What is there stands against it (409), such as a second `up`.
    Conflict = 6,
    /// A deadline passed.
    TimedOut = 7,
    /// What was verified is not what it was.
    Tampered = 8,
}

/// The long help of `agentapi help exit-codes`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes of every command:

  0  done
  1  it could not be done
  2  the command line is wrong, or a name fits several sessions
  3  not found: no such session; `status`: agentapi is not running
  4  the server cannot be reached
  5  the server refused the credential or the action (401, 403)
  6  a conflict: the session still runs, or another `up` does
  7  a time limit passed
  8  `audit verify`: the trail is not what was recorded

`session wait` ends with 0 when what it waited for is so, with 1 when it can no longer
become so (the session ended before it ran), and with 7 after `--timeout`. With
`--exit-status` it ends as the program did: its exit code, or 128 and the number of the
signal.
`session attach` ends with 0 when detached and when the session ended, whatever its own
exit was, and with 128 and the number of the signal when a signal ended `attach` itself.
`doctor` ends with 0 when all is well, 1 when something is missing that not everyone
needs, 2 when sessions cannot run.";

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: Option<String>,
}

impl Failure {
    /// A failure with a code of its own, and what to say: what happened and what to do.
    pub(crate) fn new(kind: ExitKind, message: impl Into<String>) -> Self {
        Self { code: kind as u8, message: Some(message.into()) }
    }

    /// A failure of which all was said already.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, message: None }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("failed"))
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error and, unless all was said already, its words on one line.
pub(crate) fn describe(error: &anyhow::Error) -> (u8, Option<String>) {
    match error.downcast_ref::<Failure>() {
        Some(failure) => (failure.code, failure.message.is_some().then(|| format!("{error:#}"))),
        None => (ExitKind::Failure as u8, Some(format!("{error:#}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_code_survives_context() {
        let failed: anyhow::Result<()> = Err(Failure::new(ExitKind::Conflict, "already running").into());
        let (code, words) = describe(&failed.context("up").unwrap_err());
        assert_eq!((code, words.as_deref()), (6, Some("up: already running")));
        assert_eq!(describe(&anyhow::anyhow!("broken")), (1, Some("broken".to_owned())));
        assert_eq!(describe(&Failure::silent(2).into()), (2, None));
    }
}
