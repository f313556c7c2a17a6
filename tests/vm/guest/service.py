"""The units under a real systemd: sessions run, survive what a supervisor goes through, and leave nothing behind."""

import json
import os
import re
import shutil

from harness import (
    CGROUP, CONTROLPLANE, SESSIONS, SUPERVISOR, agentapi, cgroups, create, equal, eventually, expect, loops, mounts, of_sessions, pid_of, read,
    run, screen, session, shown, start_time, unit,
)

UNITS = (CONTROLPLANE, SESSIONS, SUPERVISOR)
ROOT = "/srv/projects"
TICKER = "i=0; while :; do echo tick-$i; i=$((i+1)); sleep 1; done"


def units_are_sound():
    done = run("systemd-analyze", "verify", *(f"/usr/local/lib/systemd/system/{name}" for name in UNITS), check=False)
    # What systemd thinks of units that are not ours is not our matter.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "agentapi" in line]
    equal((done.returncode, ours), (0, []), "systemd-analyze verify")


def it_is_installed_as_the_documentation_says():
    os.makedirs(f"{ROOT}/mine")
    os.makedirs(f"{ROOT}/memory")
    os.chown(f"{ROOT}/mine", 1234, 1234)
    with open("/etc/agentapi/supervisor.env", "w", encoding="utf-8") as file:
        file.write(f"AGENTAPI_SUPERVISOR_WORKSPACE_ROOTS={ROOT}\n")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", CONTROLPLANE, SUPERVISOR)
    for name in UNITS:
        equal(unit(name, "ActiveState"), "active", name)
    said = run("journalctl", "-o", "cat", "-t", "agentapi-supervisor").stdout
    expect("supervisor ready" in said and "sandbox=Holds" in said, f"what the supervisor logs: {said}")
    equal(run("ps", "-o", "user=", "-p", unit(CONTROLPLANE, "MainPID")).stdout.strip(), "agentapi", "user of the control plane")


def the_doctor_finds_this_host_well():
    done = run("agentapi-supervisor", "doctor", "--json", check=False)
    report = json.loads(done.stdout)
    verdicts = {0: "ok", 1: "degraded", 2: "refused"}
    equal(report["verdict"], verdicts.get(done.returncode), "exit code and verdict")
    expect(done.returncode in (0, 1), lambda: done.stdout)
    equal(report["isolation"], "root", "isolation, by the doctor")
    attempts = [attempt for trial in report["trials"] for attempt in trial["attempts"]]
    expect(len(attempts) >= 80 and all(attempt["outcome"] in ("refused", "absent") for attempt in attempts),
           lambda: f"the self-test, by the doctor: {attempts}")
    # And so does the daemon, which runs with less than the shell that the doctor was called from.
    host = eventually("a connected host", lambda: [host for host in hosts() if host["connected"]])[0]
    equal(host["facts"]["isolation"], "root", "isolation, by the daemon")


def hosts():
    return json.loads(agentapi("host", "list", "--json").stdout)["data"]


def a_session_runs():
    create("shell", "bash", "--norc", "--noprofile")
    agentapi("session", "input", "shell", "--text", "echo $((6*7))-is-it", "--keys", "Enter")
    shown("shell", "42-is-it")


def an_agent_gets_what_is_promised_and_nothing_of_the_unit():
    script = "ulimit -n; ulimit -u; ulimit -l; ulimit -q; ulimit -c; umask; cat /proc/self/oom_score_adj; grep -E '^(Cap|NoNew)' /proc/self/status; env | sort; echo all-told; sleep 1000"
    create("promises", "bash", "--norc", "-c", script)
    shown("promises", "all-told")
    lines = [line.rstrip() for line in screen("promises").splitlines()]
    equal(lines[:6], ["8192", "4096", "65536", "1048576", "0", "0022"], "ulimit -n -u -l -q -c, umask")
    expect(int(lines[6]) >= 500, f"oom_score_adj {lines[6]}: when memory is short an agent goes first")
    capabilities = [line.split()[1] for line in lines if line.startswith("Cap")]
    equal(capabilities, ["0" * 16] * 5, "capabilities")
    expect(any(re.fullmatch(r"NoNewPrivs:\s+1", line) for line in lines), "no new privileges")
    expect(not any("NOTIFY_SOCKET" in line or "AGENTAPI_SUPERVISOR" in line or "INVOCATION_ID" in line for line in lines), "environment of the unit")
    agentapi("session", "stop", "promises", "--force")


def a_workspace_of_the_host_is_written_as_its_owner():
    create("owner", "bash", "--norc", "-c", "id -u; echo made-inside >file; echo done-$?; sleep 1000", options=("--workspace", f"{ROOT}/mine"))
    shown("owner", "done-0")
    made = os.stat(f"{ROOT}/mine/file")
    equal((made.st_uid, made.st_gid), (1234, 1234), "owner on the host")
    agentapi("session", "stop", "owner", "--force")


