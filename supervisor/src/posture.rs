//! What a host may lack of the whole isolation, as words that an operator can allow and that sessions carry. Nothing starts without a layer
//! unless its word is allowed: there is no falling back.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The first Landlock ABI with everything that sessions use: scopes for signals and abstract sockets.
pub(crate) const LANDLOCK_ABI_WHOLE: u32 = 6;

/// One thing that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missing {
    /// The kernel has no Landlock.
    Landlock,
    /// It has this ABI, older than [`LANDLOCK_ABI_WHOLE`].
    LandlockAbi(u32),
    /// User namespaces are forbidden.
    UserNamespaces,
    /// Limits come from cgroup v1, tracking from v2.
    CgroupHybrid,
    /// No cgroup can be made.
    Cgroup,
    /// The disk space of a session cannot be limited.
    DiskQuota,
    /// The daemon is an ordinary user, and every session is that user on the host.
    OneUid,
}

/// Not one of the words.
#[derive(Debug, thiserror::Error)]
#[error("unknown word; known are {words}")]
pub(crate) struct UnknownWord {
    words: String,
}

/// A session that would start with something missing that nobody allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host lacks a layer of the sandbox (`{missing}`): {}. Sessions start without it only if the supervisor's settings say allow_degraded = [\"{missing}\"], or it runs with --allow-degraded {missing}",
    .missing.effect()
)]
pub(crate) struct NotAllowed {
    pub(crate) missing: Missing,
}

impl Missing {
    /// Every one there is.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let one =
            [Self::Landlock, Self::UserNamespaces, Self::CgroupHybrid, Self::Cgroup, Self::DiskQuota, Self::OneUid];
        one.into_iter().chain((1..LANDLOCK_ABI_WHOLE).map(Self::LandlockAbi))
    }

    /// What a session without it is like.
    pub(crate) fn effect(self) -> &'static str {
        match self {
            Self::Landlock => "there is no second layer around files and signals; namespaces still hold",
            Self::LandlockAbi(_) => "the second layer around files is there in part, and there is none around signals",
            Self::UserNamespaces => {
                "ids inside are those of the host: of their own for each session, but not hidden behind a namespace; no directory of the host can be written"
            }
            Self::CgroupHybrid => "memory, processes and processor time are limited by cgroup v1, disk traffic is not",
            Self::Cgroup => "memory and processor time are not limited: one session can exhaust the host",
            Self::DiskQuota => "a session can fill the disk",
            Self::OneUid => {
                "every session is the same user on this host, so they are not apart from each other: for one's own use"
            }
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Landlock => "landlock",
            Self::LandlockAbi(abi) => return write!(f, "landlock-abi-{abi}"),
            Self::UserNamespaces => "userns",
            Self::CgroupHybrid => "cgroup-hybrid",
            Self::Cgroup => "no-cgroup",
            Self::DiskQuota => "no-disk-quota",
            Self::OneUid => "one-uid",
        })
    }
}

impl FromStr for Missing {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::all().find(|known| known.to_string() == word).ok_or_else(|| UnknownWord {
            words: Self::all().map(|known| known.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Passes what is missing on if all of it is allowed.
pub(crate) fn require(
    missing: BTreeSet<Missing>,
    allowed: &BTreeSet<Missing>,
) -> Result<BTreeSet<Missing>, NotAllowed> {
    match missing.iter().find(|word| !allowed.contains(word)) {
        Some(missing) => Err(NotAllowed { missing: *missing }),
        None => Ok(missing),
    }
}

/// The words, in the order of a posture.
pub(crate) fn words(missing: &BTreeSet<Missing>) -> Vec<String> {
    missing.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known_to_whoever_reads_a_posture() {
        let all: BTreeSet<Missing> = Missing::all().collect();
        assert_eq!(words(&all), agentapi_shared::api::DEGRADED_WORDS);
    }

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for missing in Missing::all() {
            assert_eq!(missing.to_string().parse::<Missing>().unwrap(), missing);
        }
        for bad in ["", "landlock-abi-0", "landlock-abi-6", "seccomp", "Landlock"] {
            let words = bad.parse::<Missing>().unwrap_err().to_string();
            assert!(words.contains("landlock-abi-2") && words.contains("no-cgroup"), "{words}");
        }
    }

    #[test]
    fn only_what_is_allowed_may_be_missing_and_a_refusal_names_the_line_that_allows_it() {
        let missing = BTreeSet::from([Missing::LandlockAbi(2), Missing::Cgroup]);
        let both = missing.clone();
        assert_eq!(require(missing.clone(), &both).unwrap(), both);
        let refused =
            require(missing, &BTreeSet::from([Missing::LandlockAbi(2), Missing::LandlockAbi(3)])).unwrap_err();
        assert_eq!(refused.missing, Missing::Cgroup);
        assert!(refused.to_string().contains("allow_degraded = [\"no-cgroup\"]"), "{refused}");
    }
}
