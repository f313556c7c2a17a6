//! Pid 1 of a session: applies the plan, forks the agent, reaps, and ends everything in the end.
//!
//! It never returns into the shim's code. Whatever fails before the agent runs is told over the lifeline, then it exits; the kernel clears the rest.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use agentapi_shared::WindowSize;
use agentapi_shared::jail::{JailMode, JailPlan, Namespace, Rlimit, RlimitResource};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2, tcgetpgrp};

use super::error::JailError;
use super::lifeline::{InitMessage, Lifeline, ShimMessage};
use super::userns::errno;
use super::{Sources, agent, agent_host_id, filter, ids, mounts, multiplexer, network, surroundings};
use crate::sys;

/// Exit status of an init that could not make its jail.
const EXIT_SETUP: i32 = 125;
/// Children taken in between two looks at the lifeline: an agent that makes orphans without end must not keep init from hearing the shim.
const REAPED_AT_ONCE: u32 = 64;

/// Runs init in the freshly cloned process.
pub(super) fn run(plan: &JailPlan, size: WindowSize, mut lifeline: Lifeline, sources: Sources) -> ! {
    let agent = match set_up(plan, size, &mut lifeline, sources) {
        Ok(agent) => agent,
        Err(error) => {
            // It may run already.
            if plan.mode == JailMode::None {
                kill_descendants();
            }
            let _told = lifeline.send(&error.to_message(), &[]);
            std::process::exit(EXIT_SETUP);
        }
    };
    let ended = attend(&agent, &mut lifeline);
    if plan.mode == JailMode::None {
        kill_descendants();
    }
    if let Some(message) = ended {
        let _told = lifeline.send(&message, &[]);
    }
    // In a pid namespace the kernel now kills whatever is left, and waits for it, before this process counts as gone.
    std::process::exit(0)
}

/// The agent as init holds it.
struct Agent {
    pid: Pid,
    /// Only this side tells the foreground group to who is not of the terminal's session.
    master: OwnedFd,
    /// Held so that the terminal stays open when the agent has closed it everywhere.
    _slave: OwnedFd,
    children: SignalFd,
}

fn set_up(plan: &JailPlan, size: WindowSize, lifeline: &mut Lifeline, sources: Sources) -> Result<Agent, JailError> {
    guard(plan)?;
    shed_descriptors(lifeline, &sources)?;
    let _none = told(lifeline, &ShimMessage::Build)?;
    umask(Mode::from_bits_truncate(0o022));
    surroundings::arrange(plan, lifeline)?;
    let limits = if plan.mounts.is_empty() {
        set_child_subreaper(true).map_err(JailError::step("init: subreaper"))?;
        None
    } else {
        mounts::build(plan.mode, &plan.mounts, sources)?
    };
    // The ids that files are made with have changed on the way.
    guard(plan)?;
    let (master, slave) = sys::open_pty(&multiplexer(plan)).map_err(JailError::step("terminal: open"))?;
    sys::set_window_size(&slave, size).map_err(JailError::step("terminal: size"))?;
    if let Some(id) = agent_host_id(plan) {
        fchown(&slave, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).map_err(JailError::step("terminal: owner"))?;
    }
    lifeline.send(&InitMessage::Terminal, &[master.as_fd()]).map_err(JailError::step("init: lifeline"))?;
    for limit in &plan.rlimits {
        set_limit(plan.mode, *limit)?;
    }
    sys::shed_priority().map_err(JailError::step("processors: priority"))?;
    if let Some(at_least) = plan.oom_score_adj {
        expose_to_oom_killer(at_least).map_err(JailError::step("memory: oom_score_adj"))?;
    }
    let mut outside = told(lifeline, &ShimMessage::Run)?.into_iter();
    let users =
        if matches!(plan.mode, JailMode::Root { .. }) && plan.has(Namespace::User) { outside.next() } else { None };
    if network::is_made_by_shim(plan) {
        let network = outside.next().ok_or(JailError::step("namespaces: descriptor")(Errno::EBADF))?;
        setns(&network, CloneFlags::CLONE_NEWNET).map_err(JailError::step("namespaces: enter that of the network"))?;
    }
    ids::drop_privileges(plan, users, limits.as_ref())?;
    drop(limits);
    tie_to_shim(plan)?;
    // Whoever is gone by now does not end us any more.
    if !lifeline.is_open().map_err(JailError::step("init: lifeline"))? {
        return Err(JailError::InitGone);
    }
    let agent = start_agent(plan, master, slave)?;
    if plan.filter.is_some() {
        filter::confine_init().map_err(JailError::step("seccomp: init"))?;
    }
    // Only now: whatever fails up to here ends as a start that failed, and what runs already goes with it.
    lifeline.send(&InitMessage::Executed, &[]).map_err(JailError::step("init: lifeline"))?;
    Ok(agent)
}