def a_workspace_in_memory_is_written_or_refused_in_words():
    """tmpfs has id maps since Linux 6.3. Before that a session may still run, with the files of its owner; one that cannot says what it needs."""
    run("mount", "-t", "tmpfs", "none", f"{ROOT}/memory")
    os.chown(f"{ROOT}/memory", 1234, 1234)
    words = ("session", "create", "custom", "--name", "memory", "--wait", "--workspace", f"{ROOT}/memory", "--")
    done = agentapi(*words, "bash", "--norc", "-c", "echo made-inside >file; echo done-$?; sleep 1000", check=False)
    if done.returncode == 0:
        shown("memory", "done-0")
        equal(os.stat(f"{ROOT}/memory/file").st_uid, 1234, "owner on the host")
        agentapi("session", "stop", "memory", "--force")
    else:
        expect(linux() < (6, 3), f"refused by a kernel that can: {done.stderr}")
        expect(f"{ROOT}/memory" in done.stderr, f"the words name the directory: {done.stderr}")
    run("umount", f"{ROOT}/memory")


def linux():
    return tuple(map(int, os.uname().release.split(".")[:2]))


def a_process_among_the_sessions_opens_no_device():
    disk = run("findmnt", "-n", "-o", "SOURCE", "/").stdout.strip()

    def first_block_from(group):
        script = f"echo 0 >{group}/cgroup.procs && exec dd if={disk} of=/dev/null bs=512 count=1"
        return run("/bin/sh", "-c", script, check=False)

    equal(first_block_from(CGROUP).returncode, 0, "root elsewhere reads the disk")
    inside = f"{CGROUP}/system.slice/{SESSIONS}/device-test"
    os.mkdir(inside)
    refused = first_block_from(inside)
    os.rmdir(inside)
    expect(refused.returncode != 0 and "Operation not permitted" in refused.stderr, f"root below {SESSIONS}: {refused}")


def devices_of_a_newer_unit_count_from_the_reload_on():
    """An upgrade from units that did not allow loop devices, while sessions run: they are allowed as soon as systemd has read the new ones."""

    def opens():
        script = f"echo 0 >{CGROUP}/system.slice/{SESSIONS}/supervisor/cgroup.procs && exec 3<>/dev/loop-control"
        return run("/bin/sh", "-c", script, check=False).returncode == 0

    started = unit(SESSIONS, "InvocationID")
    expect(opens(), "the unit allows it")
    older = f"/run/systemd/system/{SESSIONS}.d"
    os.makedirs(older)
    with open(f"{older}/older.conf", "w", encoding="utf-8") as file:
        file.write("[Service]\nDeviceAllow=\n")
    run("systemctl", "daemon-reload")
    expect(not opens(), "a unit of before does not")
    shutil.rmtree(older)
    run("systemctl", "daemon-reload")
    expect(opens(), "the newer one does again")
    equal(unit(SESSIONS, "InvocationID"), started, "the unit was not restarted")


def tick():
    """The newest number that the ticking session shows."""
    return max(map(int, re.findall(r"tick-(\d+)", screen("ticker"))), default=-1)


class Kept:
    """The ticking session, to be the same afterwards."""

    def __init__(self):
        self.agent = pid_of("tick-")
        self.started = start_time(self.agent)
        self.supervisor = unit(SUPERVISOR, "MainPID")

    def check(self):
        equal(unit(SUPERVISOR, "ActiveState"), "active", SUPERVISOR)
        expect(unit(SUPERVISOR, "MainPID") not in ("0", self.supervisor), "another supervisor runs")
        equal((pid_of("tick-"), start_time(self.agent)), (self.agent, self.started), "the agent's process")
        eventually("the session is reachable", lambda: session("ticker")["state"] == "running" and not session("ticker").get("unreachable"))
        at = tick()
        eventually("the output goes on", lambda: tick() > at + 1)


def a_restart_of_the_unit_keeps_sessions():
    create("ticker", "bash", "--norc", "-c", TICKER)
    shown("ticker", "tick-1")
    kept = Kept()
    run("systemctl", "restart", SUPERVISOR)
    kept.check()


def a_stopped_supervisor_keeps_sessions():
    kept = Kept()
    run("systemctl", "stop", SUPERVISOR)
    equal(unit(SUPERVISOR, "ActiveState"), "inactive", "the supervisor, ended by SIGTERM,")
    equal(start_time(kept.agent), kept.started, "the agent")
    run("systemctl", "start", SUPERVISOR)
    kept.check()


def a_killed_supervisor_comes_back():
    kept = Kept()
    run("kill", "-9", kept.supervisor)
    eventually("systemd starts another one", lambda: unit(SUPERVISOR, "MainPID") not in ("0", kept.supervisor) and unit(SUPERVISOR, "ActiveState") == "active")
    kept.check()


