//! Control groups of sessions: what limits them, and what ends all of a session's processes at once.
//!
//! ```text
//! BASE/agentapi-ID/SESSION/shim     the shim: outside of the limits, so that a session out of memory leaves its records
//!                          work     init and the agent: the limits, and what is killed
//! ```
//!
//! On cgroup v2 all of it is in one tree. On a hybrid host (v1 controllers beside a v2 tree without any) the v2 tree tracks and kills, and a group
//! of the same name below each v1 controller limits. ID is that of the state directory: supervisors of one host do not meet each other's trees.
//! The layout is pure ([`layout`]); here is what touches the system. Everything in here blocks.

mod layout;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentapi_shared::SessionId;
use agentapi_shared::api::Limits;
use agentapi_shared::jail::CgroupStep;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::layout::Layout;
pub(crate) use self::layout::{Control, Write};

/// A killed group is empty after this long: the slowest measured, with 200 processes, took 35 ms.
const EMPTY_SECONDS_MAX: Duration = Duration::from_secs(10);
/// A group that was killed is looked at again after this long, also if no event says so: older kernels lose one that comes between two waits.
const EVENT_MS_MAX: u16 = 500;

/// Why a group cannot be had, or is not gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// A directory.
    #[error("cgroup: cannot make {path}")]
    Make { path: String, source: io::Error },
    /// A directory whose name is ours is another user's and could not be removed: something is in it (EBUSY, ENOTEMPTY), or we may not (EACCES, EPERM).
    /// Which, the source says.
    #[error(
        "cgroup: {path} is of user {owner}, left by a supervisor whose state directory had the same number: see that nobody uses it, remove it (find {path} -depth -type d -exec rmdir {{}} +), and start the supervisor again"
    )]
    Foreign { path: String, owner: u32, source: io::Error },
    /// A file of one.
    #[error("cgroup: cannot write `{value}` to {path}")]
    Write { path: String, value: String, source: io::Error },
    /// The kernel took a limit and shows another one.
    #[error("cgroup: {path} shows `{shown}` after `{value}` was written")]
    NotKept { path: String, value: String, shown: String },
    /// Memory could leave its limit that way.
    #[error(
        "cgroup: the kernel cannot limit swap ({path} is missing), and this host has some: boot with swapaccount=1, or switch it off (swapoff -a)"
    )]
    Swap { path: String },
    /// Processes are there although they were killed.
    #[error("cgroup: {path} still has processes {} seconds after they were killed", EMPTY_SECONDS_MAX.as_secs())]
    NotEmpty { path: String },
    /// A file or directory of one that does not do what it should.
    #[error("cgroup: {path}")]
    Use { path: String, source: io::Error },
}

/// Where this supervisor's groups are; none where it can make none.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    layout: Option<Layout>,
    /// Names the controllers that sessions can have.
    given: PathBuf,
    state_dir: PathBuf,
}

/// Who looks for groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The daemon, which will have sessions in them, under a name that stays.
    Serve,
    /// Somebody who wants to know what it would find, beside one that may run.
    Look,
}

/// The groups of one session.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    layout: Layout,
    session: SessionId,
    /// The limits, as they were written.
    writes: Vec<Write>,
}

impl Cgroups {
    /// Finds out where groups can be made, by making one.
    pub(crate) fn open(state_dir: &Path) -> Self {
        Self::open_for(state_dir, Purpose::Serve)
    }

    /// The same without touching what a daemon with this state directory has, and without moving this process. To be closed.
    pub(crate) fn look(state_dir: &Path) -> Self {
        Self::open_for(state_dir, Purpose::Look)
    }

