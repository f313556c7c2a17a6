//! A jail with the canary in it: made as for a session, by the same shim and with a plan from the same code, in a directory and with host ids of its
//! own. Nothing of it is left afterwards, whatever happens.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use agentapi_shared::api::{DISK_BYTES_MIN, Limits, NetworkMode};
use agentapi_shared::egress::PROXY_PORT;
use agentapi_shared::jail::{AGENT_ID, CgroupStep, DiskDir, FileIdentity, JailPlan, MountStep, Namespace};
use agentapi_shared::shim::{ShimStart, ShimStarted};
use agentapi_shared::{SessionId, WindowSize};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bait::Host;
use crate::abort::Abort;
use crate::canary::{self, Aims, Attempt, Outcome};
use crate::cgroup::{CgroupError, Cgroups, Place};
use crate::config::Exposure;
use crate::disk::{Disk, DiskError};
use crate::files::{SessionFiles, SpawnFiles, read_foreign};
use crate::host::{Ground, Isolation};
use crate::launch::{self, LaunchError};
use crate::plan::{self, PlanError, PlanInput, Source};
use crate::profiles::Profile;
use crate::sandbox::{Listener, Sandbox};
use crate::slots::SELF_TEST_SLOT;
use crate::{sys, workspace};

/// Where the program is inside.
const PROGRAM: &str = "/run/agentapi-canary";
/// A report is never longer: ninety lines of some hundred bytes.
const REPORT_BYTES_MAX: u64 = 256 * 1024;
/// Journal of the canary, which prints nothing; the least that a journal may have.
const JOURNAL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Init is gone this soon after its shim.
const INIT_GONE: Duration = Duration::from_secs(1);

/// What a jail is made with and where.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) shim: &'a Path,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) limiting: Limiting,
    pub(crate) ground: &'a Ground,
    pub(crate) exposure: &'a Exposure,
    /// A directory that is made and removed.
    pub(crate) dir: PathBuf,
}

/// What control groups do for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limiting {
    /// The profile's limits, as for a session.
    Profile,
    /// The same where they can be had: whoever only looks is itself in the group that would have to give them.
    IfGiven,
}

/// Why a jail could not be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrialError {
    /// Its directory.
    #[error("cannot {what}")]
    Files { what: &'static str, source: io::Error },
    /// Its plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its groups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its shim.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The jail was not made.
    #[error("the jail could not be made: {0}")]
    Jail(String),
    /// Something is left of it.
    #[error("what the self-test has started did not end")]
    Left,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> TrialError {
    move |source| TrialError::Files { what, source }
}

/// What came of a jail. An attempt that got through is known, whatever went wrong besides.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub(super) attempts: Vec<Attempt>,
    /// The first thing that went wrong.
    pub(super) problem: Option<TrialError>,
}

impl Tried {
    fn and(mut self, next: Result<(), TrialError>) -> Self {
        self.problem = self.problem.or(next.err());
        self
    }
}

impl From<TrialError> for Tried {
    fn from(error: TrialError) -> Self {
        Self { attempts: Vec::new(), problem: Some(error) }
    }
}

/// Makes every attempt in a jail of this profile. What runs in it is ended at the deadline; see [`super::SECONDS_MAX`] for how long all of it takes.
pub(super) fn try_out(bench: &Bench<'_>, name: &str, profile: &Profile, deadline: Instant) -> Tried {
    let files = SessionFiles::at(bench.dir.clone());
    if let Err(error) = files.remove() {
        return failed("remove what an earlier self-test has left")(error).into();
    }
    let limits = bench.ground.kept(&roomy(profile.limits));
    let tried = match place(bench, &limits) {
        Ok(place) => {
            let tried = in_place(bench, &files, place.as_ref(), (name, profile, limits), deadline);
            tried.unwrap_or_else(Tried::from).and(place.map_or(Ok(()), |place| Ok(place.clear()?)))
        }
        Err(error) => error.into(),
    };
    tried.and(files.remove().map_err(failed("remove what the self-test has made")))
}

/// The profile's limits, but as much as the canary needs: a profile may be for something smaller.
fn roomy(limits: Limits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes.map(|bytes| bytes.max(256 * 1024 * 1024)),
        pids: limits.pids.map(|pids| pids.max(64)),
        cpu_percent: limits.cpu_percent.map(|percent| percent.max(100)),
        io_bytes_per_second: limits.io_bytes_per_second.map(|bytes| bytes.max(64 * 1024 * 1024)),
        ..limits
    }
}

fn place(bench: &Bench<'_>, limits: &Limits) -> Result<Option<Place>, TrialError> {
    let session = SessionId::generate();
    match bench.cgroups.make(session, limits) {
        Err(_) if bench.limiting == Limiting::IfGiven => {
            bench.cgroups.clear(session)?;
            Ok(bench.cgroups.make(session, &Limits::default())?)
        }
        other => Ok(other?),
    }
}

