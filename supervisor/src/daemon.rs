//! The daemon: builds its parts, adopts what runs, serves, and ends in order, leaving the sessions running.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentapi_shared::runtime::{Notice, OnEnd, TaskGroup, exit_with_parent, init_telemetry, notify_manager};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::cgroup::Cgroups;
use crate::config::RunOptions;
use crate::context::{Context, Reaper};
use crate::gateway::{Broker, Gateway, Orders, Place, Taken};
use crate::host::{Ground, Isolation};
use crate::launch::program;
use crate::outbox::Outbox;
use crate::private::Private;
use crate::registry::Registry;
use crate::self_test::{self, Bench, Limiting, SelfTest, Standing};
use crate::session::blocking;
use crate::shim_client::ReadBuffer;
use crate::slots::Slots;
use crate::uplink::LinkSender;
use crate::versions::Versions;
use crate::{chain, control, files, link, plan, questions};

/// Tasks have this long to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Work that blocks has this long beyond that. Making a disk or mending one may take longer: its program goes on without us, and the next supervisor
/// finds the start cut off, as after a crash.
const WORK_DRAIN: Duration = Duration::from_secs(1);

/// A self-test without a result is done again after this long: often enough for a host that is starting, rare enough for one that stays like that.
const SELF_TEST_AGAIN: Duration = Duration::from_secs(30);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Something at the edge of the process.
    #[error("cannot {what}")]
    Setup { what: &'static str, source: io::Error },
    /// The parent is gone.
    #[error(transparent)]
    Parent(#[from] agentapi_shared::runtime::ParentGone),
    /// Another supervisor has this state directory.
    #[error(
        "another supervisor runs with this state directory: end that one, or give this one a directory of its own with --state-dir"
    )]
    Locked,
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] crate::outbox::OutboxError),
    /// The operator's settings.
    #[error(transparent)]
    Settings(#[from] crate::settings::SettingsError),
    /// A root directory that cannot be one.
    #[error("workspace root {0} must be an absolute path of a directory")]
    WorkspaceRoot(String),
    /// Ids of sessions that are somebody else's.
    #[error(transparent)]
    Accounts(#[from] crate::accounts::AccountsError),
    /// Our data where every session looks.
    #[error("{0}")]
    Shown(String),
    /// A directory for all sessions that holds what none may see.
    #[error("--read-only-path: {0}")]
    ReadOnlyPath(String),
}

/// Runs the daemon until a signal ends it.
pub(crate) fn run(options: &RunOptions) -> ExitCode {
    if options.check_config {
        return check_config(options);
    }
    init_telemetry(&options.log, options.log_format.into());
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = chain(&failure), "supervisor ends");
            ExitCode::FAILURE
        }
    }
}

/// 0: sound; 1: not, with every mistake on standard output.
fn check_config(options: &RunOptions) -> ExitCode {
    let (words, code) = match options.policy.settings() {
        Ok(_) => ("the settings are sound".to_owned(), ExitCode::SUCCESS),
        Err(error) => (chain(&error), ExitCode::FAILURE),
    };
    match writeln!(io::stdout().lock(), "{words}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn start(options: &RunOptions) -> Result<(), DaemonError> {
    if let Some(parent) = options.exit_with_parent {
        exit_with_parent(parent)?;
    }
    let setup = |what| move |source| DaemonError::Setup { what, source };
    files::private_dir(&options.state_dir).map_err(setup("make the state directory"))?;
    let state_dir = options.state_dir.canonicalize().map_err(setup("find the state directory"))?;
    let _lock = lock(&state_dir)?;
    files::remove_tried(&state_dir).map_err(setup("read the state directory"))?;
    // One thread: sessions are mostly idle, and a wake-up across threads costs more than the work.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup("start the runtime"))?;
    let cgroups = Cgroups::open(&state_dir);
    let ended = runtime.block_on(serve(options, state_dir, cgroups.clone()));
    runtime.shutdown_timeout(WORK_DRAIN);
    // Also after a start that came to nothing: another directory may have this one's number one day.
    cgroups.close();
    ended
}

/// Two supervisors on one directory would adopt each other's shims.
/// A supervisor that was killed while it started a program leaves its lock to the child until that has executed: far less than this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "nothing else goes on yet, there is no runtime")]
fn lock(state_dir: &Path) -> Result<Flock<std::fs::File>, DaemonError> {
    let mut file = std::fs::File::create(state_dir.join("lock"))
        .map_err(|source| DaemonError::Setup { what: "make the lock file", source })?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _)) if Instant::now() < deadline => file,
            Err(_) => return Err(DaemonError::Locked),
        };
        std::thread::sleep(LOCK_PAUSE);
    }
}

