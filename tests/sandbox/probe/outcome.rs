//! Attempts by name, and how they say what they saw.

use agentapi_tests::attempt::{Outcome, Params};
use nix::errno::Errno;

/// One attempt.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Number in the list.
    pub(crate) number: u32,
    /// Its name; the part before the dot is its group.
    pub(crate) name: &'static str,
    /// Makes it.
    pub(crate) make: fn(&Params) -> Seen,
}

/// What an attempt saw.
#[derive(Debug)]
pub(crate) struct Seen {
    effect: String,
    open: bool,
    absent: bool,
    detail: String,
}

impl Seen {
    /// It got what it wanted.
    pub(crate) fn open(detail: impl Into<String>) -> Self {
        Self { effect: "OPEN".to_owned(), open: true, absent: false, detail: detail.into() }
    }

    /// The kernel refused.
    pub(crate) fn refused(errno: Errno) -> Self {
        Self::held(&format!("{errno:?}"))
    }

    /// It did not get what it wanted, in a word.
    pub(crate) fn held(effect: &str) -> Self {
        Self { effect: effect.to_owned(), open: false, absent: false, detail: String::new() }
    }

    /// Which of two, by a fact.
    pub(crate) fn open_if(open: bool, held: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        if open { Self::open(detail) } else { Self { detail, ..Self::held(held) } }
    }

    /// Success of a call is success of the attempt.
    pub(crate) fn of<T: std::fmt::Debug>(result: Result<T, Errno>) -> Self {
        match result {
            Ok(value) => Self::open(format!("{value:?}")),
            Err(errno) => Self::refused(errno),
        }
    }

    /// The same for the standard library's errors.
    pub(crate) fn of_io<T>(result: std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::open(""),
            Err(error) => Self::refused(errno(&error)),
        }
    }

    /// If nothing was there to be tried, nothing was shown.
    pub(crate) fn absent_if_missing(mut self) -> Self {
        const WORDS: [&str; 8] =
            ["ENOENT", "ENXIO", "ENODEV", "ENOTTY", "EAFNOSUPPORT", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "EOPNOTSUPP"];
        self.absent = !self.open && WORDS.contains(&self.effect.as_str());
        self
    }

    /// This machine has no such thing at all.
    pub(crate) fn nowhere(word: &str) -> Self {
        Self { absent: true, ..Self::held(word) }
    }

    /// More to read.
    pub(crate) fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The first that got through, or the last.
    pub(crate) fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        let mut last = Self::held("nothing");
        for seen in all {
            if seen.open {
                return seen;
            }
            last = seen;
        }
        last
    }

    /// For the results.
    pub(crate) fn named(self, row: &Row) -> Outcome {
        let Self { effect, open, absent, detail } = self;
        Outcome { number: row.number, name: row.name.to_owned(), effect, open, absent, detail }
    }
}

/// The kernel's word in an error.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