def an_upgrade_keeps_sessions():
    kept = Kept()
    shims = {pid: os.readlink(f"/proc/{pid}/exe") for pid, _, line in of_sessions() if line.startswith("agentapi-shim")}
    before = os.stat("/usr/local/bin/agentapi-supervisor").st_ino
    for name in os.listdir("/run/upgrade"):
        # As `make install` does it.
        shutil.copy2(f"/run/upgrade/{name}", f"/usr/local/bin/.{name}.new")
        os.rename(f"/usr/local/bin/.{name}.new", f"/usr/local/bin/{name}")
    run("systemctl", "restart", CONTROLPLANE, SUPERVISOR)
    running = os.stat(f"/proc/{unit(SUPERVISOR, 'MainPID')}/exe").st_ino
    expect(running != before and running == os.stat("/usr/local/bin/agentapi-supervisor").st_ino, "the new program runs")
    kept.check()
    for pid in shims:
        expect(os.readlink(f"/proc/{pid}/exe").endswith("(deleted)"), "the shims are still those of before")
    agentapi("session", "input", "shell", "--text", "echo still-$((1+1))", "--keys", "Enter")
    shown("shell", "still-2")


def a_stop_leaves_nothing():
    def left():
        # The ticking session starts a `sleep 1` each second.
        return (mounts(), loops(), cgroups(), [(pid, line) for pid, _, line in of_sessions() if line not in ("sleep 1", "")])

    expected = left()
    script = "setsid sleep 1111 & (trap '' HUP TERM; exec sleep 2222) & nohup sleep 3333 & echo leaving-$((3*3)); sleep 4444"
    create("tree", "bash", "--norc", "-c", script)
    shown("tree", "leaving-9")
    expect(len(of_sessions()) >= len(expected[3]) + 5, lambda: f"shim, init, shell and its children are there: {of_sessions()}")
    agentapi("session", "stop", "tree", "--grace", "500ms")

    try:
        eventually("everything is as it was", lambda: left() == expected)
    except Exception:
        changed = [sorted(set(now) ^ set(then)) for now, then in zip(left(), expected)]
        expect(False, f"mounts, loop devices, groups, processes that differ: {changed}")
    agentapi("session", "purge", "tree")


def a_group_full_of_limits_does_not_keep_the_supervisor_out():
    """systemd 252 could not start a service in a group that hands limits on: agentapi-sessions.service says what this is about."""
    group = f"{CGROUP}/system.slice/{SESSIONS}"
    equal(read(f"{group}/cgroup.procs"), "", "processes directly in the group")
    with open(f"{group}/cgroup.subtree_control", "w", encoding="utf-8") as file:
        file.write("+memory +pids +cpu")
    kept = Kept()
    run("systemctl", "restart", SUPERVISOR)
    kept.check()
    equal(read(f"/proc/{unit(SUPERVISOR, 'MainPID')}/cgroup").strip(), f"0::/system.slice/{SESSIONS}/supervisor", "group of the supervisor")
    inside = read(f"/proc/{pid_of('tick-')}/cgroup").strip().split("::", 1)[1]
    expect(inside.startswith(f"/system.slice/{SESSIONS}/"), f"group of a session: {inside}")


def stopping_the_sessions_ends_all_of_them():
    run("systemctl", "stop", SESSIONS)
    equal(of_sessions(), [], "processes of sessions")
    equal(unit(SUPERVISOR, "ActiveState"), "inactive", SUPERVISOR)
    run("systemctl", "start", SUPERVISOR)
    # The host says what became of them, and is ready for others.
    eventually("the session is known to have ended", lambda: session("ticker")["state"] in ("failed", "exited"))
    create("afterwards", "bash", "--norc", "-c", "echo here-$((4+4)); sleep 1000")
    shown("afterwards", "here-8")


def everything_can_be_removed():
    run("agentapi-supervisor", "stop-all", "--grace-ms", "500")
    eventually("no process of a session is left", lambda: not of_sessions())
    run("systemctl", "disable", "--now", SUPERVISOR, CONTROLPLANE)
    run("systemctl", "stop", SESSIONS)
    for name in UNITS:
        equal(unit(name, "ActiveState"), "inactive", name)
        expect(not os.path.exists(f"{CGROUP}/system.slice/{name}"), f"the group of {name} is gone")
    expect(not [line for line in mounts() if "agentapi" in line], "no mount is left")
    eventually("no loop device is left", lambda: not loops())


BEFORE = [
    units_are_sound,
    it_is_installed_as_the_documentation_says,
    the_doctor_finds_this_host_well,
    a_session_runs,
    an_agent_gets_what_is_promised_and_nothing_of_the_unit,
    a_workspace_of_the_host_is_written_as_its_owner,
    a_workspace_in_memory_is_written_or_refused_in_words,
    a_process_among_the_sessions_opens_no_device,
    a_restart_of_the_unit_keeps_sessions,
    a_stopped_supervisor_keeps_sessions,
    a_killed_supervisor_comes_back,
    devices_of_a_newer_unit_count_from_the_reload_on,
    an_upgrade_keeps_sessions,
    a_stop_leaves_nothing,
]
AFTER = [
    a_group_full_of_limits_does_not_keep_the_supervisor_out,
    stopping_the_sessions_ends_all_of_them,
    everything_can_be_removed,
]