async fn serve(options: &RunOptions, state_dir: PathBuf, cgroups: Cgroups) -> Result<(), DaemonError> {
    let (gateway, orders) = Gateway::new();
    let context = build(options, state_dir, cgroups, gateway)?;
    let setup = |what| move |source| DaemonError::Setup { what, source };
    let mut children = signal(SignalKind::child()).map_err(setup("watch for ended shims"))?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate()).map_err(setup("handle SIGTERM"))?,
        signal(SignalKind::interrupt()).map_err(setup("handle SIGINT"))?,
    );
    let registry = Registry::new(Arc::clone(&context));
    // Before the sessions: those that live ask to be served.
    serve_egress(&context, options, orders).map_err(setup("find the egress gateway"))?;
    let adoptions = registry.restore().await.map_err(setup("read the sessions"))?;
    let sessions = registry.running();
    settle_egress(&context, adoptions);
    sweep_groups(&context).await.map_err(setup("look for what a crash has left"))?;
    remove_leftovers(&context).map_err(setup("start a thread"))?;
    // Before anybody can ask for a session. Those that run go on, whatever comes of it.
    let sandbox = test_sandbox(&context).await;
    let control = control::listen(&context.state_dir).map_err(setup("make the control socket"))?;
    let tasks = context.tasks.clone();
    tasks.spawn("control", OnEnd::Shutdown, control::serve(Arc::clone(&registry), control));
    if matches!(sandbox, Standing::Unclear(_)) {
        tasks.spawn("self-test", OnEnd::Continue, test_again(Arc::clone(&context)));
    }
    tasks.spawn("versions", OnEnd::Continue, questions::run(Arc::clone(&context)));
    tasks.spawn("link", OnEnd::Shutdown, link::run(registry, options.credential_file.clone().unwrap_or_default()));
    announce(sessions).map_err(setup("say that it is ready"))?;
    let degraded = crate::posture::words(&context.ground.missing);
    info!(sessions, isolation = context.ground.isolation.as_str(), ?degraded, ?sandbox, "supervisor ready");
    let cancelled = tasks.cancelled();
    loop {
        tokio::select! {
            _ = children.recv() => context.reaper.reap(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = cancelled.cancelled() => break,
        }
    }
    notify_manager(Notice::Stopping);
    info!("supervisor ends; sessions go on");
    tasks.shutdown();
    if !tasks.drain(DRAIN).await {
        warn!("some tasks did not end in time");
    }
    Ok(())
}

/// Ends what is left in groups of sessions that are gone. A session that is on disk ends what its spawn has left by itself, once it knows that its
/// shim is over: one that is slow to answer, or whose record cannot be read, may live.
async fn sweep_groups(context: &Context) -> io::Result<()> {
    let (cgroups, state_dir) = (context.cgroups.clone(), context.state_dir.clone());
    blocking(move || {
        cgroups.sweep(&files::sessions(&state_dir)?);
        Ok(())
    })
    .await
}

/// Finds out whether the sandbox holds. If it does not, sessions are refused, and this host says so wherever it is asked.
async fn test_sandbox(context: &Arc<Context>) -> Standing {
    let of = Arc::clone(context);
    let test = move || {
        let bench = Bench {
            shim: &of.shim,
            cgroups: &of.cgroups,
            limiting: Limiting::Profile,
            ground: &of.ground,
            exposure: &of.exposure,
            dir: of.state_dir.join("self-test"),
        };
        Ok(self_test::stand(&bench, &of.settings, &of.state_dir))
    };
    let standing = blocking(test).await.unwrap_or_else(|error| Standing::Unclear(error.to_string()));
    match &standing {
        Standing::Broken(what) => error!(what, "the sandbox did not hold in its self-test: sessions are refused"),
        Standing::Unclear(why) => error!(why, "the self-test did not come to its end: sessions are refused"),
        Standing::Untested | Standing::NoSandbox | Standing::Holds => {}
    }
    context.self_test.set(standing.clone());
    standing
}