/// Waits for this word of the shim, and takes what comes with it.
fn told(lifeline: &mut Lifeline, word: &ShimMessage) -> Result<Vec<OwnedFd>, JailError> {
    match lifeline.receive::<ShimMessage>().map_err(JailError::step("init: lifeline"))? {
        Some((told, fds)) if told == *word => Ok(fds),
        _ => Err(JailError::InitGone),
    }
}

/// Init needs none of the shim's descriptors: not the journal, not the sockets, not the log.
fn shed_descriptors(lifeline: &Lifeline, sources: &Sources) -> Result<(), JailError> {
    let kept = std::iter::once(lifeline.as_fd()).chain(sources.idmaps.iter().chain(&sources.disk).map(AsFd::as_fd));
    let kept: Vec<i32> = kept.map(|fd| fd.as_raw_fd()).collect();
    sys::close_others(&kept).map_err(JailError::step("init: descriptors"))?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|_| JailError::step("init: descriptors")(Errno::ENODEV))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .map_err(JailError::step("init: descriptors"))
}

/// Ends with the shim, and lets nobody read its memory, which still is the shim's: an ordinary user's shim could then not map its ids. Every change
/// of ids undoes both.
fn guard(plan: &JailPlan) -> Result<(), JailError> {
    tie_to_shim(plan)?;
    if matches!(plan.mode, JailMode::Root { .. }) {
        set_dumpable(false).map_err(JailError::step("privileges: not dumpable"))?;
    }
    Ok(())
}

/// Through the start the kernel ends init with the shim, and with it everything in its pid namespace. A shim that has become somebody else has no
/// right to signal init, not by its death either: from then on the lifeline alone is the tie. Without a pid namespace init has to end the others
/// itself and must outlive the shim.
fn tie_to_shim(plan: &JailPlan) -> Result<(), JailError> {
    if !plan.has(Namespace::Pid) {
        return Ok(());
    }
    set_pdeathsig(Signal::SIGKILL).map_err(JailError::step("init: tie to the shim"))
}

