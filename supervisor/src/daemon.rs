//! The daemon: builds its parts, adopts what runs, serves, and ends in order, leaving the sessions running.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::runtime::{OnEnd, TaskGroup, exit_with_parent, init_telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::RunOptions;
use crate::context::{Context, Reaper};
use crate::outbox::Outbox;
use crate::registry::Registry;
use crate::shim_client::ReadBuffer;
use crate::slots::Slots;
use crate::uplink::LinkSender;
use crate::versions::Versions;
use crate::{chain, control, files, host, link, questions};

/// Tasks have this long to end.
const DRAIN: Duration = Duration::from_secs(5);

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
    #[error("another supervisor runs with this state directory")]
    Locked,
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] crate::outbox::OutboxError),
    /// A root directory that cannot be one.
    #[error("workspace root {0} must be an absolute path of a directory")]
    WorkspaceRoot(String),
}

/// Runs the daemon until a signal ends it.
pub(crate) fn run(options: &RunOptions) -> ExitCode {
    init_telemetry(&options.log, options.log_format.into());
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = chain(&failure), "supervisor ends");
            ExitCode::FAILURE
        }
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
    // One thread: sessions are mostly idle, and a wake-up across threads costs more than the work.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup("start the runtime"))?;
    runtime.block_on(serve(options, state_dir))
}

/// Two supervisors on one directory would adopt each other's shims.
fn lock(state_dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, DaemonError> {
    let file = std::fs::File::create(state_dir.join("lock"))
        .map_err(|source| DaemonError::Setup { what: "make the lock file", source })?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| DaemonError::Locked)
}

async fn serve(options: &RunOptions, state_dir: PathBuf) -> Result<(), DaemonError> {
    let context = build(options, state_dir)?;
    let setup = |what| move |source| DaemonError::Setup { what, source };
    let mut children = signal(SignalKind::child()).map_err(setup("watch for ended shims"))?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate()).map_err(setup("handle SIGTERM"))?,
        signal(SignalKind::interrupt()).map_err(setup("handle SIGINT"))?,
    );
    let registry = Registry::new(Arc::clone(&context));
    let sessions = registry.restore().await.map_err(setup("read the sessions"))?;
    let control = control::listen(&context.state_dir).map_err(setup("make the control socket"))?;
    let tasks = context.tasks.clone();
    tasks.spawn("control", OnEnd::Shutdown, control::serve(Arc::clone(&registry), control));
    tasks.spawn("versions", OnEnd::Continue, questions::run(Arc::clone(&context)));
    tasks.spawn("link", OnEnd::Shutdown, link::run(registry, options.credential_file.clone()));
    announce(sessions).map_err(setup("say that it is ready"))?;
    info!(sessions, isolation = context.isolation.as_str(), "supervisor ready");
    let cancelled = tasks.cancelled();
    loop {
        tokio::select! {
            _ = children.recv() => context.reaper.reap(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = cancelled.cancelled() => break,
        }
    }
    info!("supervisor ends; sessions go on");
    tasks.shutdown();
    if !tasks.drain(DRAIN).await {
        warn!("some tasks did not end in time");
    }
    Ok(())
}

fn build(options: &RunOptions, state_dir: PathBuf) -> Result<Arc<Context>, DaemonError> {
    let probe = host::probe();
    if let Some((problem, remedy)) = &probe.problem {
        warn!(problem, remedy, unsafe_no_jail = options.unsafe_no_jail, "this host cannot isolate sessions");
    }
    let setup = |what| move |source| DaemonError::Setup { what, source };
    // Absolute: it is run with another working directory.
    let shim = match &options.shim {
        Some(shim) => std::path::absolute(shim).map_err(setup("find the shim"))?,
        None => std::env::current_exe().map_err(setup("find this program"))?.with_file_name("agentapi-shim"),
    };
    let mut exposure = options.exposure.clone();
    for root in &mut exposure.workspace_roots {
        let resolved = root.canonicalize().ok().filter(|path| root.is_absolute() && path.is_dir());
        *root = resolved.ok_or_else(|| DaemonError::WorkspaceRoot(root.display().to_string()))?;
    }
    Ok(Arc::new(Context {
        versions: Versions::read(&state_dir),
        outbox: Outbox::open(&state_dir.join("outbox.db"))?,
        state_dir,
        shim,
        isolation: probe.isolation,
        unsafe_no_jail: options.unsafe_no_jail,
        exposure,
        journal_bytes_max: options.journal_mb * 1024 * 1024,
        boot_id: host::boot_id(),
        link: LinkSender::default(),
        streams: Arc::default(),
        shim_bytes: ReadBuffer::default(),
        reaper: Reaper::default(),
        slots: Slots::default(),
        tasks: TaskGroup::new(),
    }))
}

/// For whoever started us.
fn announce(sessions: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "ready": true, "sessions": sessions }))?;
    out.flush()
}
