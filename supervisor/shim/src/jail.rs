//! Making a jail: plan in, running agent out.
//!
//! Three processes take part. The **shim** (here) is still single-threaded; it makes what needs privileges outside (user namespaces), clones the
//! **init** into new namespaces and waits for its word. Init ([`init`]) applies the plan in a straight line, hands out the PTY's master, forks the
//! **agent** ([`agent`]), reaps, and ends everything when the agent ends or the lifeline to the shim closes.

mod agent;
mod error;
mod ids;
mod init;
mod lifeline;
mod mounts;
mod set_id;
mod userns;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use agentapi_shared::WindowSize;
use agentapi_shared::jail::{AGENT_ID, IdMap, JailMode, JailPlan, MountStep, Namespace, SLOT_UIDS};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

pub(crate) use error::{JailError, describe_exec_failure};
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
}

/// Descriptors that init needs and the shim has to make.
struct Prepared {
    /// Entered last, in root mode.
    userns: Option<OwnedFd>,
    /// One per bind step with an id map, in their order.
    idmaps: Vec<OwnedFd>,
}

/// Makes the jail and runs the agent in it. On an error nothing is left.
pub(crate) fn launch(plan: &JailPlan, size: WindowSize) -> Result<Jail, JailError> {
    let prepared = prepare(plan)?;
    let (ours, theirs) = Lifeline::pair().map_err(JailError::step("lifeline"))?;
    let (init, pidfd) = match sys::clone_process(birth_flags(plan)).map_err(JailError::step("clone"))? {
        Cloned::Child => {
            drop(ours);
            init::run(plan, size, theirs, prepared)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(prepared);
    let jail = attend(plan, init, ours);
    if jail.is_err() {
        userns::kill_and_reap(init);
    }
    jail.map(|(lifeline, master)| Jail { init, pidfd, lifeline, master })
}

fn prepare(plan: &JailPlan) -> Result<Prepared, JailError> {
    let JailMode::Root { uid_base } = plan.mode else { return Ok(Prepared { userns: None, idmaps: Vec::new() }) };
    let block = format!("0 {uid_base} {SLOT_UIDS}\n");
    let userns = userns::create(&block, &block).map_err(JailError::step("user namespace"))?;
    let maps = plan.mounts.iter().filter_map(|step| match step {
        MountStep::Bind { idmap, .. } => *idmap,
        _ => None,
    });
    let idmaps = maps
        .map(|IdMap { disk_uid, disk_gid, host_uid, host_gid }| {
            userns::create(&format!("{disk_uid} {host_uid} 1\n"), &format!("{disk_gid} {host_gid} 1\n"))
                .map_err(JailError::step("user namespace of an id-mapped mount"))
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
    };
    plan.namespaces.iter().map(flag).collect::<CloneFlags>().bits()
}

/// Sees init through its start.
fn attend(plan: &JailPlan, init: Pid, mut lifeline: Lifeline) -> Result<(Lifeline, OwnedFd), JailError> {
    if plan.mode == JailMode::User {
        userns::map_to_self(init).map_err(JailError::step("user namespace"))?;
    }
    lifeline.send(&ShimMessage::Go, None).map_err(JailError::step("lifeline"))?;
    let mut master = None;
    loop {
        match lifeline.receive::<InitMessage>().map_err(JailError::step("lifeline"))? {
            Some((InitMessage::Terminal, fd)) => master = fd,
            Some((InitMessage::Executed, _)) => break,
            Some((InitMessage::Failed { step, errno }, _)) => return Err(JailError::from_wire(&step, errno)),
            Some((InitMessage::ExecFailed { errno }, _)) => {
                return Err(JailError::Exec(nix::errno::Errno::from_raw(errno)));
            }
            Some((InitMessage::Ended { .. }, _)) | None => return Err(JailError::InitGone),
        }
    }
    master.map(|master| (lifeline, master)).ok_or(JailError::InitGone)
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
