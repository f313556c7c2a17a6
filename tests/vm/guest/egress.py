"""Real tools in sessions of the shipped units, and what leaves a session: through the gateway, by name, each decision on record.

There is no network in a VM: an address out of the public internet is put on its loopback, and a server of ours listens there. One of those that are
kept for documentation would not do: the gateway refuses them.
"""

import http.server
import json
import threading

from harness import SUPERVISOR, agentapi, create, equal, eventually, expect, run, screen, shown

ADDRESS, ALLOWED, DENIED = "93.184.216.10", "packages.example.com", "elsewhere.example.org"
# Processes of many kinds: what the sandbox must not break. Each line ends with a word of its own.
TOOLS = r"""
cd "$HOME" && git init -q origin && cd origin && git config user.email a@example.com && git config user.name a &&
  echo text >file && git add . && git commit -qm one && git clone -q . ../copy && [ "$(git -C ../copy log --format=%s)" = one ] && echo git-is-$((1+0))
cd "$HOME" && printf '#include <stdio.h>\nint main(){puts("gcc-is-" "1");}' >a.c && gcc -O1 -o a a.c && ./a
node -e 'new (require("worker_threads").Worker)("require(\"worker_threads\").parentPort.postMessage(1)", {eval: true}).on("message", m => console.log("node-is-" + m))'
/usr/bin/python3 -c 'import multiprocessing as m; p = m.Pool(2); print("python-is-%d" % (sum(p.map(int, "0010"))))'
sleep 1000
"""


def real_tools_work_in_a_session():
    create("tools", "bash", "--norc", "-c", TOOLS)
    for tool in ("git", "gcc", "node", "python"):
        shown("tools", f"{tool}-is-1")
    agentapi("session", "purge", "tools", "--force")


def what_leaves_goes_through_the_gateway_and_is_on_record():
    run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
    with open("/etc/hosts", "a", encoding="utf-8") as file:
        file.write(f"{ADDRESS} {ALLOWED} {DENIED}\n")
    with open("/etc/agentapi/supervisor.toml", "a", encoding="utf-8") as file:
        file.write(f'\n[egress]\nallow = ["{ALLOWED}"]\n')
    with open("/etc/agentapi/supervisor.env", "a", encoding="utf-8") as file:
        file.write(f"AGENTAPI_SUPERVISOR_EGRESS_ALLOW_ADDRESSES={ADDRESS}/32\n")
    run("systemctl", "restart", SUPERVISOR)
    heard = serve()
    asks = "; ".join(f"curl -sS --max-time 60 -o /dev/null -w '{name}-%{{http_code}}\\n' http://{name}/path" for name in (ALLOWED, DENIED))
    direct = f"curl -sS --noproxy '*' --max-time 60 http://{ADDRESS}/; echo direct-$?"
    create("curl", "bash", "--norc", "-c", f"{asks}; {direct}; sleep 1000")
    shown("curl", "direct-7")
    lines = screen("curl").split()
    expect(f"{ALLOWED}-200" in lines and f"{DENIED}-403" in lines, f"what curl was answered: {lines}")
    equal(heard, [(ALLOWED, "/path")], "what arrived at the server")

    def decided():
        found = json.loads(agentapi("session", "egress", "curl", "--json").stdout)
        found = found["data"] if isinstance(found, dict) else found
        return len(found) == 2 and sorted((one["host"], one["port"], one["verdict"], one["rule"], one.get("address")) for one in found)

    records = eventually("both decisions are with the control plane", decided)
    wanted = [(DENIED, 80, "denied", "no_rule", None), (ALLOWED, 80, "allowed", ALLOWED, ADDRESS)]
    equal(records, wanted, "decisions")
    agentapi("session", "purge", "curl", "--force")


def serve():
    """A server at the address; the list of what it was asked."""
    heard = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append((self.headers["host"], self.path))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((ADDRESS, 80), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return heard


TESTS = [real_tools_work_in_a_session, what_leaves_goes_through_the_gateway_and_is_on_record]
