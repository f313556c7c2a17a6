//! Pid 1 of a session: applies the plan, forks the agent, reaps, and ends everything in the end.
//!
//! It never returns into the shim's code. Whatever fails before the agent runs is told over the lifeline, then it exits; the kernel clears the rest.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use agentapi_shared::WindowSize;
use agentapi_shared::jail::{JailMode, JailPlan, Namespace, Rlimit, RlimitResource};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2, tcgetpgrp};

use super::error::JailError;
use super::lifeline::{InitMessage, Lifeline, ShimMessage};
use super::{Prepared, agent, agent_host_id, ids, mounts, multiplexer};
use crate::sys;

/// Exit status of an init that could not make its jail.
const EXIT_SETUP: i32 = 125;

/// Runs init in the freshly cloned process.
pub(super) fn run(plan: &JailPlan, size: WindowSize, mut lifeline: Lifeline, prepared: Prepared) -> ! {
    let agent = match set_up(plan, size, &mut lifeline, prepared) {
        Ok(agent) => agent,
        Err(error) => {
            let message = match error {
                JailError::Step { step, source } => InitMessage::Failed { step, errno: source as i32 },
                JailError::Exec(errno) => InitMessage::ExecFailed { errno: errno as i32 },
                JailError::InitGone => std::process::exit(EXIT_SETUP),
            };
            let _told = lifeline.send(&message, None);
            std::process::exit(EXIT_SETUP);
        }
    };
    let ended = attend(&agent, &mut lifeline);
    if plan.mode == JailMode::None {
        kill_descendants();
    }
    if let Some(message) = ended {
        let _told = lifeline.send(&message, None);
    }
    // In a pid namespace the kernel now kills whatever is left, and waits for it, before this process counts as gone.
    std::process::exit(0)
}

/// The agent as init holds it.
struct Agent {
    pid: Pid,
    terminal: OwnedFd,
    children: SignalFd,
}

fn set_up(plan: &JailPlan, size: WindowSize, lifeline: &mut Lifeline, prepared: Prepared) -> Result<Agent, JailError> {
    tie_to_shim(plan)?;
    shed_descriptors(lifeline, &prepared)?;
    match lifeline.receive::<ShimMessage>().map_err(JailError::step("lifeline"))? {
        Some((ShimMessage::Go, _)) => {}
        _ => return Err(JailError::InitGone),
    }
    if plan.mounts.is_empty() {
        set_child_subreaper(true).map_err(JailError::step("subreaper"))?;
    } else {
        mounts::build(plan.mode, &plan.mounts, prepared.idmaps)?;
    }
    let (master, slave) = sys::open_pty(&multiplexer(plan)).map_err(JailError::step("terminal"))?;
    sys::set_window_size(&slave, size).map_err(JailError::step("terminal size"))?;
    if let Some(id) = agent_host_id(plan) {
        fchown(&slave, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).map_err(JailError::step("terminal owner"))?;
    }
    lifeline.send(&InitMessage::Terminal, Some(master.as_fd())).map_err(JailError::step("lifeline"))?;
    drop(master);
    for limit in &plan.rlimits {
        set_limit(*limit).map_err(JailError::step("rlimit"))?;
    }
    ids::drop_privileges(plan.mode, prepared.userns)?;
    // A change of ids clears it; once more, now for good.
    tie_to_shim(plan)?;
    start_agent(plan, lifeline, slave)
}

/// Init needs none of the shim's descriptors: not the journal, not the sockets, not the log.
fn shed_descriptors(lifeline: &Lifeline, prepared: &Prepared) -> Result<(), JailError> {
    let kept = std::iter::once(lifeline.as_fd()).chain(prepared.userns.iter().chain(&prepared.idmaps).map(AsFd::as_fd));
    let kept: Vec<i32> = kept.map(|fd| fd.as_raw_fd()).collect();
    sys::close_others(&kept).map_err(JailError::step("descriptors"))?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|_| JailError::step("descriptors")(Errno::ENODEV))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .map_err(JailError::step("descriptors"))
}

