//! The self-test: before this host takes sessions, the canary ([`crate::canary`]) tries to get out of a jail as sessions have it. Sessions are
//! refused as long as it is not known that every attempt fails.
//!
//! What held once holds until something changes that jails are made of: the boot, a program of ours, the settings, what the host has. So the next
//! start of the supervisor does not try again ([`cache`]).

mod bait;
mod cache;
mod jail;

use std::path::Path;
use std::time::{Duration, Instant};

use agentapi_shared::api::DEFAULT_PROFILE;
use serde::Serialize;
use tokio::sync::watch;

pub(crate) use self::jail::{Bench, Limiting};
use crate::canary::{Attempt, Outcome};
use crate::host::Isolation;
use crate::profiles::Profile;
use crate::settings::Settings;

/// Whatever a jail does, it is ended then. It takes some 50 ms, on an emulated processor under load two seconds. What is around it has limits of its
/// own: eleven seconds to make its disk, one for init to be gone, ten until its groups are empty. So all of it is over after half a minute.
const SECONDS_MAX: Duration = Duration::from_secs(4);

/// One jail that was tried.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trial {
    /// The profile that it was made for.
    pub(crate) profile: String,
    /// How long it took.
    pub(crate) took_ms: u64,
    /// Why it did not come to its end.
    pub(crate) problem: Option<String>,
    /// Every attempt.
    pub(crate) attempts: Vec<Attempt>,
}

impl Trial {
    /// None at all, for want of a place for it.
    pub(crate) fn not_made(problem: String) -> Self {
        Self { profile: DEFAULT_PROFILE.to_owned(), took_ms: 0, problem: Some(problem), attempts: Vec::new() }
    }

    fn of(&self, outcome: Outcome) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(move |attempt| attempt.outcome == outcome)
    }

    /// What was found, in words.
    pub(crate) fn summary(&self) -> String {
        let (open, unclear) = (list(self.of(Outcome::Open)), list(self.of(Outcome::Unclear)));
        match (&self.problem, open.is_empty(), unclear.is_empty()) {
            (None, false, _) => format!("profile {}: got through: {open}", self.profile),
            (Some(problem), false, _) => format!("profile {}: got through: {open}; and {problem}", self.profile),
            (Some(problem), true, _) => format!("profile {}: {problem}", self.profile),
            (None, true, false) => format!("profile {}: came to no result: {unclear}", self.profile),
            (None, true, true) => {
                let (refused, absent) = (self.of(Outcome::Refused).count(), self.of(Outcome::Absent).count());
                let left = if absent == 0 { String::new() } else { format!(", {absent} with nothing to try here") };
                format!("profile {}: {refused} attempts refused{left}", self.profile)
            }
        }
    }
}

/// Names of attempts with what they got, the first few.
fn list<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> String {
    /// More of them say no more.
    const NAMED_MAX: usize = 5;
    let mut named: Vec<String> = attempts
        .map(|Attempt { name, effect, .. }| if effect.is_empty() { name.clone() } else { format!("{name} ({effect})") })
        .collect();
    let more = named.len().saturating_sub(NAMED_MAX);
    named.truncate(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    named.join(", ") + &more
}

/// What is known of the sandbox here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing yet.
    #[default]
    Untested,
    /// There is no sandbox, by the operator's word or because this host can have none.
    NoSandbox,
    /// It held.
    Holds,
    /// An attempt got through.
    Broken(String),
    /// The test did not come to its end.
    Unclear(String),
}

impl Standing {
    /// From jails that were tried.
    pub(crate) fn of(trials: &[Trial]) -> Self {
        let words = |of: &dyn Fn(&Trial) -> bool| {
            trials.iter().filter(|trial| of(trial)).map(Trial::summary).collect::<Vec<_>>().join("; ")
        };
        let is_open = |trial: &Trial| trial.of(Outcome::Open).next().is_some();
        let is_unclear = |trial: &Trial| trial.problem.is_some() || trial.of(Outcome::Unclear).next().is_some();
        if trials.iter().any(is_open) {
            Self::Broken(words(&is_open))
        } else if trials.is_empty() || trials.iter().any(is_unclear) {
            Self::Unclear(words(&is_unclear))
        } else {
            Self::Holds
        }
    }

    /// Why no session is started; none: they are.
    pub(crate) fn refusal(&self) -> Option<String> {
        match self {
            Self::NoSandbox | Self::Holds => None,
            Self::Untested => Some("the self-test of this host's sandbox is not over yet".to_owned()),
            Self::Broken(what) => Some(format!(
                "the sandbox of this host did not hold in its self-test ({what}): run `agentapi-supervisor doctor` on it, mend what it names, and restart the supervisor"
            )),
            Self::Unclear(why) => Some(format!(
                "the self-test of this host's sandbox came to no result ({why}); it is done again every half minute, and `agentapi-supervisor doctor` does it at once"
            )),
        }
    }
}

