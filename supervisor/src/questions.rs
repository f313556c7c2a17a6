//! Asks each installed agent for its version, once per file.
//!
//! An agent is asked in a jail of its own, as in a session, under limits, and only where a session could start: the supervisor never runs one beside
//! itself. One that comes or goes while the
//! supervisor runs is noticed by the directories that sessions look programs up in; nothing is done while they do not change.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::agent::{self, AgentManifest};
use agentapi_shared::api::{Limits, NetworkMode};
use agentapi_shared::jail::{AGENT_ID, CgroupStep};
use agentapi_shared::runtime::TaskGroup;
use agentapi_shared::shim::{ShimRequest, ShimStart, ShimStarted};
use agentapi_shared::{SessionId, WindowSize};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::abort::Abort;
use crate::cgroup::Place;
use crate::context::Context;
use crate::files::{SessionFiles, SpawnFiles};
use crate::host::Isolation;
use crate::plan::{self, PlanInput, Source};
use crate::sandbox::Sandbox;
use crate::session::blocking;
use crate::shim_client::{ShimClient, ShimEnd, ShimHello};
use crate::slots::PROBE_SLOT;
use crate::versions::{Answer, Stamp};
use crate::{agents, chain, launch, posture, settle, shim_client, workspace};

/// An agent that has not said its version by then has none: the slowest takes seconds on a loaded machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a question may use: the largest agents take some 300 MB and a dozen threads to say their version.
const LIMITS: Limits = Limits {
    memory_bytes: Some(2 * 1024 * 1024 * 1024),
    pids: Some(256),
    cpu_percent: Some(200),
    disk_bytes: None,
    io_bytes_per_second: None,
};
/// What is shown of an answer, in characters.
const VERSION_CHARS_MAX: usize = 80;
/// Journal of a question; the answer is one line.
const JOURNAL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// An installation writes many files: looked at once none has come for this long.
const SETTLE: Duration = Duration::from_secs(2);
/// Read at once of what the kernel tells about directories: more than one event with the longest name.
const EVENT_BYTES: usize = 4096;
/// The terminal in which it is asked: wide enough for a line of [`VERSION_CHARS_MAX`].
const SIZE: (u16, u16) = (200, 24);

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    /// Its throwaway session could not be made or read.
    #[error("cannot {what}")]
    Files { what: &'static str, source: io::Error },
    /// The shim did not start.
    #[error(transparent)]
    Launch(io::Error),
}

