//! Init of a jail against an agent that has its uid, and against starts that go wrong late: whatever happens, a session can be ended.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Instant;

use agentapi_shared::ExitReason;
use agentapi_shared::jail::{JailMode, JailPlan, Rlimit, RlimitResource};
use agentapi_tests::process::binary;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;

use crate::shims::{PORT, Shim, TIMEOUT, listeners, plan, said_through, status, wait_for};

/// A limit of a process, soft and hard.
fn limit(pid: i32, name: &str) -> Result<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    let mut words = line.split_whitespace().map(str::to_owned);
    Ok((words.next().context("a soft limit")?, words.next().context("a hard limit")?))
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Name and state of a process that has not ended.
fn alive(pid: i32) -> Option<(String, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
    let state = rest.chars().next()?;
    (!matches!(state, 'Z' | 'X')).then(|| (name.to_owned(), state))
}

#[test]
fn init_that_can_no_longer_wait_ends_everything() -> Result<()> {
    // The orphan's end makes init wait anew, now with more descriptors than it may have.
    let script = "prlimit --pid 1 --nofile=0:0; (bash -c 'sleep 0.1' &); exec sleep 1000";
    let mut shim = Shim::start(JailPlan { filter: None, ..plan(script) })?;
    let dir = shim.dir.path().to_owned();
    wait_for("the end of everything", || Ok(dir.join(agentapi_shared::shim::EXIT_FILE).exists()))?;
    assert_eq!(alive(shim.init), None);
    assert!(shim.child.wait()?.success(), "{}", fs::read_to_string(dir.join("shim.log"))?);
    Ok(())
}

#[test]
fn an_agent_takes_neither_descriptors_nor_processor_from_init() -> Result<()> {
    // Its output is the terminal, what goes wrong with its own process goes to the test.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{PORT}; \
         prlimit --pid 1 --nofile=0:0; renice -n 19 -p 1; renice -n 19 -u 1000; chrt -i -p 0 1; taskset -p 1 1; \
         ionice -c 3 -p 1; ionice -c 3 -P 1; ionice -c 3 -u 1000; \
         {{ ulimit -n 99; renice -n 19 -p $$ >&1; chrt -i -p 0 $$; taskset -p 1 $$ >&1; }} 2>&3; \
         echo over >&3; exec 3>&-; sleep 1000"
    );
    let mut shim = Shim::start(plan(&script))?;
    let facts = |pid: i32| -> Result<_> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Niceness and scheduling class are fields 19 and 41; the state is the third.
        let fields: Vec<String> = stat.rsplit(") ").next().unwrap_or_default().split(' ').map(str::to_owned).collect();
        Ok((limit(pid, "Max open files")?, status(pid, "Cpus_allowed")?, fields[16].clone(), fields[38].clone()))
    };
    let before = facts(i32::try_from(shim.child.id())?)?;
    assert_eq!(said_through(listeners(&shim)?.1[0])?, "over\n");
    assert_eq!(facts(shim.init)?, before);
    assert_eq!(shim.stop(0, true)?.reason, ExitReason::Killed);
    Ok(())
}

#[test]
fn the_job_in_the_foreground_hears_that_its_terminal_closes() -> Result<()> {
    // The shell of the agent waits for its job, which has a process group of its own, and ends as that does.
    let job = format!(
        "trap \"exit 7\" HUP; exec 3<>/dev/tcp/127.0.0.1/{PORT}; echo ready >&3; exec 3>&-; while :; do sleep 0.1; done"
    );
    let mut shim = Shim::start(plan(&format!("trap : HUP TERM; set -m; bash -c '{job}'; exit $?")))?;
    assert_eq!(said_through(listeners(&shim)?.1[0])?, "ready\n");
    let exit = shim.stop(10_000, false)?;
    assert_eq!((exit.reason, exit.code), (ExitReason::Stopped, Some(7)), "{exit:?}");
    Ok(())
}