/// The standing, for everyone who has to know it.
#[derive(Debug, Default)]
pub(crate) struct SelfTest(watch::Sender<Standing>);

impl SelfTest {
    /// As it is now.
    pub(crate) fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// From now on.
    pub(crate) fn set(&self, standing: Standing) {
        self.0.send_replace(standing);
    }

    /// Waits until nothing is refused because of it, maybe forever.
    pub(crate) async fn passed(&self) {
        // The sender lives as long as we do.
        let mut changes = self.0.subscribe();
        let _passed = changes.wait_for(|standing| standing.refusal().is_none()).await;
    }
}

/// Finds out whether the sandbox holds, unless it is known. Blocks, see [`try_all`].
pub(crate) fn stand(bench: &Bench<'_>, settings: &Settings, state_dir: &Path) -> Standing {
    if bench.ground.isolation == Isolation::None {
        return Standing::NoSandbox;
    }
    let known = cache::Known::now(bench, settings);
    if known.as_ref().is_ok_and(|known| known.is_kept(state_dir)) {
        return Standing::Holds;
    }
    let standing = Standing::of(&try_all(bench, settings));
    if let (Standing::Holds, Ok(known)) = (&standing, known)
        && let Err(error) = known.keep(state_dir)
    {
        tracing::warn!(%error, "the self-test's result could not be kept; the next start does it again");
    }
    standing
}

/// Tries one jail of each kind, until one comes to no result: the next one would hardly either. Blocks, see [`SECONDS_MAX`].
pub(crate) fn try_all(bench: &Bench<'_>, settings: &Settings) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, profile) in kinds(settings) {
        let trial = try_one(bench, name, profile, Instant::now() + SECONDS_MAX);
        let unclear = matches!(Standing::of(std::slice::from_ref(&trial)), Standing::Unclear(_));
        trials.push(trial);
        if unclear {
            break;
        }
    }
    trials
}

/// Profiles whose jails are made differently; of those that are alike, one: the default where it is among them.
fn kinds(settings: &Settings) -> Vec<(&str, &Profile)> {
    let named = settings.profiles.iter().map(|(name, profile)| (name.as_str(), profile));
    let (default, others): (Vec<_>, Vec<_>) = named.partition(|(name, _)| *name == DEFAULT_PROFILE);
    let mut kinds: Vec<(&str, &Profile)> = Vec::new();
    for (name, profile) in default.into_iter().chain(others) {
        let alike =
            |(_, known): &(&str, &Profile)| (known.debuggers, known.network) == (profile.debuggers, profile.network);
        if !kinds.iter().any(alike) {
            kinds.push((name, profile));
        }
    }
    kinds
}

fn try_one(bench: &Bench<'_>, name: &str, profile: &Profile, deadline: Instant) -> Trial {
    let began = Instant::now();
    let jail::Tried { attempts, problem } = jail::try_out(bench, name, profile, deadline);
    let problem = problem.map(|error| crate::chain(&error));
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Trial { profile: name.to_owned(), took_ms, problem, attempts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(outcomes: &[(&str, Outcome)], problem: Option<&str>) -> Trial {
        let attempts = outcomes.iter().map(|(name, outcome)| Attempt {
            name: (*name).to_owned(),
            outcome: *outcome,
            effect: String::new(),
        });
        let problem = problem.map(str::to_owned);
        Trial { profile: "dev".to_owned(), took_ms: 0, problem, attempts: attempts.collect() }
    }

    #[test]
    fn only_what_is_known_to_hold_lets_sessions_start() {
        let held = trial(&[("a", Outcome::Refused), ("b", Outcome::Absent)], None);
        assert_eq!(Standing::of(std::slice::from_ref(&held)), Standing::Holds);
        let open = trial(&[("a", Outcome::Refused), ("b", Outcome::Open), ("c", Outcome::Unclear)], None);
        let refusal = Standing::of(&[held.clone(), open]).refusal().unwrap();
        assert!(refusal.contains("got through: b)"), "{refusal}");
        let open_and_more = trial(&[("b", Outcome::Open)], Some("not removed"));
        assert!(
            matches!(Standing::of(&[open_and_more]), Standing::Broken(what) if what.contains("b; and not removed"))
        );
        for unclear in [trial(&[("a", Outcome::Unclear)], None), trial(&[], Some("no jail"))] {
            assert!(matches!(Standing::of(&[held.clone(), unclear]), Standing::Unclear(_)));
        }
        assert!(Standing::of(&[]).refusal().is_some());
        assert!(Standing::default().refusal().is_some());
        assert_eq!(Standing::NoSandbox.refusal(), None);
    }

    #[test]
    fn one_jail_of_each_kind_is_tried_and_the_default_is_among_them() {
        let settings = crate::config::Policy::default().settings().unwrap();
        let names: Vec<&str> = kinds(&settings).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["dev", "strict"]);
    }
}