/// Asks whoever was not asked yet, now and whenever programs come or go.
pub(crate) async fn run(context: Arc<Context>) {
    let cancelled = context.tasks.cancelled();
    let mut told = agents::facts(&context.exposure, &context.versions);
    // Watched before the first look, so that nothing comes in between.
    let watched = watch_programs(&context);
    let work = async {
        // Before that no program is run here, and perhaps never.
        context.self_test.passed().await;
        loop {
            ask_all(&context).await;
            let facts = agents::facts(&context.exposure, &context.versions);
            if facts != told {
                told = facts;
                context.versions.tell_change();
            }
            match &watched {
                Ok(watched) => settled(watched).await?,
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        Err::<std::convert::Infallible, _>(error) = work => {
            warn!(%error, "agents that are installed from now on will show after a restart of the supervisor");
        }
    }
}

async fn ask_all(context: &Arc<Context>) {
    // Unjailed it would run as whoever the supervisor is.
    if context.ground.isolation == Isolation::None {
        return;
    }
    let missing = settle::missing(&context.ground, &LIMITS);
    if let Err(refused) = posture::require(missing, &context.settings.allow_degraded) {
        info!(%refused, "agents are not asked for their versions");
        return;
    }
    for manifest in agent::manifests().unwrap_or_default() {
        let Some(path) = agents::installed(&manifest, &context.exposure) else { continue };
        if manifest.version_args.is_empty() || context.versions.known(&path).is_some() {
            continue;
        }
        let Ok(stamp) = Stamp::of(&path) else { continue };
        let version = match ask(context, &manifest).await {
            Ok(version) => version,
            Err(error) => {
                warn!(agent = manifest.name, error = chain(&error), "an agent could not be asked for its version");
                continue;
            }
        };
        info!(agent = manifest.name, version, "agent found");
        if let Err(error) = context.versions.keep(&context.state_dir, path, Answer { stamp, version }) {
            warn!(agent = manifest.name, %error, "an agent's version could not be kept; it will be asked again");
        }
    }
}

/// Runs the agent in a jail until it has answered.
async fn ask(context: &Arc<Context>, manifest: &AgentManifest) -> Result<Option<String>, ProbeError> {
    let failed = |what| move |source| ProbeError::Files { what, source };
    let session = SessionFiles::probe(&context.state_dir);
    let spawn = session.spawn(1);
    let tasks = context.tasks.child();
    // A supervisor that was killed while it asked has left this.
    stop(context, &spawn, &tasks).await;
    remove(&session).await.map_err(failed("remove an earlier question"))?;
    let start = prepare(context, manifest, &session, &spawn).map_err(failed("make a place to ask in"))?;
    let answered = answer(context, &spawn, &tasks, start).await;
    tasks.shutdown();
    if let Err(error) = remove(&session).await {
        warn!(%error, "the place of a question could not be removed");
    }
    answered
}

/// Beside the tasks: an agent may have made many files.
async fn remove(session: &SessionFiles) -> io::Result<()> {
    let session = session.clone();
    blocking(move || session.remove()).await
}

fn prepare(
    context: &Context,
    manifest: &AgentManifest,
    session: &SessionFiles,
    spawn: &SpawnFiles,
) -> io::Result<ShimStart> {
    session.create()?;
    session.create_dirs()?;
    spawn.create()?;
    if context.ground.isolation == Isolation::Root {
        let agent = Some(plan::uid_base(PROBE_SLOT) + AGENT_ID);
        chown(session.home(), agent, agent)?;
        chown(session.workspace(), agent, agent)?;
    }
    let (home, work) = (workspace::own(&session.home())?, workspace::own(&session.workspace())?);
    let plan = plan::plan(PlanInput {
        isolation: context.ground.isolation,
        ids: context.ground.ids(),
        sandbox: &probe_sandbox(context.ground.kept(&LIMITS)),
        egress_env: &[],
        landlock: context.ground.landlock(),
        cgroup: CgroupStep::default(),
        exposure: &context.exposure,
        slot: PROBE_SLOT,
        home: Source::Host(&home),
        workspace: Source::Host(&work),
        foreign_workspace: false,
        argv: manifest.command.iter().take(1).chain(&manifest.version_args).cloned().collect(),
        agent_env: &manifest.env,
        session_env: &BTreeMap::new(),
    })
    .map_err(io::Error::other)?;
    let size = WindowSize::new(SIZE.0, SIZE.1).map_err(io::Error::other)?;
    Ok(ShimStart { session: SessionId::generate(), spawn: 1, size, journal_bytes_max: JOURNAL_BYTES_MAX, plan })
}

/// Saying its version takes no network and no debugger.
fn probe_sandbox(limits: Limits) -> Sandbox {
    Sandbox {
        profile: "probe".to_owned(),
        debuggers: false,
        network: NetworkMode::Off,
        listeners: Vec::new(),
        mounts: Vec::new(),
        limits,
        degraded: Vec::new(),
    }
}

/// Asks in control groups of its own, and ends whatever is left in them.
async fn answer(
    context: &Arc<Context>,
    spawn: &SpawnFiles,
    tasks: &TaskGroup,
    mut start: ShimStart,
) -> Result<Option<String>, ProbeError> {
    let (cgroups, limits, id) = (context.cgroups.clone(), context.ground.kept(&LIMITS), start.session);
    let made = blocking(move || cgroups.make(id, &limits).map_err(io::Error::other)).await;
    let place = made.map_err(ProbeError::Launch)?;
    start.plan.cgroup = place.as_ref().map(Place::step).unwrap_or_default();
    let answered = answer_in(context, spawn, tasks, start, place.clone()).await;
    if let Some(place) = place
        && let Err(error) = blocking(move || place.clear().map_err(io::Error::other)).await
    {
        warn!(%error, "the control groups of a question could not be removed");
    }
    answered
}

async fn answer_in(
    context: &Arc<Context>,
    spawn: &SpawnFiles,
    tasks: &TaskGroup,
    start: ShimStart,
    place: Option<Place>,
) -> Result<Option<String>, ProbeError> {
    let (shim, files) = (context.shim.clone(), spawn.clone());
    let work = move || {
        let with = launch::With { place: place.as_ref(), ..launch::With::default() };
        launch::launch(&shim, &files, &start, with, &Abort::default()).map_err(io::Error::other)
    };
    let (started, child) = blocking(work).await.map_err(ProbeError::Launch)?;
    if let ShimStarted::Executed { .. } = started {
        context.reaper.keep(child);
        if !over(context, spawn, tasks).await {
            stop(context, spawn, tasks).await;
            return Ok(None);
        }
    }
    let failed = |what| move |source| ProbeError::Files { what, source };
    let exit = spawn.exit().map_err(failed("read how the question ended"))?;
    if exit.is_none_or(|(exit, _)| exit.code != Some(0)) {
        debug!("an agent ended without an answer");
        return Ok(None);
    }
    let screen = spawn.final_screen().map_err(failed("read the answer"))?.screen.text;
    Ok(version_in(&screen))
}

/// Waits until the spawn is over; false if it takes too long.
async fn over(context: &Arc<Context>, spawn: &SpawnFiles, tasks: &TaskGroup) -> bool {
    let (told, ended) = oneshot::channel();
    match connect(context, spawn, tasks, told).await {
        Ok(_client) => tokio::time::timeout(ANSWER_TIMEOUT, ended).await.is_ok(),
        // It was faster than we: its record is there.
        Err(_) => true,
    }
}

/// Ends a question that may still be there, at once.
async fn stop(context: &Arc<Context>, spawn: &SpawnFiles, tasks: &TaskGroup) {
    let (told, ended) = oneshot::channel();
    let connected = connect(context, spawn, tasks, told).await;
    if let Ok((shim, _)) = connected {
        let _sent = shim.send(&ShimRequest::Stop { grace_ms: 0, force: true }).await;
        // Killed by the kernel with its jail; one that nevertheless stays has nothing left to run.
        let _over = tokio::time::timeout(SETTLE, ended).await;
    }
}

async fn connect(
    context: &Arc<Context>,
    spawn: &SpawnFiles,
    tasks: &TaskGroup,
    told: oneshot::Sender<ShimEnd>,
) -> std::io::Result<(Arc<ShimClient>, ShimHello)> {
    let (link, streams, scratch) = (context.link.clone(), Arc::clone(&context.streams), context.shim_bytes.clone());
    shim_client::connect(spawn, tasks, link, streams, scratch, told, (SessionId::generate(), 1)).await
}

/// The first line with a digit: programs greet, warn, and then tell their version.
fn version_in(screen: &str) -> Option<String> {
    let line = screen.lines().map(str::trim).find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
    Some(line.chars().take(VERSION_CHARS_MAX).collect())
}

/// Becomes readable when a file comes or goes in a directory of programs. A pipe to tokio: it reads bytes from a descriptor, no more is needed.
fn watch_programs(context: &Context) -> io::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ONLYDIR;
    for dir in plan::program_dirs(&context.exposure) {
        match inotify.add_watch(&dir, events) {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => debug!(dir = %dir.display(), "no such directory of programs"),
            Err(errno) => return Err(errno.into()),
        }
    }
    pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)
}

/// Waits for a change, and until no more come.
async fn settled(watched: &pipe::Receiver) -> io::Result<()> {
    changed(watched).await?;
    while let Ok(changed) = tokio::time::timeout(SETTLE, changed(watched)).await {
        changed?;
    }
    Ok(())
}

async fn changed(watched: &pipe::Receiver) -> io::Result<()> {
    // What changed does not matter: everything is looked at again.
    let mut events = vec![0; EVENT_BYTES];
    loop {
        watched.readable().await?;
        match watched.try_read(&mut events) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_line_with_a_digit() {
        assert_eq!(version_in("\n\n  2.1.330 (Claude Code)  \n"), Some("2.1.330 (Claude Code)".to_owned()));
        assert_eq!(version_in("WARNING: no home\ncodex-cli 0.169.0\n"), Some("codex-cli 0.169.0".to_owned()));
        assert_eq!(version_in("usage: droid\n"), None);
        assert_eq!(version_in(&"1".repeat(500)).map(|version| version.len()), Some(VERSION_CHARS_MAX));
    }
}
