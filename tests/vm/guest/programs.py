"""Compiled test programs, such as that of tests/sandbox, run in the VM: one test at a time, each with an end, none of them silently left out."""

import glob
import os
import select
import subprocess
import time

from harness import expect, read, run

PROGRAMS = "/run/payload/tests/deps"
# How many times slower than a usual machine an emulated one is, for whoever waits in a test.
SLOWNESS = "20"
# A test that is not over by then hangs: whatever waits in it has given up long before.
TEST_SECONDS_MAX = 3600
# Of one that takes long it is said what is going on, so often.
TOLD_SECONDS = 60
# How tests say it of an attempt that a machine cannot show. Everything can be shown here but what these need.
NOT_SHOWN = "not shown"
CANNOT_BE_SHOWN = {
    "kernel.x32": "a variant that Debian's kernels are built without",
    "net.bluetooth": "a family that Debian's kernels for clouds are built without",
}


def run_all(tally, wanted):
    """Every test of every program, or those whose names contain one of the words."""
    # The shipped units ask for it.
    subprocess.run(("modprobe", "loop"), check=True)
    for program in sorted(os.listdir(PROGRAMS)):
        names = [name for name in listed(program) if not wanted or any(word in name for word in wanted)]
        left_out = listed(program, "--ignored")
        print(f"# suite {program}: {len(names)} tests", flush=True)
        if not names:
            tally.test(f"{program}::has_tests", lambda: expect(False, f"no test that is named like {wanted}"))
        for number, name in enumerate(names, 1):
            print(f"# {program} {number}/{len(names)}: {name}", flush=True)
            tally.test(f"{program}::{name}", lambda: run_one(program, name, left_out))


def listed(program, *options):
    """Names of a program's tests."""
    done = subprocess.run((f"{PROGRAMS}/{program}", "--list", "--format", "terse", *options), capture_output=True, text=True, check=True)
    return [line.removesuffix(": test") for line in done.stdout.splitlines() if line.endswith(": test")]


def run_one(program, name, left_out):
    expect(name not in left_out, "it is ignored, and shows nothing")
    status, said = output_of(program, name)
    expect(status == 0 and "test result: ok. 1 passed; 0 failed; 0 ignored" in said, lambda: f"status {status}\n{said}{logs()}")
    # The first may stand behind the name of the test.
    lines = [line[line.index(NOT_SHOWN):] for line in said.splitlines() if NOT_SHOWN in line]
    print("".join(f"# {line}\n" for line in lines), end="", flush=True)
    expect(all(any(name in line for name in CANNOT_BE_SHOWN) for line in lines), "what is not shown here is shown nowhere")


def output_of(program, name):
    # Not a pipe: what a test leaves running might hold it open.
    log = f"/tmp/{program}.log"
    environment = {**os.environ, "AGENTAPI_TEST_SLOWNESS": SLOWNESS}
    command = (f"{PROGRAMS}/{program}", "--exact", name, "--nocapture", "--test-threads=1")
    with open(log, "w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
    # Python's own wait with a timeout looks again and again, which costs an emulated machine a lot.
    ended = os.pidfd_open(child.pid)
    end = time.monotonic() + TEST_SECONDS_MAX
    while not select.select([ended], [], [], TOLD_SECONDS)[0] and time.monotonic() < end:
        print(f"# still running; processor time: {busiest()}", flush=True)
    os.close(ended)
    status = child.poll()
    if status is None:
        child.kill()
        child.wait()
        status = f"none after {TEST_SECONDS_MAX} s"
    return status, read(log)


def busiest():
    """Processes that have used most, so that a log shows what a long test is about."""
    lines = run("ps", "-eo", "time,args", "--sort=-time", "--no-headers").stdout.splitlines()
    return "; ".join(line.strip()[:80] for line in lines[:3])


def logs():
    """What supervisors said last; a test that panics leaves its directory."""
    paths = sorted(glob.glob("/tmp/agentapi-test-*/*.log"), key=os.path.getmtime)[-2:]
    return "".join(f"\n{path}:\n" + "\n".join(read(path).splitlines()[-60:]) for path in paths)
