"""All tests of a worker VM: first in the order in which a host lives (installed, used, restarted, upgraded, limited, removed), then compiled ones.

Arguments: what to run, `service` or parts of names of compiled tests; everything if none.
"""

import os
import sys

import egress
import limits
import programs
import service
from harness import Tally

wanted = sys.argv[1:]
tally = Tally()
if not wanted or "service" in wanted:
    tally.functions("service", service.BEFORE + limits.TESTS + egress.TESTS + service.AFTER)
words = [word for word in wanted if word != "service"]
if os.path.isdir(programs.PROGRAMS) and (words or not wanted):
    programs.run_all(tally, words)
tally.end()
