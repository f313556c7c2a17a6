//! One attempt: its name, how it is made, and what came of it.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::Scene;

/// An attempt that can be made.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// The part before the dot is its group.
    pub(super) name: &'static str,
    /// What of the jail it is an attempt on.
    pub(super) needs: Needs,
    /// Makes it.
    pub(super) make: fn(&Scene) -> Seen,
}

/// What there has to be for an attempt to mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing that a jail could lack.
    Nothing,
    /// A network of its own, which a profile may give away.
    Network,
    /// Users of its own, which a host may lack.
    Users,
}

/// An attempt that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// Its name.
    pub(crate) name: String,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// The kernel's word, such as `EPERM`, or what there was instead of what was wanted.
    pub(crate) effect: String,
}

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It did not get what it wanted.
    Refused,
    /// It did.
    Open,
    /// This host has no such thing, or the profile gives it away: nothing to try.
    Absent,
    /// Nobody knows: it hung, or died of something else.
    Unclear,
}

/// What an attempt saw.
#[derive(Debug)]
pub(super) enum Seen {
    /// What it wanted.
    Open(String),
    /// Something else: the kernel's word, or what was there.
    Held(String),
    /// Nothing of the kind on this host.
    Absent(String),
    /// Not what it needs to know.
    Unclear(String),
    /// It was not made.
    Left,
}

impl Seen {
    /// It got what it wanted.
    pub(super) fn open() -> Self {
        Self::Open(String::new())
    }

    /// It did not, in a word.
    pub(super) fn held(effect: &str) -> Self {
        Self::Held(effect.to_owned())
    }

    /// The kernel refused.
    pub(super) fn refused(errno: Errno) -> Self {
        Self::Held(format!("{errno:?}"))
    }

    /// Which of two, by a fact.
    pub(super) fn open_if(open: bool, held: &str) -> Self {
        if open { Self::open() } else { Self::held(held) }
    }

    /// Success of a call is success of the attempt.
    pub(super) fn of<T>(result: Result<T, Errno>) -> Self {
        match result {
            Ok(_) => Self::open(),
            Err(errno) => Self::refused(errno),
        }
    }

    /// The same for the standard library's errors.
    pub(super) fn of_io<T>(result: std::io::Result<T>) -> Self {
        Self::of(result.map_err(|error| errno(&error)))
    }

    /// Of a call that comes to nothing by its arguments: every answer but that it may not be asked is one to somebody who might have done it.
    pub(super) fn permitted<T>(result: Result<T, Errno>) -> Self {
        match result {
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => Self::refused(errno),
            Err(errno @ Errno::ENOSYS) => Self::refused(errno).absent_if_missing(),
            _ => Self::open(),
        }
    }

    /// If nothing was there to be tried, nothing was shown.
    pub(super) fn absent_if_missing(self) -> Self {
        const WORDS: [&str; 9] = [
            "ENOENT",
            "ENXIO",
            "ENODEV",
            "ENOTTY",
            "EAFNOSUPPORT",
            "ESOCKTNOSUPPORT",
            "EPROTONOSUPPORT",
            "EOPNOTSUPP",
            "ENOSYS",
        ];
        match self {
            Self::Held(effect) if WORDS.contains(&effect.as_str()) => Self::Absent(effect),
            other => other,
        }
    }

    /// More to read about what was got.
    pub(super) fn with(self, what: &str) -> Self {
        match self {
            Self::Open(_) => Self::Open(what.to_owned()),
            other => other,
        }
    }

    /// The first that got through, or the last.
    pub(super) fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        let mut last = Self::Absent("nothing to try".to_owned());
        for seen in all {
            if matches!(seen, Self::Open(_)) {
                return seen;
            }
            last = seen;
        }
        last
    }

    /// For the report.
    pub(super) fn named(self, row: &Row) -> Attempt {
        let (outcome, effect) = match self {
            Self::Open(what) => (Outcome::Open, what),
            Self::Held(effect) => (Outcome::Refused, effect),
            Self::Absent(effect) => (Outcome::Absent, effect),
            Self::Unclear(why) => (Outcome::Unclear, why),
            Self::Left => (Outcome::Absent, "the jail has no such layer".to_owned()),
        };
        Attempt { name: row.name.to_owned(), outcome, effect }
    }
}

/// The kernel's word in an error.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