/// The kernel ends init with the shim, and with it everything in its pid namespace. Without one init has to do that itself and must outlive it.
fn tie_to_shim(plan: &JailPlan) -> Result<(), JailError> {
    if !plan.namespaces.contains(&Namespace::Pid) {
        return Ok(());
    }
    set_pdeathsig(Signal::SIGKILL).map_err(JailError::step("tie to the shim"))
}

fn set_limit(limit: Rlimit) -> Result<(), Errno> {
    let resource = match limit.resource {
        RlimitResource::Nofile => Resource::RLIMIT_NOFILE,
        RlimitResource::Nproc => Resource::RLIMIT_NPROC,
        RlimitResource::Core => Resource::RLIMIT_CORE,
        RlimitResource::Memlock => Resource::RLIMIT_MEMLOCK,
        RlimitResource::Msgqueue => Resource::RLIMIT_MSGQUEUE,
        RlimitResource::Sigpending => Resource::RLIMIT_SIGPENDING,
    };
    // An ordinary user cannot raise a hard limit: the lower one of ours and the present one is what can be had.
    let (_, hard) = nix::sys::resource::getrlimit(resource)?;
    let value = limit.value.min(hard);
    setrlimit(resource, value, value)
}

fn start_agent(plan: &JailPlan, lifeline: &mut Lifeline, slave: OwnedFd) -> Result<Agent, JailError> {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&child), None).map_err(JailError::step("signals"))?;
    let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC).map_err(JailError::step("signals"))?;
    let (status_read, status_write) = pipe2(OFlag::O_CLOEXEC).map_err(JailError::step("status pipe"))?;
    let pid = match sys::fork_process().map_err(JailError::step("fork"))? {
        ForkResult::Child => {
            let (step, errno) = agent::execute(plan, &slave);
            let text = format!("{} {}", errno as i32, step.unwrap_or(""));
            let _told = File::from(status_write).write_all(text.as_bytes());
            std::process::exit(EXIT_SETUP);
        }
        ForkResult::Parent { child } => child,
    };
    drop(status_write);
    let mut status = String::new();
    File::from(status_read).read_to_string(&mut status).map_err(|_| JailError::InitGone)?;
    if let Some((errno, step)) = status.split_once(' ') {
        let errno = errno.parse().unwrap_or(libc::EIO);
        return Err(if step.is_empty() {
            JailError::Exec(Errno::from_raw(errno))
        } else {
            JailError::from_wire(step, errno)
        });
    }
    lifeline.send(&InitMessage::Executed, None).map_err(JailError::step("lifeline"))?;
    Ok(Agent { pid, terminal: slave, children })
}

/// Reaps until the agent ends or the shim is gone; the message for the shim, if it still is there.
fn attend(agent: &Agent, lifeline: &mut Lifeline) -> Option<InitMessage> {
    loop {
        if let Some(message) = reap(agent.pid) {
            return Some(message);
        }
        let mut fds =
            [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN), PollFd::new(agent.children.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let told = fds[0].any() == Some(true);
        if fds[1].any() == Some(true) {
            let _which = agent.children.read_signal();
        }
        if told {
            match lifeline.receive::<ShimMessage>() {
                Ok(Some((ShimMessage::Terminate, _))) => terminate(agent),
                Ok(Some((ShimMessage::Go, _))) => {}
                // The shim is gone: so is everything it held.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Takes in every child that ended; the message if the agent was among them.
fn reap(agent: Pid) -> Option<InitMessage> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == agent => {
                ended = Some(InitMessage::Ended { code: Some(code), signal: None })
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                ended = Some(InitMessage::Ended { code: None, signal: Some(signal as i32) });
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Asks as a closing terminal does: hang-up for the job in the foreground, then the polite signal for the agent.
fn terminate(agent: &Agent) {
    // Any of them may be gone already; the shim's deadline settles what does not listen.
    if let Ok(group) = tcgetpgrp(&agent.terminal) {
        let _sent = killpg(group, Signal::SIGHUP);
        let _sent = killpg(group, Signal::SIGCONT);
    }
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        let _sent = killpg(agent.pid, signal);
    }
}

/// Without a pid namespace there is nothing better: kill children until none is left. As their subreaper we inherit every orphan.
fn kill_descendants() {
    loop {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}