fn in_place(
    bench: &Bench<'_>,
    files: &SessionFiles,
    place: Option<&Place>,
    (name, profile, limits): (&str, &Profile, Limits),
    deadline: Instant,
) -> Result<Tried, TrialError> {
    let prepare = failed("make a place for the self-test");
    let spawn = files.spawn(1);
    files.create().and_then(|()| spawn.create()).map_err(&prepare)?;
    let disk = storage(bench, files, &limits)?;
    let host = Host::listen(&bench.dir).map_err(&prepare)?;
    let sandbox = sandbox(name, profile, limits);
    let mut plan = plan_of(bench, (files, disk.as_ref()), &sandbox, &host)?;
    plan.cgroup = place.map(Place::step).unwrap_or_default();
    let start = ShimStart {
        session: SessionId::generate(),
        spawn: 1,
        size: WindowSize::DEFAULT,
        journal_bytes_max: JOURNAL_BYTES_MAX,
        plan,
    };
    let with = launch::With { place, disk: disk.as_ref(), patience: None };
    let ran = run(bench, &spawn, &start, with, &host, deadline);
    let workspace = disk.as_ref().map_or_else(|| files.workspace(), |disk| disk.dir(DiskDir::Workspace));
    let reported = report(&workspace.join(canary::REPORT)).unwrap_or_default();
    // Where nothing ran there is nothing to miss.
    let attempts = if ran.is_err() && reported.is_empty() { Vec::new() } else { whole(reported) };
    Ok(Tried { attempts, problem: ran.err() })
}

/// HOME and workspace, as a session has them: on a disk, a small one, where those of the profile have one here.
fn storage(bench: &Bench<'_>, files: &SessionFiles, limits: &Limits) -> Result<Option<Disk>, TrialError> {
    let prepare = failed("make a place for the self-test");
    let agent = plan::uid_base(SELF_TEST_SLOT) + AGENT_ID;
    if limits.disk_bytes.is_some() {
        let (image, abort) = (files.disk(), Abort::default());
        Disk::make(&image, DISK_BYTES_MIN, Some(agent), &abort)?;
        let disk = Disk::open(&image, &abort)?;
        disk.begin(agent).map_err(&prepare)?;
        return Ok(Some(disk));
    }
    files.create_dirs().map_err(&prepare)?;
    if bench.ground.isolation == Isolation::Root {
        let agent = Some(agent);
        lchown(files.home(), agent, agent).and_then(|()| lchown(files.workspace(), agent, agent)).map_err(&prepare)?;
    }
    Ok(None)
}

/// As sessions of the profile have it, without directories of the host and models.
fn sandbox(name: &str, profile: &Profile, limits: Limits) -> Sandbox {
    let listeners = if profile.network == NetworkMode::Filtered {
        vec![Listener { port: PROXY_PORT, model: None }]
    } else {
        Vec::new()
    };
    Sandbox {
        profile: name.to_owned(),
        debuggers: profile.debuggers,
        network: profile.network,
        listeners,
        mounts: Vec::new(),
        limits,
        degraded: Vec::new(),
    }
}

fn plan_of(
    bench: &Bench<'_>,
    (files, disk): (&SessionFiles, Option<&Disk>),
    sandbox: &Sandbox,
    host: &Host,
) -> Result<JailPlan, TrialError> {
    let prepare = failed("make a place for the self-test");
    let own = |dir: PathBuf| workspace::own(&dir).map_err(&prepare);
    let dirs = if disk.is_some() { None } else { Some((own(files.home())?, own(files.workspace())?)) };
    let (home, workspace) = match &dirs {
        None => (Source::Disk(DiskDir::Home), Source::Disk(DiskDir::Workspace)),
        Some((home, workspace)) => (Source::Host(home), Source::Host(workspace)),
    };
    let mut plan = plan::plan(PlanInput {
        isolation: bench.ground.isolation,
        ids: bench.ground.ids(),
        sandbox,
        egress_env: &[],
        landlock: bench.ground.landlock(),
        cgroup: CgroupStep::default(),
        exposure: bench.exposure,
        slot: SELF_TEST_SLOT,
        home,
        workspace,
        foreign_workspace: false,
        argv: Vec::new(),
        agent_env: &BTreeMap::new(),
        session_env: &BTreeMap::new(),
    })?;
    let aims =
        Aims { own_network: plan.has(Namespace::Network), own_users: plan.has(Namespace::User), ..host.aims.clone() };
    let aims = serde_json::to_string(&aims).map_err(io::Error::from).map_err(&prepare)?;
    plan.exec.argv = vec![PROGRAM.to_owned(), canary::COMMAND.to_owned(), aims];
    plan.mounts.push(program().map_err(&prepare)?);
    Ok(plan)
}