/// A host that was too busy, or short of something, may have it later. One whose sandbox is broken has to be looked at by somebody.
async fn test_again(context: Arc<Context>) {
    let cancelled = context.tasks.cancelled();
    let again = async {
        loop {
            tokio::time::sleep(SELF_TEST_AGAIN).await;
            if !matches!(test_sandbox(&context).await, Standing::Unclear(_)) {
                return;
            }
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = again => {}
    }
}

/// Beside everything else, and not waited for: the next start finds what this one did not come to.
fn remove_leftovers(context: &Context) -> io::Result<()> {
    let state_dir = context.state_dir.clone();
    let work = move || {
        if let Err(error) = files::remove_leftovers(&state_dir) {
            warn!(%error, "what purges have left cannot be looked for");
        }
    };
    std::thread::Builder::new().name("leftovers".to_owned()).spawn(work).map(drop)
}

fn build(
    options: &RunOptions,
    state_dir: PathBuf,
    cgroups: Cgroups,
    gateway: Gateway,
) -> Result<Arc<Context>, DaemonError> {
    let settings = options.policy.settings()?;
    let ground = Ground::probe(&cgroups, &settings, &state_dir);
    if let (Some((problem, remedy)), Isolation::None) = (&ground.problem, ground.isolation) {
        warn!(problem, remedy, unsafe_no_jail = options.unsafe_no_jail, "this host cannot isolate sessions");
    }
    if let (Some(reason), Isolation::Root) = (&ground.no_disk, ground.isolation) {
        warn!(
            reason,
            "no session can have a disk of its own: mend that, and restart the supervisor, which looks once, when it is started"
        );
    }
    if ground.isolation == Isolation::Root {
        crate::accounts::check(Path::new("/etc"))?;
    }
    let setup = |what| move |source| DaemonError::Setup { what, source };
    let shim = program(options.shim.as_deref(), "agentapi-shim").map_err(setup("find the shim"))?;
    let mut exposure = options.exposure.clone();
    for root in &mut exposure.workspace_roots {
        let resolved = root.canonicalize().ok().filter(|path| root.is_absolute() && path.is_dir());
        *root = resolved.ok_or_else(|| DaemonError::WorkspaceRoot(root.display().to_string()))?;
    }
    let key_files = settings.models.values().map(crate::settings::Model::key_file);
    let private = Private::new(&state_dir, options.credential_file.as_deref(), key_files);
    if ground.isolation != Isolation::None
        && let Some(reason) = plan::system_paths().find_map(|dir| private.reason_in_system(&dir))
    {
        return Err(DaemonError::Shown(reason));
    }
    for path in &exposure.read_only_paths {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(reason) = private.reason(&real) {
            return Err(DaemonError::ReadOnlyPath(reason));
        }
    }
    Ok(Arc::new(Context {
        versions: Versions::read(&state_dir),
        outbox: Outbox::open(&state_dir.join("outbox.db"))?,
        gateway,
        state_dir,
        shim,
        settings,
        ground,
        self_test: SelfTest::default(),
        cgroups,
        unsafe_no_jail: options.unsafe_no_jail,
        exposure,
        private,
        journal_bytes_max: options.journal_mb * 1024 * 1024,
        boot_id: crate::host::boot_id(),
        link: LinkSender::default(),
        streams: Arc::default(),
        shim_bytes: ReadBuffer::default(),
        reaper: Reaper::default(),
        slots: Slots::default(),
        tasks: TaskGroup::new(),
    }))
}

/// Starts the broker of the egress gateway.
fn serve_egress(context: &Arc<Context>, options: &RunOptions, orders: Orders) -> io::Result<()> {
    let reaping = Arc::clone(context);
    let place = Place {
        dir: context.state_dir.join("gateway"),
        program: program(options.egress.as_deref(), "agentapi-egress")?,
        allow_addresses: options.egress_allow_addresses.iter().map(ToString::to_string).collect(),
        keep: Arc::new(move |child| reaping.reaper.keep(child)),
    };
    let storing = Arc::clone(context);
    let sink = move |taken: Taken| -> futures_util::future::BoxFuture<'static, _> {
        let context = Arc::clone(&storing);
        // It waits for the disk, and keystrokes do not.
        let store = move || context.outbox.egress(taken.decisions, taken.dropped);
        Box::pin(async move { Ok(tokio::task::spawn_blocking(store).await??) })
    };
    let broker = Broker::new(place, Box::new(sink));
    context.tasks.spawn("gateway", OnEnd::Shutdown, broker.run(orders, context.tasks.cancelled()));
    Ok(())
}

/// Tells the gateway that the sessions which asked are all there are, once every shim that lives has answered or ended. Until then it serves on what
/// it finds itself serving.
fn settle_egress(context: &Context, adoptions: tokio::task::JoinSet<()>) {
    let (gateway, cancelled) = (context.gateway.clone(), context.tasks.cancelled());
    context.tasks.spawn("adoptions", OnEnd::Continue, async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            _ = adoptions.join_all() => gateway.settled().await,
        }
    });
}

/// For whoever started us: a line, and a word to the service manager.
fn announce(sessions: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "ready": true, "sessions": sessions }))?;
    out.flush()?;
    notify_manager(Notice::Ready);
    Ok(())
}
