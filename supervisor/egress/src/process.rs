//! From the command line to a process that has nothing but its sockets: no privileges, no core, no ties to who started it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use agentapi_shared::runtime::{LogFormat, init_telemetry};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chdir, geteuid, setgroups, setresgid, setresuid, setsid};
use rustls::{ClientConfig, RootCertStore};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::Args;
use crate::descriptors::Descriptors;
use crate::gateway::{Gateway, Shared};
use crate::guard::Guard;
use crate::lanes::Lanes;
use crate::{chain, control, sys};

/// Descriptors: two sockets a tunnel, and two ends of a pipe while it is busy. Enough for tens of thousands of tunnels of all sessions.
const NOFILE: u64 = 262_144;
/// Threads that move bytes: TLS of one session is not to hold up all others, and more than a few are for no host.
const LANES_MAX: usize = 4;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// Something at the edge of the process.
    #[error("cannot {what}")]
    Setup { what: &'static str, source: io::Error },
    /// TLS.
    #[error("cannot set TLS up")]
    Tls(#[from] rustls::Error),
    /// A capability is left.
    #[error("could not give up all privileges: {0}")]
    Privileged(&'static str),
}

fn setup<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::Setup { what, source: source.into() }
}

/// Runs the gateway until it has retired or is ended.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    init_telemetry(&args.log, LogFormat::Text);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = chain(&failure), "gateway ends");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), StartError> {
    sys::limit_malloc_arenas();
    sys::search_no_domains();
    // Of a session of its own, and deaf to what ends daemons with their terminal: it outlives who started it.
    let _already_leader = setsid();
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGPIPE] {
        sys::ignore_signal(number);
    }
    // The supervisor may be protected from the kernel's choice for want of memory; what sessions make busy is not.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "0") {
        warn!(%error, "the score for want of memory stays as it was inherited");
    }
    let socket = control::make(&args.socket).map_err(setup("make the socket"))?;
    chdir("/").map_err(setup("leave the working directory"))?;
    let descriptors = raise_limits();
    let started_by = geteuid();
    // Read with the rights of who started it; from here on there are none.
    let tls = tls()?;
    give_up_privileges(args, started_by)?;
    // The supervisor is heard on this thread, whatever sessions do on theirs.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup("start the runtime"))?;
    let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX);
    let lanes = Lanes::start(lanes - 1).map_err(setup("start the threads of sessions"))?;
    let shared = Shared::new(Guard::new(args.allow_addresses.clone()), tls, descriptors);
    let gateway = Arc::new(Gateway::new(shared, lanes));
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        announce()?;
        info!(uid = geteuid().as_raw(), "gateway ready");
        tokio::select! {
            served = control::serve(gateway, socket, started_by, &args.configuration) => served,
            _ = terminate.recv() => Ok(()),
        }
    });
    info!("gateway ends");
    served.map_err(setup("serve the supervisor"))
}

/// As many descriptors as may be, and no core: it would hold keys.
fn raise_limits() -> Descriptors {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        warn!(%error, "cores could not be forbidden");
    }
    if setrlimit(Resource::RLIMIT_NOFILE, NOFILE, NOFILE).is_ok() {
        return Descriptors::of(NOFILE);
    }
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(NOFILE), hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of descriptors could not be raised");
    }
    Descriptors::of(getrlimit(Resource::RLIMIT_NOFILE).map_or(NOFILE, |(soft, _)| soft))
}

/// Becomes the gateway's own user, if it was root, and lets go of everything a program could gain by.
fn give_up_privileges(args: &Args, started_by: Uid) -> Result<(), StartError> {
    if started_by.is_root() {
        let (uid, gid) = (Uid::from_raw(args.uid), Gid::from_raw(args.gid));
        sys::drop_bounding_set().map_err(setup("empty the bounding set"))?;
        setgroups(&[]).map_err(setup("leave all groups"))?;
        setresgid(gid, gid, gid).map_err(setup("change the group"))?;
        setresuid(uid, uid, uid).map_err(setup("change the user"))?;
    }
    sys::drop_all_capabilities().map_err(setup("drop all capabilities"))?;
    prctl::set_no_new_privs().map_err(setup("refuse new privileges"))?;
    // After the change of user, which would set it anew.
    prctl::set_dumpable(false).map_err(setup("keep memory to itself"))?;
    let status = std::fs::read_to_string("/proc/thread-self/status").map_err(setup("look at itself"))?;
    let empty = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        line.is_some_and(|bits| bits.trim().bytes().all(|bit| bit == b'0'))
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        if !empty(set) {
            return Err(StartError::Privileged(set));
        }
    }
    if started_by.is_root() && (geteuid().is_root() || !empty("CapBnd")) {
        return Err(StartError::Privileged("CapBnd"));
    }
    Ok(())
}

/// As this host trusts; `SSL_CERT_FILE` names other authorities.
fn tls() -> Result<ClientConfig, StartError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "some certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        // Tunnels need none: what is in them is between their ends.
        warn!("this host trusts no certificate authority, so no model listener will work: install ca-certificates");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// For whoever started us.
fn announce() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "ready": true }))?;
    out.flush()
}