#[test]
fn the_limit_of_core_dumps_is_one_byte_or_nothing_runs() -> Result<()> {
    /// `CAP_SYS_RESOURCE`
    const RAISES_LIMITS: u64 = 1 << 24;
    let core = |value| vec![Rlimit { resource: RlimitResource::Core, value }];
    let own = i32::try_from(std::process::id())?;
    let may_raise = u64::from_str_radix(&status(own, "CapEff")?, 16)? & RAISES_LIMITS != 0;
    let one = ("1".to_owned(), "1".to_owned());
    let shim = Shim::start(JailPlan { rlimits: core(1), ..plan("exec sleep 1000") })?;
    assert_eq!(limit(shim.init, "Max core file size")?, one);
    // With 0 the kernel would start a handler of dumps again, so an agent's own wish is taken for fulfilled.
    let shim = Shim::start(JailPlan { rlimits: core(1), ..plan("ulimit -c 0 && exec sleep 1000") })?;
    let asleep = || children(shim.init).into_iter().find(|pid| alive(*pid).is_some_and(|(name, _)| name == "sleep"));
    wait_for("it has set its limit", || Ok(asleep().is_some()))?;
    assert_eq!(limit(asleep().context("the agent")?, "Max core file size")?, one);
    // As below a supervisor that may write no cores at all.
    let mut command = Command::new("prlimit");
    command.arg("--core=0:0").arg(binary("agentapi-shim"));
    match Shim::start_by(command, JailPlan { rlimits: core(1), ..plan("exec sleep 1000") }) {
        Ok(shim) => assert_eq!(limit(shim.init, "Max core file size")?, one),
        Err(error) => assert!(!may_raise && error.to_string().contains("rlimit: core"), "{error}"),
    }
    Ok(())
}

/// A shim without a pid namespace, its init stopped after it has started the agent and before it knows that.
struct Caught {
    shim: Shim,
    control: OwnedFd,
    agent: i32,
}

impl Drop for Caught {
    /// Nothing here ends by itself if the test fails.
    fn drop(&mut self) {
        for pid in [self.shim.init, self.agent] {
            if alive(pid).is_some() {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// None if the moment was missed.
fn caught_in_between(plan: JailPlan) -> Result<Option<Caught>> {
    let (mut shim, control) = Shim::begin(Command::new(binary("agentapi-shim")), plan)?;
    let pid = i32::try_from(shim.child.id())?;
    let since = Instant::now();
    let agent = loop {
        ensure!(since.elapsed() < TIMEOUT, "no agent: {}", fs::read_to_string(shim.dir.path().join("shim.log"))?);
        let Some(init) = children(pid).first().copied() else { continue };
        shim.init = init;
        if let Some(agent) = children(init).first() {
            break *agent;
        }
    };
    kill(Pid::from_raw(shim.init), Signal::SIGSTOP)?;
    let caught = Caught { shim, control, agent };
    wait_for("a stopped init", || Ok(alive(caught.shim.init).is_some_and(|(_, state)| state == 'T')))?;
    let in_time = alive(agent).is_some_and(|(name, _)| name.starts_with("agentapi"));
    Ok(in_time.then_some(caught))
}

#[test]
fn a_start_that_fails_late_leaves_no_agent_without_a_pid_namespace() -> Result<()> {
    let mut plan = JailPlan {
        mode: JailMode::None,
        namespaces: Vec::new(),
        hostname: None,
        listeners: Vec::new(),
        mounts: Vec::new(),
        oom_score_adj: None,
        filter: None,
        shim: None,
        ..plan("trap '' HUP; exec sleep 1000")
    };
    // Finding the program takes a while.
    plan.exec.env = vec![("PATH".to_owned(), format!("{}/usr/bin:/bin", "/a:".repeat(40_000)))];
    let mut attempts = 0..20;
    let mut caught = loop {
        ensure!(attempts.next().is_some(), "every time the agent was there before it could be caught");
        if let Some(caught) = caught_in_between(plan.clone())? {
            break caught;
        }
    };
    let (init, agent) = (caught.shim.init, caught.agent);
    caught.shim.child.kill()?;
    caught.shim.child.wait()?;
    wait_for("the agent's program", || Ok(alive(agent).is_some_and(|(name, _)| name == "sleep")))?;
    kill(Pid::from_raw(init), Signal::SIGCONT)?;
    wait_for("the end of init", || Ok(alive(init).is_none()))?;
    // Nobody was told that it runs.
    assert_eq!(recv(caught.control.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT), Ok(0));
    assert!(alive(agent).is_none(), "the agent outlives its session");
    Ok(())
}
