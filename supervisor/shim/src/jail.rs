//! Making a jail: plan in, running agent out.
//!
//! Three processes take part. The **shim** (here) is still single-threaded; it makes what needs privileges outside (user namespaces), clones the
//! **init** into new namespaces and waits for its word. Init ([`init`]) applies the plan in a straight line, hands out the PTY's master, forks the
//! **agent** ([`agent`]), reaps, and ends everything when the agent ends or the lifeline to the shim closes.

mod agent;
mod confine;
mod error;
mod filter;
mod ids;
mod init;
mod landlock;
mod lifeline;
mod mounts;
mod surroundings;
mod userns;

use std::os::fd::{AsFd, OwnedFd};
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
    /// Ports inside that init listens on.
    pub(crate) listeners: Vec<(u16, OwnedFd)>,
}

impl Jail {
    /// Ends everything in it, from a shim that may have given up the right to signal.
    pub(crate) fn end(self) {
        drop(self.lifeline);
        let _status = waitpid(self.init, None);
    }
}

/// Descriptors that init needs and the shim has to make.
struct Prepared {
    /// Entered last, in root mode.
    userns: Option<OwnedFd>,
    /// One per bind step with an id map, in their order.
    idmaps: Vec<OwnedFd>,
}

/// Makes the jail and runs the agent in it. On an error nothing is left. `cgroup` is where init is born; `attach` puts the newborn into cgroups
/// that cannot be born into, before it does anything.
pub(crate) fn launch(
    plan: &JailPlan,
    size: WindowSize,
    cgroup: Option<OwnedFd>,
    attach: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Jail, JailError> {
    if plan.cgroup.born_in != cgroup.is_some() {
        return Err(JailError::step("cgroup: descriptor")(Errno::EBADF));
    }
    let prepared = prepare(plan)?;
    if matches!(plan.mode, JailMode::Root { .. }) {
        // From here on, init included, nobody reads our memory. Not before: the namespaces above are opened through /proc.
        set_dumpable(false).map_err(JailError::step("privileges: not dumpable"))?;
    }
    let (ours, theirs) = Lifeline::pair().map_err(JailError::step("init: lifeline"))?;
    let flags = birth_flags(plan);
    let (init, pidfd) = match sys::clone_process(flags, cgroup.as_ref().map(AsFd::as_fd))
        .map_err(JailError::step("namespaces: clone"))?
    {
        Cloned::Child => {
            drop(ours);
            init::run(plan, size, theirs, prepared)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(prepared);
    let attached = if plan.cgroup.attach { attach(init).map_err(JailError::step("cgroup: attach")) } else { Ok(()) };
    let told = attached.and_then(|()| attend(plan, init, ours));
    match told {
        Ok((lifeline, Handed { master, listeners })) => Ok(Jail { init, pidfd, lifeline, master, listeners }),
        Err(error) => {
            userns::kill_and_reap(init);
            Err(error)
        }
    }
}

fn prepare(plan: &JailPlan) -> Result<Prepared, JailError> {
    let JailMode::Root { uid_base } = plan.mode else { return Ok(Prepared { userns: None, idmaps: Vec::new() }) };
    let block = format!("0 {uid_base} {MAPPED_IDS}\n");
    let userns = userns::create(&block, &block).map_err(JailError::step("namespaces: users"))?;
    let maps = plan.mounts.iter().filter_map(|step| match step {
        MountStep::Bind { idmap, .. } => *idmap,
        _ => None,
    });
    let idmaps = maps
        .map(|IdMap { disk_uid, disk_gid, host_uid, host_gid }| {
            userns::create(&format!("{disk_uid} {host_uid} 1\n"), &format!("{disk_gid} {host_gid} 1\n"))
                .map_err(JailError::step("namespaces: users of an id-mapped mount"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Prepared { userns: Some(userns), idmaps })
}

/// Namespaces of init's birth. In root mode the user namespace is entered last instead: mounts then belong to real root, and nothing inside
/// can undo them.
fn birth_flags(plan: &JailPlan) -> i32 {
    let flag = |namespace: &Namespace| match namespace {
        Namespace::User if plan.mode == JailMode::User => CloneFlags::CLONE_NEWUSER,
        Namespace::User => CloneFlags::empty(),
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        // By init itself, once it is in its cgroup.
        Namespace::Cgroup => CloneFlags::empty(),
    };
    plan.namespaces.iter().map(flag).collect::<CloneFlags>().bits()
}

/// What init has handed out.
struct Handed {
    master: OwnedFd,
    listeners: Vec<(u16, OwnedFd)>,
}

/// Sees init through its start.
fn attend(plan: &JailPlan, init: Pid, mut lifeline: Lifeline) -> Result<(Lifeline, Handed), JailError> {
    if plan.mode == JailMode::User {
        userns::map_to_self(init).map_err(JailError::step("namespaces: users"))?;
    }
    lifeline.send(&ShimMessage::Go, None).map_err(JailError::step("init: lifeline"))?;
    let mut master = None;
    let mut listeners = Vec::new();
    loop {
        match lifeline.receive::<InitMessage>().map_err(JailError::step("init: lifeline"))? {
            Some((InitMessage::Terminal, fd)) => master = fd,
            Some((InitMessage::Listener { port }, Some(fd))) => listeners.push((port, fd)),
            Some((InitMessage::Executed, _)) => break,
            Some((InitMessage::Listener { .. } | InitMessage::Ended { .. }, _)) | None => {
                return Err(JailError::InitGone);
            }
            Some((failed, _)) => return Err(JailError::from_message(failed)),
        }
    }
    let master = master.ok_or(JailError::InitGone)?;
    let complete = listeners.iter().map(|(port, _)| port).eq(&plan.listeners);
    if complete { Ok((lifeline, Handed { master, listeners })) } else { Err(JailError::InitGone) }
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
