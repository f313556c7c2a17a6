//! Making a jail: plan in, running agent out.
//!
//! Three processes take part. The **shim** (here) is still single-threaded; it clones the **init** into new namespaces, makes those of users and of
//! the network while init builds the root, and waits for its word. Init ([`init`]) applies the plan in a straight line, hands out
//! the PTY's master, forks the **agent** ([`agent`]) when the shim is ready too, reaps, and ends everything when the agent ends or the lifeline to
//! the shim closes.

mod agent;
mod confine;
mod error;
mod filter;
mod ids;
mod init;
mod landlock;
mod lifeline;
mod mounts;
mod network;
mod surroundings;
mod userns;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use agentapi_shared::WindowSize;
use agentapi_shared::jail::{AGENT_ID, IdMap, JailMode, JailPlan, MAPPED_IDS, MountStep, Namespace};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_dumpable;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

pub(crate) use confine::{filter_calls, hand_over, owner_of, shed};
pub(crate) use error::{JailError, describe_exec_failure, describe_jail_failure};
pub(crate) use lifeline::{InitMessage, Lifeline, ShimMessage, receive_with_fds};

use self::network::Listeners;
use crate::sys::{self, Cloned};

/// A running agent, as its shim holds it.
pub(crate) struct Jail {
    /// Host pid of init; in a pid namespace its death is the death of all.
    pub(crate) init: Pid,
    /// Readable when init is gone.
    pub(crate) pidfd: OwnedFd,
    /// To init; closing it ends everything.
    pub(crate) lifeline: Lifeline,
    /// The terminal.
    pub(crate) master: OwnedFd,
    /// Ports inside on which somebody listens.
    pub(crate) listeners: Listeners,
}

impl Jail {
    /// Ends everything in it, from a shim that may have given up the right to signal.
    pub(crate) fn end(self) {
        drop(self.lifeline);
        let _status = waitpid(self.init, None);
    }
}

/// An init that nobody has accepted yet. Dropped, it is gone, and with it everything in its namespace of processes.
struct Newborn(Pid);

impl Newborn {
    fn accept(self) -> Pid {
        let pid = self.0;
        std::mem::forget(self);
        pid
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        userns::kill_and_reap(self.0);
    }
}

/// Descriptors that the supervisor gives for a jail, as far as its plan says so.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Where init is born.
    pub(crate) cgroup: Option<OwnedFd>,
    /// The session's disk, attached nowhere yet.
    pub(crate) disk: Option<OwnedFd>,
}

/// Descriptors that the new root is built from.
struct Sources {
    /// One for each bind step with an id map, in their order.
    idmaps: Vec<OwnedFd>,
    /// The session's disk.
    disk: Option<OwnedFd>,
}

/// A jail that init is building.
pub(crate) struct Building<'a> {
    plan: &'a JailPlan,
    init: Newborn,
    pidfd: OwnedFd,
    lifeline: Lifeline,
}

