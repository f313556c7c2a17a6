//! What the walls cost: a start with every layer on beside bubblewrap's full unshare, and the time until a stopped session is empty.
//!
//! Both sandboxes are watched in the same way from outside: the kernel tells (inotify) when the program that makes the sandbox is opened for its
//! exec, and when the program inside is. Nothing in the product measures itself.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agentapi_shared::api::Session;
use agentapi_tests::process::binary;
use agentapi_tests::product::Product;
use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use reqwest::Method;
use serde_json::json;

use crate::Options;
use crate::processes::{Process, children};
use crate::stats::{Samples, Table};
use crate::throughput::remove;

/// Ends at once; a copy of its own, so that nobody else executes it.
const PROGRAM: &str = "/usr/local/bin/agentapi-bench-true";
/// The peer, from Debian's package.
const BUBBLEWRAP: &str = "/usr/bin/bwrap";
/// Nothing starts slower than this, under any load that still lets one measure.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a process that is about to end.
const LOOK: Duration = Duration::from_micros(100);
/// Deaf to everything but SIGKILL, and as many as the bar says.
const DEAF: &str = "trap '' HUP TERM INT; for i in $(seq COUNT); do sleep 3600 & done; echo up; while :; do wait; done";

/// Runs the part.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let _program = Program::install()?;
    let hybrid = Product::start().await?;
    stop(options, &hybrid).await?;
    steady(options, &hybrid).await?;
    // From here on this thread, and with it bubblewrap and the second product, sees no control groups.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
    let bare = Product::start().await?;
    start(options, &hybrid, &bare).await
}

/// The program that is executed inside.
struct Program;

impl Program {
    fn install() -> Result<Self> {
        std::fs::copy("/usr/bin/true", PROGRAM)?;
        Ok(Self)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(PROGRAM);
    }
}

/// Sees programs begin.
struct Watch {
    inotify: Inotify,
    makers: Vec<WatchDescriptor>,
    program: WatchDescriptor,
}

impl Watch {
    fn new(makers: &[PathBuf]) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let watch = |path: &Path| inotify.add_watch(path, AddWatchFlags::IN_OPEN);
        let makers = makers.iter().map(|path| watch(path)).collect::<Result<_, _>>()?;
        let program = watch(Path::new(PROGRAM))?;
        Ok(Self { inotify, makers, program })
    }

    /// When a maker was executed, and when the program was.
    fn next(&self) -> Result<(Instant, Instant)> {
        let mut began = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()))?;
            ensure!(poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], left)? > 0, "nothing started");
            let now = Instant::now();
            for event in self.inotify.read_events()? {
                if self.makers.contains(&event.wd) {
                    // Of a program that is opened twice the first time counts.
                    began.get_or_insert(now);
                } else if event.wd == self.program
                    && let Some(began) = began
                {
                    return Ok((began, now));
                }
            }
        }
    }
}

async fn start(options: &Options, hybrid: &Product, bare: &Product) -> Result<()> {
    let shim = binary("agentapi-shim");
    let (mut peer, mut ours, mut attached, mut before) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    for round in 0..=options.count(200, 3) {
        let (prepared, bare) = session(bare, &shim).await?;
        let took = [bubblewrap()?, bare, session(hybrid, &shim).await?.1];
        // The first one finds cold caches.
        if round > 0 {
            before.push_ms(prepared);
            for (samples, took) in [&mut peer, &mut ours, &mut attached].into_iter().zip(took) {
                samples.push_ms(took);
            }
        }
    }
    let mut table = Table::new("Start of a sandbox", &["", "p10 ms", "p50 ms", "p90 ms", "beside bubblewrap"]);
    let rows = [
        ("bubblewrap, everything unshared", &peer),
        ("ours, every layer but control groups", &ours),
        ("ours, put into control groups of v1 as well", &attached),
        ("before it: from the request to the shim, a new disk made, formatted and mounted", &before),
    ];
    for (name, samples) in rows {
        let cells = [0.1, 0.5, 0.9].map(|part| format!("{:.2}", samples.quantile(part)));
        let ratio = format!("{:.2}", samples.median() / peer.median());
        table.row(&std::iter::once(name.to_owned()).chain(cells).chain([ratio]).collect::<Vec<_>>());
    }
    table.note(&format!(
        "{} starts each, in turn: from the exec of `bwrap` or of the shim to the exec of `true` inside, seen from outside. Bar: the second line at \
         most 1.15 of the first.",
        peer.len()
    ));
    table.print();
    Ok(())
}

/// What a careful user of it would say for the same view of the machine.
fn bubblewrap() -> Result<Duration> {
    let watch = Watch::new(&[BUBBLEWRAP.into()])?;
    let words = "--unshare-all --die-with-parent --new-session --clearenv --cap-drop ALL --hostname agentapi --ro-bind /usr /usr \
                 --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /etc/ssl /etc/ssl \
                 --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --bind /var/tmp /workspace --chdir /workspace";
    let mut child = Command::new(BUBBLEWRAP).args(words.split_whitespace()).arg(PROGRAM).spawn()?;
    let seen = watch.next();
    ensure!(child.wait()?.success(), "bubblewrap failed");
    seen.map(|(began, executed)| executed - began)
}

