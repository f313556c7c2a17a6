"""What the tests of a VM stand on: running tests in order, waiting for facts, and asking AgentAPI and systemd.

Everything here is emulated, so deadlines are generous. They bound how long a failure takes and say nothing of speed.
"""

import glob
import json
import os
import subprocess
import time
import traceback

# Emulation is 10 to 20 times slower than a machine, and a loaded machine makes it slower still.
DEADLINE_S = 60

SUPERVISOR, SESSIONS, CONTROLPLANE = "agentapi-supervisor.service", "agentapi-sessions.service", "agentapi-controlplane.service"
CGROUP = "/sys/fs/cgroup"
# Ids of the host that sessions get begin here.
SLOT_UID_BASE = 0x4000_0000


class Failed(Exception):
    """An expectation that was not met, in words."""


def expect(condition, words):
    if not condition:
        raise Failed(words() if callable(words) else str(words))


def equal(found, wanted, what):
    expect(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def run(*command, check=True, timeout=DEADLINE_S, **options):
    """The finished command; with `check`, a status other than 0 is a failure that shows what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done


def eventually(what, look, deadline_s=DEADLINE_S):
    """Waits until `look` gives something, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"not within {deadline_s} s: {what}")
        time.sleep(0.2)


def unit(name, key):
    return run("systemctl", "show", "--value", "-p", key, name).stdout.strip()


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def agentapi(*words, check=True):
    return run("agentapi", *words, check=check)


def session(name):
    return json.loads(agentapi("session", "show", name, "--json").stdout)


def create(name, *command, options=()):
    """Starts a session, waits until it runs, and returns what the API says of it."""
    agentapi("session", "create", "custom", "--name", name, "--wait", *options, "--", *command)
    found = session(name)
    equal(found["state"], "running", f"state of {name}")
    return found


def screen(name):
    return agentapi("session", "screen", name).stdout


def shown(name, text):
    eventually(f"{text!r} on the screen of {name}", lambda: text in screen(name))


def processes():
    """Every process: pid, its real user id, its command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            uid = int(next(line for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("Uid:")).split()[1])
            found.append((int(pid), uid, read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()))
        except (OSError, StopIteration):
            continue
    return found


def of_sessions():
    """Processes that exist only because of sessions: shims, and whatever has a session's id."""
    return [(pid, uid, line) for pid, uid, line in processes() if uid >= SLOT_UID_BASE or line.startswith("agentapi-shim")]


def pid_of(marker):
    """The one process of a session whose command line has this in it."""
    found = [pid for pid, uid, line in of_sessions() if marker in line and not line.startswith("agentapi-shim")]
    expect(len(found) == 1, lambda: f"one process with {marker!r}: {found} of {of_sessions()}")
    return found[0]


def start_time(pid):
    """Ticks since boot; with the pid it says that a process is still the same one."""
    return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[19]


def loops():
    """Files that loop devices show."""
    return [read(file).strip() for file in sorted(glob.glob("/sys/block/loop*/loop/backing_file"))]


def mounts():
    """What the host has mounted, without what changes by itself."""
    return sorted(" ".join(line.split()[4:6]) for line in read("/proc/1/mountinfo").splitlines() if "/run/user" not in line)


def cgroups():
    """Groups below our units."""
    found = []
    for name in (SUPERVISOR, SESSIONS):
        for path, _, _ in os.walk(f"{CGROUP}/system.slice/{name}"):
            found.append(path)
    return sorted(found)


class Tally:
    """Tells each result on its line, counts them, and ends with the marker that the harness waits for."""

    def __init__(self):
        self.passed = self.failed = 0
        self.began = time.monotonic()

    def test(self, name, work):
        began = time.monotonic()
        words = None
        try:
            work()
        except Failed as failure:
            words = str(failure)
        except Exception:  # noqa: BLE001: whatever it is, the next test runs and the report is complete.
            words = traceback.format_exc()
        seconds = time.monotonic() - began
        if words is None:
            self.passed += 1
            print(f"ok {name} ({seconds:.1f} s)", flush=True)
        else:
            self.failed += 1
            print(f"not ok {name} ({seconds:.1f} s)", flush=True)
            print("\n".join(f"# {line}" for line in words.splitlines()), flush=True)

    def functions(self, suite, tests):
        """Runs functions in order."""
        print(f"# suite {suite}: {len(tests)} tests", flush=True)
        failed = self.failed
        for test in tests:
            self.test(f"{suite}::{test.__name__}", test)
        if self.failed > failed:
            print(run("journalctl", "--no-pager", "-n", "300", "-u", "agentapi-*", check=False).stdout, flush=True)

    def end(self):
        print(f"VM-TEST-END passed={self.passed} failed={self.failed} tests={time.monotonic() - self.began:.0f}s", flush=True)