fn set_limit(mode: JailMode, limit: Rlimit) -> Result<(), JailError> {
    let (name, resource) = match limit.resource {
        RlimitResource::Nofile => ("nofile", Resource::RLIMIT_NOFILE),
        RlimitResource::Nproc => ("nproc", Resource::RLIMIT_NPROC),
        RlimitResource::Core => ("core", Resource::RLIMIT_CORE),
        RlimitResource::Memlock => ("memlock", Resource::RLIMIT_MEMLOCK),
        RlimitResource::Msgqueue => ("msgqueue", Resource::RLIMIT_MSGQUEUE),
        RlimitResource::Sigpending => ("sigpending", Resource::RLIMIT_SIGPENDING),
    };
    let failed = |source| JailError::Step { step: format!("rlimit: {name}"), source };
    match setrlimit(resource, limit.value, limit.value) {
        // Without CAP_SYS_RESOURCE no hard limit is raised. A lower one is no smaller jail, but for core dumps: at 0 the kernel starts a handler of
        // dumps as root on the host, which an ordinary user's processes may cause anyway and those of a session of ours must not.
        Err(Errno::EPERM) if limit.resource != RlimitResource::Core || !matches!(mode, JailMode::Root { .. }) => {
            let (_, hard) = getrlimit(resource).map_err(failed)?;
            setrlimit(resource, hard, hard).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// What protects the daemon must not protect the jail. An ordinary user can only add.
fn expose_to_oom_killer(at_least: u16) -> Result<(), Errno> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let now: i32 = fs::read_to_string(FILE).map_err(errno)?.trim().parse().map_err(|_| Errno::EINVAL)?;
    if now < i32::from(at_least) { fs::write(FILE, at_least.to_string()).map_err(errno) } else { Ok(()) }
}

fn start_agent(plan: &JailPlan, master: OwnedFd, slave: OwnedFd) -> Result<Agent, JailError> {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&child), None).map_err(JailError::step("init: signals"))?;
    let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC).map_err(JailError::step("init: signals"))?;
    let (status_read, status_write) = pipe2(OFlag::O_CLOEXEC).map_err(JailError::step("init: status pipe"))?;
    let pid = match sys::fork_process().map_err(JailError::step("init: fork"))? {
        ForkResult::Child => {
            let error = agent::execute(plan, &slave);
            // If that does not get through either, an empty message says that something failed.
            let text = serde_json::to_vec(&error.to_message()).unwrap_or_else(|_| b" ".to_vec());
            let _told = File::from(status_write).write_all(&text);
            std::process::exit(EXIT_SETUP);
        }
        ForkResult::Parent { child } => child,
    };
    drop(status_write);
    let mut status = Vec::new();
    File::from(status_read).read_to_end(&mut status).map_err(|_| JailError::InitGone)?;
    if !status.is_empty() {
        return Err(serde_json::from_slice(&status).map_or(JailError::InitGone, JailError::from_message));
    }
    Ok(Agent { pid, master, _slave: slave, children })
}

/// Reaps until the agent ends or the shim is gone; the message for the shim, if it still is there.
fn attend(agent: &Agent, lifeline: &mut Lifeline) -> Option<InitMessage> {
    loop {
        let (ended, more) = reap(agent.pid);
        if ended.is_some() {
            return ended;
        }
        let mut fds =
            [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN), PollFd::new(agent.children.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, if more { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            // Init that cannot hear the shim must not go on: nobody could end what is inside.
            Err(_) => return None,
        }
        let told = fds[0].any() == Some(true);
        if fds[1].any() == Some(true) {
            let _which = agent.children.read_signal();
        }
        if told {
            match lifeline.receive::<ShimMessage>() {
                Ok(Some((ShimMessage::Terminate, _))) => terminate(agent),
                Ok(Some((ShimMessage::Build | ShimMessage::Run, _))) => {}
                // The shim is gone: so is everything it held.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Takes in children that ended; the message if the agent was among them, and whether there may be more.
fn reap(agent: Pid) -> (Option<InitMessage>, bool) {
    let mut ended = None;
    for _ in 0..REAPED_AT_ONCE {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == agent => {
                ended = Some(InitMessage::Ended { code: Some(code), signal: None })
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                ended = Some(InitMessage::Ended { code: None, signal: Some(signal as i32) });
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return (ended, false),
            Ok(_) => {}
        }
    }
    (ended, true)
}

/// Asks as a closing terminal does: hang-up for the job in the foreground, then the polite signal for the agent.
fn terminate(agent: &Agent) {
    // Any of them may be gone already; the shim's deadline settles what does not listen.
    // 0 is a terminal without a group, and would be our own.
    if let Ok(group) = tcgetpgrp(&agent.master)
        && group.as_raw() > 0
    {
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
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use nix::sys::wait::{Id, waitid};

    use super::*;

    #[test]
    fn no_crowd_of_orphans_keeps_init_from_the_lifeline() {
        let some = i32::try_from(REAPED_AT_ONCE).unwrap() + 1;
        let children: Vec<Child> = (0..some).map(|_| Command::new("true").spawn().unwrap()).collect();
        for child in &children {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        }
        let agent = Pid::from_raw(i32::MAX);
        assert_eq!((reap(agent).1, reap(agent).1), (true, false));
    }
}