    fn open_for(state_dir: &Path, purpose: Purpose) -> Self {
        let (layout, given) = match Self::find(state_dir, purpose) {
            Ok(found) => found.unzip(),
            Err(error @ CgroupError::Foreign { .. }) => {
                tracing::warn!(error = crate::chain(&error), "no control groups can be made here until one is removed");
                (None, None)
            }
            Err(error) => {
                tracing::info!(error = crate::chain(&error), "no control groups can be made here");
                (None, None)
            }
        };
        Self { layout, given: given.unwrap_or_default(), state_dir: state_dir.to_owned() }
    }

    fn find(state_dir: &Path, purpose: Purpose) -> Result<Option<(Layout, PathBuf)>, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let name = match purpose {
            Purpose::Serve => fs::metadata(state_dir)
                .map_or_else(|_| "agentapi-none".to_owned(), |dir| format!("agentapi-{:x}-{:x}", dir.dev(), dir.ino())),
            Purpose::Look => format!("agentapi-doctor-{}", std::process::id()),
        };
        let found = layout::find(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), &name);
        let Some(mut layout) = found else { return Ok(None) };
        let mut given = None;
        if layout.hybrid.is_empty() {
            (layout.v2, given) = open_v2(&layout.v2, purpose)?;
        }
        make_own(&layout.v2)?;
        // Kill came with Linux 5.14; without it a session's end is not sure.
        let kill = layout.v2.join("cgroup.kill");
        if !kill.exists() {
            return Err(CgroupError::Use { path: kill.display().to_string(), source: io::ErrorKind::NotFound.into() });
        }
        for dir in layout.hybrid.values() {
            make_own(dir)?;
        }
        let given = given.unwrap_or_else(|| layout.v2.join("cgroup.subtree_control"));
        Ok(Some((layout, given)))
    }

    /// What the groups can limit.
    pub(crate) fn control(&self) -> Control {
        let Some(layout) = &self.layout else { return Control::None };
        if !layout.hybrid.is_empty() {
            return Control::Hybrid;
        }
        let given = fs::read_to_string(&self.given).unwrap_or_default();
        let has = |name: &str| given.split_whitespace().any(|word| word == name);
        Control::V2 {
            memory: has("memory"),
            pids: has("pids"),
            cpu: has("cpu"),
            io: has("io") && self.disk().is_some(),
        }
    }

    /// Makes the groups of a session with their limits; none where there are no groups at all.
    pub(crate) fn make(&self, session: SessionId, limits: &Limits) -> Result<Option<Place>, CgroupError> {
        let Some(layout) = &self.layout else { return Ok(None) };
        let mut place = Place { layout: layout.clone(), session, writes: Vec::new() };
        // Whoever cleans up a host may have taken the tree while no session was in it.
        for root in layout.roots() {
            fs::create_dir_all(root)
                .map_err(|source| CgroupError::Make { path: root.display().to_string(), source })?;
        }
        if layout.hybrid.is_empty() {
            give_controllers(&layout.v2);
        }
        // Groups of an earlier spawn may be there; nothing of it may run in them.
        place.clear()?;
        let plan = layout.plan(session, limits, self.disk());
        for dir in &plan.dirs {
            make(dir)?;
        }
        for write in &plan.writes {
            carry_out(write)?;
        }
        place.writes = plan.writes;
        Ok(Some(place))
    }

    /// Kills init, the agent and all they have started, and nothing else: the shim writes their records. Does not wait; false where there are no
    /// groups, or none of this session.
    pub(crate) fn kill_work(&self, session: SessionId) -> Result<bool, CgroupError> {
        let Some(layout) = &self.layout else { return Ok(false) };
        match write(&layout.work(session).join("cgroup.kill"), "1") {
            Ok(()) => Ok(true),
            Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends what is left of a session, and removes its groups. They may be gone.
    pub(crate) fn clear(&self, session: SessionId) -> Result<(), CgroupError> {
        match &self.layout {
            Some(layout) => Place { layout: layout.clone(), session, writes: Vec::new() }.clear(),
            None => Ok(()),
        }
    }

    /// Ends and removes everything whose session is not among `living`: what a crash has left.
    pub(crate) fn sweep(&self, living: &[SessionId]) {
        let Some(layout) = &self.layout else { return };
        for dir in layout.roots() {
            for session in sessions_in(dir).into_iter().filter(|session| !living.contains(session)) {
                if let Err(error) = self.clear(session) {
                    tracing::warn!(session.id = %session, error = crate::chain(&error), "groups of an ended session could not be removed");
                }
            }
        }
    }

    /// Removes the tree, if no session has groups in it.
    pub(crate) fn close(&self) {
        for dir in self.layout.iter().flat_map(Layout::roots) {
            // Not empty, or gone: both are as they should be.
            let _removed = fs::remove_dir(dir);
        }
    }

    /// The disk that holds the sessions, as `MAJOR:MINOR`.
    fn disk(&self) -> Option<(u64, u64)> {
        let device = fs::metadata(&self.state_dir).ok()?.dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if !sysfs.exists() {
            return None;
        }
        // Limits are the disk's, not a partition's.
        let whole = if sysfs.join("partition").exists() { sysfs.join("..") } else { sysfs };
        let text = fs::read_to_string(whole.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

impl Place {
    /// How init gets in: born into the v2 group, and put into those of v1 before it does anything.
    pub(crate) fn step(&self) -> CgroupStep {
        CgroupStep { born_in: true, attach: !self.layout.hybrid.is_empty() }
    }

    /// Every group that init and the agent are in.
    pub(crate) fn of_processes(&self) -> Vec<PathBuf> {
        std::iter::once(self.layout.work(self.session)).chain(self.layout.limits(self.session)).collect()
    }

    /// The limits, by file.
    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The v2 group of init and the agent.
    pub(crate) fn work(&self) -> Result<fs::File, CgroupError> {
        let path = self.layout.work(self.session);
        fs::File::open(&path).map_err(|source| CgroupError::Use { path: path.display().to_string(), source })
    }

    /// Puts init into the groups that it cannot be born into.
    pub(crate) fn attach(&self, init: i32) -> Result<(), CgroupError> {
        for dir in self.layout.limits(self.session) {
            write(&dir.join("cgroup.procs"), &init.to_string())?;
        }
        Ok(())
    }

    /// Puts the shim beside them, so that it is found if nobody knows of it any more.
    pub(crate) fn keep_shim(&self, pid: u32) -> Result<(), CgroupError> {
        write(&self.layout.shim(self.session).join("cgroup.procs"), &pid.to_string())
    }

    /// Kills what is left, waits until nothing is, and removes the groups.
    pub(crate) fn clear(&self) -> Result<(), CgroupError> {
        let session = self.layout.v2.join(self.session.to_string());
        if session.exists() {
            kill(&session)?;
        }
        for dir in self.layout.dirs(self.session).iter().rev() {
            remove(dir)?;
        }
        Ok(())
    }
}

/// Kills every process below a v2 group, and waits until the kernel says that it is empty.
fn kill(group: &Path) -> Result<(), CgroupError> {
    let shown = || group.display().to_string();
    let failed = |source| CgroupError::Use { path: shown(), source };
    let events = group.join("cgroup.events");
    let deadline = Instant::now() + EMPTY_SECONDS_MAX;
    let mut killed = false;
    loop {
        // Opened and read anew: the next poll then waits for a change from here on.
        let file = fs::File::open(&events).map_err(failed)?;
        if !is_populated(&io::read_to_string(&file).map_err(failed)?) {
            return Ok(());
        }
        if !killed {
            write(&group.join("cgroup.kill"), "1")?;
            killed = true;
        } else if Instant::now() >= deadline {
            return Err(CgroupError::NotEmpty { path: shown() });
        }
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::from(EVENT_MS_MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// The v2 group below which sessions get theirs, with every controller there is. Sessions' groups have processes in their leaves only, so the
/// supervisor itself must not be in a group above them, unless that is the root. With the file that names the controllers, if it is not the usual one.
fn open_v2(wanted: &Path, purpose: Purpose) -> Result<(PathBuf, Option<PathBuf>), CgroupError> {
    let (Some(own), Some(name)) = (wanted.parent(), wanted.file_name()) else { return Ok((wanted.to_owned(), None)) };
    let procs = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
    let pid = std::process::id().to_string();
    let root = own.ancestors().find(|dir| !dir.join("cgroup.type").exists() && dir.join("cgroup.controllers").exists());
    let base = if root == Some(own) {
        own.to_owned()
    } else if own.file_name().is_some_and(|name| name == "supervisor") {
        // What systemd makes for DelegateSubgroup=supervisor, or we did.
        own.parent().unwrap_or(own).to_owned()
    } else if procs.lines().all(|line| line == pid) {
        if purpose == Purpose::Look {
            // A daemon would move out of the way, and could then give whatever this group has.
            return Ok((wanted.to_owned(), Some(own.join("cgroup.controllers"))));
        }
        let leaf = own.join("supervisor");
        make(&leaf)?;
        write(&leaf.join("cgroup.procs"), &pid)?;
        own.to_owned()
    } else {
        // Others are in our group: it is nobody's to give away. Beside the root's own children there is always room, for root.
        root.unwrap_or(own).to_owned()
    };
    let tree = base.join(name);
    give_controllers(&base);
    make_own(&tree)?;
    give_controllers(&tree);
    Ok((tree, None))
}

/// Lets the children of a group be limited by what the group has. One by one: what cannot be given is seen afterwards.
fn give_controllers(group: &Path) {
    for controller in ["memory", "pids", "cpu", "io"] {
        let _given = write(&group.join("cgroup.subtree_control"), &format!("+{controller}"));
    }
}

fn make(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path: dir.display().to_string(), source: error })
        }
        _ => Ok(()),
    }
}

/// Makes a directory that sessions get theirs in. Numbers of state directories are given again, and a supervisor that was killed leaves its groups:
/// those of another user could not be used, or would be that user's. They are replaced, which the kernel allows only while they are empty.
fn make_own(dir: &Path) -> Result<(), CgroupError> {
    make(dir)?;
    let path = || dir.display().to_string();
    let owner = fs::metadata(dir).map_err(|source| CgroupError::Use { path: path(), source })?.uid();
    if owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    fs::remove_dir(dir).map_err(|source| CgroupError::Foreign { path: path(), owner, source })?;
    make(dir)
}

fn remove(dir: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CgroupError::Use { path: dir.display().to_string(), source: error })
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Write { path: path.display().to_string(), value: value.to_owned(), source };
    // Never made: a file that is not there is a controller that is not there.
    let mut file = fs::File::options().write(true).open(path).map_err(failed)?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(failed)
}

/// Writes a limit and looks whether it holds.
fn carry_out(wanted: &Write) -> Result<(), CgroupError> {
    match write(&wanted.file, &wanted.value) {
        // Swap is accounted only where the kernel was told to; without any there is none to limit.
        Err(CgroupError::Write { path, source, .. }) if wanted.optional && source.kind() == io::ErrorKind::NotFound => {
            let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
            return if has_swap(&swaps) { Err(CgroupError::Swap { path }) } else { Ok(()) };
        }
        other => other?,
    }
    let path = || wanted.file.display().to_string();
    let shown = fs::read_to_string(&wanted.file).map_err(|source| CgroupError::Use { path: path(), source })?;
    if wanted.holds(&shown) {
        return Ok(());
    }
    Err(CgroupError::NotKept { path: path(), value: wanted.value.clone(), shown: shown.trim().to_owned() })
}

/// Whether `/proc/swaps` lists any below its heading; a kernel without swap has no such file.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

fn sessions_in(dir: &Path) -> Vec<SessionId> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