/// This very program, which the canary is a part of.
fn program() -> io::Result<MountStep> {
    let source = std::env::current_exe()?;
    let found = source.metadata()?;
    Ok(MountStep::Bind {
        source: source.display().to_string(),
        target: PROGRAM.to_owned(),
        read_only: true,
        identity: Some(FileIdentity { dev: found.dev(), ino: found.ino() }),
        idmap: None,
    })
}

/// Runs the canary to its end, or ends it.
fn run(
    bench: &Bench<'_>,
    spawn: &SpawnFiles,
    start: &ShimStart,
    with: launch::With<'_>,
    host: &Host,
    deadline: Instant,
) -> Result<(), TrialError> {
    let with = launch::With { patience: Some(until(deadline)), ..with };
    let (started, mut shim) = launch::launch(bench.shim, spawn, start, with, &Abort::default())?;
    let init_pid = match started {
        ShimStarted::Executed { init_pid } => init_pid,
        ShimStarted::Failed { exit } => return Err(TrialError::Jail(exit.detail)),
        ShimStarted::Born { .. } => return Err(TrialError::Jail("the shim has said too little".to_owned())),
    };
    let wait = failed("wait for the self-test");
    // It may be over already.
    let init = sys::pidfd_open(init_pid).ok();
    let attended = attend(&shim, host, deadline);
    // Ours, not reaped: nobody else can have its pid. Init ends with it, and everything in the jail with init.
    let _gone = shim.kill();
    let _status = shim.wait();
    attended.map_err(&wait)?;
    let gone = init.map_or(Ok(true), |init| is_over(&init, &[], INIT_GONE)).map_err(&wait)?;
    // With groups, what is left is killed by them.
    if gone || with.place.is_some() { Ok(()) } else { Err(TrialError::Left) }
}

/// Waits until the shim is over, at most until the deadline.
fn attend(shim: &Child, host: &Host, deadline: Instant) -> io::Result<()> {
    let shim = sys::pidfd_open(i32::try_from(shim.id()).map_err(io::Error::other)?)?;
    while !is_over(&shim, &host.doors(), until(deadline))? {
        host.greet();
        if until(deadline).is_zero() {
            break;
        }
    }
    Ok(())
}

/// Whether a process is over; returns sooner if somebody comes.
fn is_over(process: &OwnedFd, others: &[std::os::fd::BorrowedFd<'_>], longest: Duration) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = std::iter::once(process.as_fd())
        .chain(others.iter().copied())
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut fds, PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX)) {
        Ok(_) => Ok(fds.first().is_some_and(|fd| fd.any() == Some(true))),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What the canary has written. It lies where the canary could make whatever it likes.
fn report(path: &Path) -> io::Result<Vec<Attempt>> {
    let text = String::from_utf8(read_foreign(path, REPORT_BYTES_MAX)?).map_err(io::Error::other)?;
    // One that was cut short is as if it were not there.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Every attempt there is, in order: what was not reported is unclear.
fn whole(reported: Vec<Attempt>) -> Vec<Attempt> {
    let found = |name: &str| reported.iter().find(|attempt| attempt.name == name).cloned();
    let missing =
        |name: &str| Attempt { name: name.to_owned(), outcome: Outcome::Unclear, effect: "not come to".to_owned() };
    canary::names().map(|name| found(name).unwrap_or_else(|| missing(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_canary_did_not_come_to_is_unclear() {
        let first = canary::names().next().unwrap();
        let told = Attempt { name: first.to_owned(), outcome: Outcome::Refused, effect: "EPERM".to_owned() };
        let all = whole(vec![told.clone()]);
        assert_eq!(all.first(), Some(&told));
        assert_eq!(all.len(), canary::names().count());
        assert!(all.iter().skip(1).all(|attempt| attempt.outcome == Outcome::Unclear));
    }

    #[test]
    fn what_got_through_is_kept_whatever_goes_wrong_afterwards() {
        let open = Attempt { name: "a".to_owned(), outcome: Outcome::Open, effect: String::new() };
        let tried = Tried { attempts: vec![open.clone()], problem: None };
        let tried = tried.and(Ok(())).and(Err(TrialError::Left)).and(Err(TrialError::Jail("later".to_owned())));
        assert_eq!(tried.attempts, [open]);
        assert!(matches!(tried.problem, Some(TrialError::Left)));
    }

    #[test]
    fn no_two_attempts_have_one_name() {
        let names: std::collections::BTreeSet<&str> = canary::names().collect();
        assert_eq!(names.len(), canary::names().count());
        assert!(names.len() >= 60, "{}", names.len());
    }
}
