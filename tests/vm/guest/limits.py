"""Limits of cgroup v2, hit."""

import os

from harness import Failed, agentapi, create, equal, eventually, expect, loops, of_sessions, read, screen, session, shown

MEMORY_MB, PIDS, CPU_PERCENT, DISK_MB = 64, 40, 20, 48
# What a hog gets at the least before its limit: the rest is Python, and whatever else is in the session.
REACHED_MB = 16


def in_force(name):
    """Limits of the session's posture."""
    return (session(name)["sandbox"] or {}).get("limits", {})


def limited(test):
    """These hosts can limit, so what the profile says is in force."""

    def wrapped():
        found = in_force("ticker")
        for limit in ("memory_bytes", "pids", "cpu_percent"):
            expect(limit in found, f"{limit} is in force: {found}")
        test()

    wrapped.__name__ = test.__name__
    return wrapped


def limiting(marker, name):
    """The group that holds this limit for the session whose command line has the marker, and the limit."""
    pid = next(pid for pid, _, line in of_sessions() if marker in line and not line.startswith("agentapi-shim"))
    path = "/sys/fs/cgroup" + read(f"/proc/{pid}/cgroup").strip().split("::", 1)[1]
    while path != "/sys/fs/cgroup":
        # Not there: the controller is not given to this group.
        value = read(f"{path}/{name}").strip() if os.path.exists(f"{path}/{name}") else "max"
        if value.split()[0] != "max":
            return path, value
        path = path.rsplit("/", 1)[0]
    raise Failed(f"no {name} on the group of {pid} or above it")


@limited
def memory_ends_at_its_limit():
    # A megabyte at a time, each told; it is killed, and nothing else is.
    script = "import sys\nkept = []\nfor n in range(1, 400):\n    kept.append(bytearray(b'x' * 1048576))\n    print('has', n, flush=True)\n"
    # It may be over before anybody has looked, so it waits to be told.
    hog = "read go; python3 -c \"$HOG\"; echo status-$?; sleep 1000"
    create("hog", "bash", "--norc", "-c", hog, options=("--memory", f"{MEMORY_MB}M", "--env", f"HOG={script}"))
    equal(in_force("hog")["memory_bytes"], MEMORY_MB << 20, "memory in force")
    agentapi("session", "input", "hog", "--keys", "Enter")

    def over():
        found = session("hog")
        return found if found["state"] != "running" or "status-" in screen("hog") else None

    ended = eventually("the hog has ended", over)
    killed = "status-137" in screen("hog") or (ended["exit"] or {}).get("signal") == "SIGKILL"
    expect(killed, lambda: f"it was not killed: {ended['exit']}\n{screen('hog')}")
    reached = max((int(line.split()[1]) for line in screen("hog").splitlines() if line.startswith("has ")), default=0)
    expect(REACHED_MB <= reached < MEMORY_MB, lambda: f"{reached} MiB of {MEMORY_MB}\n{screen('hog')}")
    expect(session("ticker")["state"] == "running", "others live")
    agentapi("session", "purge", "hog", "--force")


@limited
def processes_end_at_their_limit():
    script = "n=0; while [ $n -lt 200 ]; do sleep 1000 & n=$((n+1)); done; echo never-$n"
    create("forks", "bash", "--norc", "-c", script, options=("--pids", str(PIDS)))
    equal(in_force("forks")["pids"], PIDS, "pids in force")
    eventually("bash says that it cannot fork", lambda: "Resource temporarily unavailable" in screen("forks"))
    group, limit = limiting("never-", "pids.max")
    equal(limit, str(PIDS), f"pids.max of {group}")
    expect(int(read(f"{group}/pids.current")) <= PIDS, "processes in the group")
    expect(sum("sleep 1000" in line for _, _, line in of_sessions()) > PIDS // 2, "it got that far")
    agentapi("session", "purge", "forks", "--force")


@limited
def processor_time_ends_at_its_limit():
    # Two loops for two processors: without a limit they would have 200 % of one.
    create("burn", "bash", "--norc", "-c", "(while :; do :; done) & while :; do :; done # burn-burn", options=("--cpus", f"0.{CPU_PERCENT}"))
    equal(in_force("burn")["cpu_percent"], CPU_PERCENT, "processor time in force")
    group, limit = limiting("burn-burn", "cpu.max")
    period_us = int(limit.split()[1])

    def stat():
        fields = dict(line.split() for line in read(f"{group}/cpu.stat").splitlines())
        return int(fields["usage_usec"]), int(fields["nr_periods"]), int(fields["nr_throttled"])

    first = stat()
    later = eventually("20 periods later", lambda: stat()[1] >= first[1] + 20 and stat())
    share = 100 * (later[0] - first[0]) / ((later[1] - first[1]) * period_us)
    # A period may be finished by a slice that had begun.
    expect(share < CPU_PERCENT * 1.5, f"{share:.0f} % instead of {CPU_PERCENT} %")
    expect(later[2] > first[2], "it was made to wait")
    agentapi("session", "purge", "burn", "--force")


@limited
def disk_space_ends_at_its_limit():
    expect("disk_bytes" in in_force("ticker"), f"every session has a disk: {in_force('ticker')}")
    free = os.statvfs("/var/lib/agentapi").f_bavail
    script = "LC_ALL=C dd if=/dev/zero of=$HOME/full bs=1M count=256; echo status-$?; sleep 1000"
    create("filler", "bash", "--norc", "-c", script, options=("--disk", f"{DISK_MB}M"))
    equal(in_force("filler")["disk_bytes"], DISK_MB << 20, "disk space in force")
    shown("filler", "status-1")
    expect("No space left on device" in screen("filler"), lambda: screen("filler"))
    taken = (free - os.statvfs("/var/lib/agentapi").f_bavail) * os.statvfs("/var/lib/agentapi").f_frsize >> 20
    # And what everything else has written meanwhile.
    expect(taken < DISK_MB + 24, f"{taken} MiB of the host were taken")
    expect(loops(), "it is on a loop device")
    agentapi("session", "purge", "filler", "--force")


TESTS = [
    disk_space_ends_at_its_limit,
    memory_ends_at_its_limit,
    processes_end_at_their_limit,
    processor_time_ends_at_its_limit,
]