/// From the request to the shim, and from there to the program.
async fn session(product: &Product, shim: &Path) -> Result<(Duration, Duration)> {
    let watch = Watch::new(&[shim.to_owned()])?;
    let waiting = tokio::task::spawn_blocking(move || watch.next());
    let asked = Instant::now();
    let session: Session = product.post("/sessions", &json!({ "agent": "custom", "command": [PROGRAM] })).await?;
    let (began, executed) = waiting.await??;
    product.ended(session.id).await;
    product.raw(Method::DELETE, &format!("/sessions/{}?purge=true", session.id), &json!({})).await?;
    Ok((began - asked, executed - began))
}

async fn stop(options: &Options, product: &Product) -> Result<()> {
    let mut table = Table::new("Stop until nothing is left", &["processes", "p50 ms", "p90 ms", "most ms"]);
    for (count, rounds) in [(1, options.count(100, 2)), (200, options.count(30, 1))] {
        let mut samples = Samples::default();
        for _ in 0..rounds {
            samples.push_ms(stopped(product, count).await?);
        }
        let cells = [0.5, 0.9, 1.0].map(|part| format!("{:.1}", samples.quantile(part)));
        table.row(&std::iter::once(format!("{count}")).chain(cells).collect::<Vec<_>>());
    }
    table.note(
        "From the request (`DELETE` with `force=true`) to the end of the session's init, which the kernel tells when its namespace of processes is \
         empty. They are deaf to every signal that can be ignored. Bars, from the kill on: 10 ms and 60 ms.",
    );
    table.print();
    Ok(())
}

async fn stopped(product: &Product, count: usize) -> Result<Duration> {
    // The shell is one of them.
    let command = if count == 1 {
        "trap '' HUP TERM INT; echo up; exec sleep 3600".to_owned()
    } else {
        DEAF.replace("COUNT", &(count - 1).to_string())
    };
    let session = product.create(&["sh", "-c", &command]).await?;
    product.shows(session.id, "up").await;
    let (supervisor, _) = Process::daemons(product)?;
    let all = children()?;
    let init = supervisor.shims(&all).first().and_then(|shim| all.get(&shim.0)?.first().copied()).context("an init")?;
    let request = product.request(Method::DELETE, &format!("/sessions/{}?force=true", session.id));
    let waiting = tokio::task::spawn_blocking(move || gone(init));
    let began = Instant::now();
    request.send().await?.error_for_status()?;
    let took = waiting.await?? - began;
    remove(product, &session).await?;
    Ok(took)
}

/// Programs that do little but system calls, inside and outside.
async fn steady(options: &Options, product: &Product) -> Result<()> {
    let mut table = Table::new("System calls inside", &["", "outside, s", "inside, s", "inside / outside"]);
    let pairs = options.count(1_000_000, 1000);
    let copy = format!("dd if=/dev/zero of=/dev/null bs=1 count={pairs} status=none");
    for (name, program) in [
        ("read and write, a million of each", copy.as_str()),
        ("open, list, stat: find /usr", "find /usr -size 3 > /dev/null"),
    ] {
        // bash tells the time itself, so that neither its start nor ours is in it.
        let script = format!("TIMEFORMAT='took %R s'; time {program}");
        let (mut outside, mut inside) = (Samples::default(), Samples::default());
        for round in 0..=options.count(9, 1) {
            let output = Command::new("bash").args(["-c", &script]).output()?;
            let session = product.create(&["bash", "-c", &format!("{script}; exec sleep 3600")]).await?;
            let screen = product.shows(session.id, " s").await;
            remove(product, &session).await?;
            // The first one fills caches.
            if round > 0 {
                outside.push(seconds(&String::from_utf8_lossy(&output.stderr))?);
                inside.push(seconds(&screen)?);
            }
        }
        let cell =
            |samples: &Samples| format!("{:.2} ({:.2}-{:.2})", samples.median(), samples.quantile(0.0), samples.max());
        let ratio = format!("{:.2}", inside.median() / outside.median());
        table.row(&[name.to_owned(), cell(&outside), cell(&inside), ratio]);
    }
    table.note("Medians, in turn. What is inside is the agent's filter, Landlock, the mounts of the jail and a control group. Bar: within noise.");
    table.print();
    Ok(())
}

fn seconds(told: &str) -> Result<f64> {
    let (_, rest) = told.split_once("took ").context("a time")?;
    Ok(rest.split_whitespace().next().context("a time")?.replace(',', ".").parse()?)
}

/// Waits until an init has ended, which it has for the kernel when its namespace of processes is empty.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, and a timer of the runtime is not that fine")]
fn gone(init: Process) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", init.0)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, None | Some('Z')) {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "it was not stopped");
        std::thread::sleep(LOOK);
    }
}