/// Has init begin to build the jail. `attach` puts the newborn into cgroups that cannot be born into, before it does anything. Until [`Building::finish`] nothing of the agent's runs, and the shim has the time for what it needs itself.
pub(crate) fn begin(
    plan: &JailPlan,
    size: WindowSize,
    Given { cgroup, disk }: Given,
    attach: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Building<'_>, JailError> {
    if plan.cgroup.born_in != cgroup.is_some() {
        return Err(JailError::step("cgroup: descriptor")(Errno::EBADF));
    }
    if plan.has_disk() != disk.is_some() {
        return Err(JailError::step("disk: descriptor")(Errno::EBADF));
    }
    network::check(plan)?;
    let sources = Sources { idmaps: idmaps(plan)?, disk };
    let (ours, theirs) = Lifeline::pair().map_err(JailError::step("init: lifeline"))?;
    let flags = birth_flags(plan);
    let (init, pidfd) = match sys::clone_process(flags, cgroup.as_ref().map(AsFd::as_fd))
        .map_err(JailError::step("namespaces: clone"))?
    {
        Cloned::Child => {
            drop(ours);
            init::run(plan, size, theirs, sources)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let building = Building { plan, init: Newborn(init), pidfd, lifeline: ours };
    if plan.cgroup.attach {
        attach(init).map_err(JailError::step("cgroup: attach"))?;
    }
    if plan.mode == JailMode::User {
        userns::map_to_self(init).map_err(JailError::step("namespaces: users"))?;
    }
    tell(&building.lifeline, &ShimMessage::Build, &[])?;
    Ok(building)
}

impl Building<'_> {
    /// Runs the agent in it. On an error nothing is left.
    pub(crate) fn finish(mut self) -> Result<Jail, JailError> {
        let mut fds = Vec::new();
        let mut listeners = Vec::new();
        match self.plan.mode {
            JailMode::Root { uid_base } => {
                if self.plan.has(Namespace::User) {
                    let block = format!("0 {uid_base} {MAPPED_IDS}\n");
                    fds.push(userns::create(&block, &block).map_err(JailError::step("namespaces: users"))?);
                }
                // From here on nobody reads our memory. Not before: the namespace is opened through /proc.
                set_dumpable(false).map_err(JailError::step("privileges: not dumpable"))?;
            }
            JailMode::User | JailMode::None => {}
        }
        if network::is_made_by_shim(self.plan) {
            let (network, made) = network::make(self.plan)?;
            fds.push(network);
            listeners = made;
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        tell(&self.lifeline, &ShimMessage::Run, &fds)?;
        let master = attend(self.plan, &mut self.lifeline, &mut listeners)?;
        Ok(Jail { init: self.init.accept(), pidfd: self.pidfd, lifeline: self.lifeline, master, listeners })
    }
}

/// Says it to init. One that is gone has left the reason behind, for whoever reads next.
fn tell(lifeline: &Lifeline, word: &ShimMessage, fds: &[BorrowedFd<'_>]) -> Result<(), JailError> {
    match lifeline.send(word, fds) {
        Ok(()) | Err(Errno::EPIPE) => Ok(()),
        Err(error) => Err(JailError::step("init: lifeline")(error)),
    }
}

/// User namespaces of the id-mapped mounts, in the order of their steps.
fn idmaps(plan: &JailPlan) -> Result<Vec<OwnedFd>, JailError> {
    let maps = plan.mounts.iter().filter_map(|step| match step {
        MountStep::Bind { idmap, .. } => *idmap,
        _ => None,
    });
    maps.map(|IdMap { disk_uid, disk_gid, host_uid, host_gid }| {
        userns::create(&format!("{disk_uid} {host_uid} 1\n"), &format!("{disk_gid} {host_gid} 1\n"))
            .map_err(JailError::step("namespaces: users of an id-mapped mount"))
    })
    .collect()
}

/// Namespaces of init's birth. In root mode the user namespace is entered last instead: mounts then belong to real root, and nothing inside
/// can undo them.
fn birth_flags(plan: &JailPlan) -> i32 {
    let flag = |namespace: &Namespace| match namespace {
        Namespace::User if plan.mode == JailMode::User => CloneFlags::CLONE_NEWUSER,
        Namespace::User => CloneFlags::empty(),
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Network if network::is_made_by_shim(plan) => CloneFlags::empty(),
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        // By init itself, once it is in its cgroup.
        Namespace::Cgroup => CloneFlags::empty(),
    };
    plan.namespaces.iter().map(flag).collect::<CloneFlags>().bits()
}

/// Sees init through its start; the terminal that it has handed out.
fn attend(plan: &JailPlan, lifeline: &mut Lifeline, listeners: &mut Listeners) -> Result<OwnedFd, JailError> {
    let mut master = None;
    loop {
        match lifeline.receive::<InitMessage>().map_err(JailError::step("init: lifeline"))? {
            Some((InitMessage::Terminal, mut fds)) => master = fds.pop(),
            Some((InitMessage::Listener { port }, mut fds)) => listeners.extend(fds.pop().map(|fd| (port, fd))),
            Some((InitMessage::Executed, _)) => break,
            Some((InitMessage::Ended { .. }, _)) | None => return Err(JailError::InitGone),
            Some((failed, _)) => return Err(JailError::from_message(failed)),
        }
    }
    let master = master.ok_or(JailError::InitGone)?;
    let complete = listeners.iter().map(|(port, _)| port).eq(&plan.listeners);
    if complete { Ok(master) } else { Err(JailError::InitGone) }
}

/// Where terminals come from.
fn multiplexer(plan: &JailPlan) -> PathBuf {
    let own = plan.mounts.iter().find_map(|step| match step {
        MountStep::DevPts { target, .. } => Some(PathBuf::from(target).join("ptmx")),
        _ => None,
    });
    own.unwrap_or_else(|| PathBuf::from("/dev/ptmx"))
}

/// The agent's uid as the host sees it, where that differs from the daemon's.
fn agent_host_id(plan: &JailPlan) -> Option<u32> {
    match plan.mode {
        JailMode::Root { uid_base } => Some(uid_base + AGENT_ID),
        JailMode::User | JailMode::None => None,
    }
}
